// Answering: the prompt is run behind what a DecodeContext holds, then tokens are drawn until an end.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "model/decode_context.h"
#include "model/sampler.h"
#include "model/tokenizer.h"
#include "model/transformer.h"

namespace finchkv::model {

struct GenerateOptions {
  std::int64_t max_tokens = 128;
  SamplerOptions sampler;
  std::vector<std::string> stop;  ///< the answer ends before the first of these; never shown
  /// Text that is settled (whole characters, no possible start of a stop string); return false to end the answer.
  std::function<bool(std::string_view text)> on_text;
  std::function<bool(TokenId id)> on_token;  ///< each token of the answer, before its text; false ends it

  /// invalid_argument: no max_tokens, an empty stop string, or sampling values out of range.
  [[nodiscard]] Status validate() const;
};

struct Answer {
  std::string text;
  std::vector<TokenId> tokens;  ///< without the end token; with a stop string, the tokens that led to it
  bool ended = false;           ///< by an end token or a stop string, not by max_tokens
  std::chrono::steady_clock::time_point first_token;  ///< when the first token was known
  double decode_ms = 0;                               ///< from then to the end
};

/// Runs the prompt and decodes. The context needs room for prompt + max_tokens. Without a tokenizer (or one that cannot
/// decode) the answer has ids only. invalid_argument for an empty prompt, no max_tokens, or an empty stop string.
[[nodiscard]] Result<Answer> generate(Transformer& model, const Tokenizer* tokenizer, DecodeContext& context,
                                      std::span<const TokenId> prompt, const GenerateOptions& options);

/// Mean log-likelihood of `answer` after `prompt`, per token. The context needs room for both.
[[nodiscard]] Result<double> score_answer(Transformer& model, DecodeContext& context, std::span<const TokenId> prompt,
                                          std::span<const TokenId> answer);

}  // namespace finchkv::model
