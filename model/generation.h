// Generation: one answer as it grows, token by token: sampling, stop strings, the text that may be shown.
//
// It takes logits and gives the next token to run; who runs the model, alone (generate()) or for many answers in one
// pass, is the caller's. Belongs to one thread at a time.
#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/generate.h"

namespace finchkv::model {

class Generation {
 public:
  /// `options` validated; `tokenizer` may be null (see generate()) and must outlive this.
  Generation(const Tokenizer* tokenizer, GenerateOptions options);
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  /// With the logits behind all that was run so far: the next token to run, or nothing when the answer is over.
  [[nodiscard]] std::optional<TokenId> next(std::span<const float> logits);
  /// The same with the token that was chosen elsewhere: for greedy answers, the likeliest.
  [[nodiscard]] std::optional<TokenId> accept(TokenId id);
  /// Always the likeliest token: no logits are needed.
  [[nodiscard]] bool greedy() const { return options_.sampler.temperature == 0.0F; }
  /// When next() gave nothing: what has not been shown yet goes to on_text.
  [[nodiscard]] Answer take();

 private:
  bool add_text(const std::string& bytes);
  std::string_view settled(bool over);
  [[nodiscard]] std::size_t search_from(const std::string& stop, std::size_t added) const;
  [[nodiscard]] std::size_t overlap(const std::string& stop) const;

  const Tokenizer* tokenizer_;
  GenerateOptions options_;
  Sampler sampler_;
  Answer answer_;
  std::string text_;
  std::size_t shown_ = 0;
  bool wanted_ = true;
};

}  // namespace finchkv::model
