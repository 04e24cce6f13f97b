#include "model/generate.h"

#include <algorithm>

#include "model/decode_batch.h"

namespace finchkv::model {
namespace {

// The text of an answer as it grows: how much of it is settled and may be shown.
class AnswerText {
 public:
  explicit AnswerText(const std::vector<std::string>& stops) : stops_(stops) {}

  /// False when a stop string has appeared; the text then ends before it.
  bool add(const std::string& bytes) {
    text_ += bytes;
    std::size_t cut = std::string::npos;
    for (const std::string& stop : stops_) cut = std::min(cut, text_.find(stop, search_from(stop, bytes.size())));
    if (cut == std::string::npos) return true;
    text_.resize(cut);
    stopped_ = true;
    return false;
  }

  /// What has settled since the last call; everything when the answer is over.
  std::string_view settled(bool over) {
    std::size_t end = text_.size();
    if (!over) {
      end = complete_utf8_prefix(text_);
      for (const std::string& stop : stops_) end = std::min(end, text_.size() - overlap(stop));
    }
    const std::size_t start = std::min(shown_, end);
    shown_ = end;
    return std::string_view(text_).substr(start, end - start);
  }
  [[nodiscard]] bool stopped() const { return stopped_; }
  std::string take() { return std::move(text_); }

 private:
  [[nodiscard]] std::size_t search_from(const std::string& stop, std::size_t added) const {
    const std::size_t back = added + stop.size();
    return text_.size() > back ? text_.size() - back : 0;
  }
  // The longest end of the text that a stop string starts with.
  [[nodiscard]] std::size_t overlap(const std::string& stop) const {
    for (std::size_t n = std::min(stop.size() - 1, text_.size()); n > 0; --n) {
      if (text_.compare(text_.size() - n, n, stop, 0, n) == 0) return n;
    }
    return 0;
  }

  const std::vector<std::string>& stops_;
  std::string text_;
  std::size_t shown_ = 0;
  bool stopped_ = false;
};

}  // namespace

Status GenerateOptions::validate() const {
  FINCHKV_RETURN_IF_ERROR(sampler.validate());
  if (max_tokens < 1) return Status::invalid_argument("max-tokens must be 1 or more");
  if (std::any_of(stop.begin(), stop.end(), [](const std::string& s) { return s.empty(); })) {
    return Status::invalid_argument("a stop string is empty; it would end every answer before it starts");
  }
  return Status::ok();
}

Result<Answer> generate(Transformer& model, const Tokenizer* tokenizer, DecodeContext& context,
                        std::span<const TokenId> prompt, const GenerateOptions& options) {
  using clock = std::chrono::steady_clock;
  FINCHKV_RETURN_IF_ERROR(options.validate());
  if (prompt.empty()) return Status::invalid_argument("the prompt is empty; an answer needs at least one prompt token");
  Sampler sampler(options.sampler);
  AnswerText text(options.stop);
  Answer answer;
  FINCHKV_ASSIGN_OR_RETURN(std::vector<float> logits, model.forward(prompt, context, LogitRows::kLast));
  DecodeBatch alone(model, {&context});
  const std::vector<std::size_t> sampled(options.sampler.temperature == 0.0F ? 0 : 1, 0);
  TokenId likeliest = 0;
  bool wanted = true;
  for (;;) {
    const TokenId id = logits.empty() ? likeliest : sampler.next(logits);
    if (answer.tokens.empty()) answer.first_token = clock::now();
    if (tokenizer != nullptr && tokenizer->is_end(id)) {
      answer.ended = true;
      break;
    }
    answer.tokens.push_back(id);
    if (tokenizer != nullptr) {
      answer.ended = !text.add(tokenizer->token_bytes(id));
      if (options.on_text && !answer.ended) {
        if (const auto settled = text.settled(false); !settled.empty()) wanted = options.on_text(settled);
      }
    }
    if (answer.ended || !wanted || static_cast<std::int64_t>(answer.tokens.size()) >= options.max_tokens) break;
    // A greedy answer needs no logits on the host.
    FINCHKV_ASSIGN_OR_RETURN(StepResult step, model.step({&id, 1}, alone, sampled));
    likeliest = step.likeliest.front();
    logits = std::move(step.logits);
  }
  answer.decode_ms = std::chrono::duration<double, std::milli>(clock::now() - answer.first_token).count();
  if (const auto rest = text.settled(true); options.on_text && !rest.empty() && wanted)
    static_cast<void>(options.on_text(rest));
  answer.text = text.take();
  return answer;
}

Result<double> score_answer(Transformer& model, DecodeContext& context, std::span<const TokenId> prompt,
                            std::span<const TokenId> answer) {
  if (prompt.empty() || answer.empty())
    return Status::invalid_argument("scoring needs at least one prompt token and one answer token");
  std::vector<TokenId> all(prompt.begin(), prompt.end());
  all.insert(all.end(), answer.begin(), answer.end() - 1);
  // The prompt's rows but the last need no logits: only the rows that predict the answer are asked for.
  double total = 0;
  if (prompt.size() > 1) {
    FINCHKV_ASSIGN_OR_RETURN([[maybe_unused]] const auto none,
                             model.forward(prompt.first(prompt.size() - 1), context, LogitRows::kNone));
  }
  const auto tail = std::span<const TokenId>(all).subspan(prompt.size() - 1);
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<float> logits, model.forward(tail, context, LogitRows::kAll));
  const auto vocab = static_cast<std::size_t>(model.config().vocab);
  for (std::size_t i = 0; i < answer.size(); ++i) {
    if (answer[i] < 0 || static_cast<std::size_t>(answer[i]) >= vocab)
      return Status::invalid_argument("an answer token to score is outside the vocabulary");
    total += log_probability(std::span(logits).subspan(i * vocab, vocab), answer[i]);
  }
  return total / static_cast<double>(answer.size());
}

}  // namespace finchkv::model
