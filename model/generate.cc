#include "model/generate.h"

#include <algorithm>

#include "model/decode_batch.h"
#include "model/generation.h"

namespace finchkv::model {

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
  FINCHKV_RETURN_IF_ERROR(options.validate());
  if (prompt.empty()) return Status::invalid_argument("the prompt is empty; an answer needs at least one prompt token");
  Generation generation(tokenizer, options);
  FINCHKV_ASSIGN_OR_RETURN(std::vector<float> logits, model.forward(prompt, context, LogitRows::kLast));
  DecodeBatch alone(model, {&context});
  const std::vector<std::size_t> sampled(generation.greedy() ? 0 : 1, 0);
  std::optional<TokenId> id = generation.next(logits);
  while (id) {
    const TokenId token = *id;
    FINCHKV_ASSIGN_OR_RETURN(const StepResult step, model.step({&token, 1}, alone, sampled));
    id = generation.greedy() ? generation.accept(step.likeliest.front()) : generation.next(step.logits);
  }
  return generation.take();
}

Result<double> score_answer(Transformer& model, DecodeContext& context, std::span<const TokenId> prompt,
                            std::span<const TokenId> answer) {
  if (prompt.empty() || answer.empty())
    return Status::invalid_argument("scoring needs at least one prompt token and one answer token");
  FINCHKV_RETURN_IF_ERROR(model.config().check_tokens(answer, "answer"));
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
    total += log_probability(std::span(logits).subspan(i * vocab, vocab), answer[i]);
  }
  return total / static_cast<double>(answer.size());
}

}  // namespace finchkv::model
