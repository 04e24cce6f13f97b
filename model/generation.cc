#include "model/generation.h"

#include <algorithm>
#include <utility>

namespace finchkv::model {

using clock = std::chrono::steady_clock;

Generation::Generation(const Tokenizer* tokenizer, GenerateOptions options)
    : tokenizer_(tokenizer), options_(std::move(options)), sampler_(options_.sampler) {}

std::optional<TokenId> Generation::next(std::span<const float> logits) { return accept(sampler_.next(logits)); }

std::optional<TokenId> Generation::accept(TokenId id) {
  if (answer_.tokens.empty()) answer_.first_token = clock::now();
  if (tokenizer_ != nullptr && tokenizer_->is_end(id)) {
    answer_.ended = true;
    return std::nullopt;
  }
  answer_.tokens.push_back(id);
  if (options_.on_token) wanted_ = options_.on_token(id);
  if (tokenizer_ != nullptr) {
    answer_.ended = !add_text(tokenizer_->token_bytes(id));
    if (options_.on_text && wanted_ && !answer_.ended) {
      if (const auto piece = settled(false); !piece.empty()) wanted_ = options_.on_text(piece);
    }
  }
  const bool full = static_cast<std::int64_t>(answer_.tokens.size()) >= options_.max_tokens;
  if (answer_.ended || !wanted_ || full) return std::nullopt;
  return id;
}

Answer Generation::take() {
  answer_.decode_ms = std::chrono::duration<double, std::milli>(clock::now() - answer_.first_token).count();
  if (const auto rest = settled(true); options_.on_text && !rest.empty() && wanted_)
    static_cast<void>(options_.on_text(rest));
  answer_.text = std::move(text_);
  return std::move(answer_);
}

// False when a stop string has appeared; the text then ends before it.
bool Generation::add_text(const std::string& bytes) {
  text_ += bytes;
  std::size_t cut = std::string::npos;
  for (const std::string& stop : options_.stop) cut = std::min(cut, text_.find(stop, search_from(stop, bytes.size())));
  if (cut == std::string::npos) return true;
  text_.resize(cut);
  return false;
}

// What has settled since the last call; everything when the answer is over.
std::string_view Generation::settled(bool over) {
  std::size_t end = text_.size();
  if (!over) {
    end = complete_utf8_prefix(text_);
    for (const std::string& stop : options_.stop) end = std::min(end, text_.size() - overlap(stop));
  }
  const std::size_t start = std::min(shown_, end);
  shown_ = end;
  return std::string_view(text_).substr(start, end - start);
}

std::size_t Generation::search_from(const std::string& stop, std::size_t added) const {
  const std::size_t back = added + stop.size();
  return text_.size() > back ? text_.size() - back : 0;
}

// The longest end of the text that a stop string starts with.
std::size_t Generation::overlap(const std::string& stop) const {
  for (std::size_t n = std::min(stop.size() - 1, text_.size()); n > 0; --n) {
    if (text_.compare(text_.size() - n, n, stop, 0, n) == 0) return n;
  }
  return 0;
}

}  // namespace finchkv::model
