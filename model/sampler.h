// Sampler: the next token from logits: greedy, or temperature and top-p with a seed.
//
// The same seed and logits give the same tokens on every machine (own generator and summation order). One per answer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/tokenizer.h"

namespace finchkv::model {

struct SamplerOptions {
  float temperature = 0.0F;  ///< 0: greedy, ties to the lower id
  float top_p = 1.0F;        ///< the smallest set of most likely tokens whose probability reaches this
  std::uint64_t seed = 0;

  /// invalid_argument: temperature below 0 or not finite, top_p outside (0, 1].
  [[nodiscard]] Status validate() const;
};

class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options) : options_(options), state_(options.seed) {}
  [[nodiscard]] TokenId next(std::span<const float> logits);

 private:
  double uniform();  // [0, 1)
  SamplerOptions options_;
  std::uint64_t state_;
  std::vector<std::pair<float, TokenId>> order_;
};

/// log softmax(logits)[id], in double.
[[nodiscard]] double log_probability(std::span<const float> logits, TokenId id);

}  // namespace finchkv::model
