// Plan: a request to read a document, with every default resolved and every limit checked, before any work is done.
//
// Whatever can change a byte of the result is in the plan, so a cache id is made from it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/status.h"
#include "compressor/policy.h"
#include "model/config.h"
#include "model/tokenizer.h"

namespace finchkv::compressor {

class Reader;

struct ReadRequest {
  std::span<const model::TokenId> document;
  std::span<const model::TokenId> prompt;
  std::string reader = "chunks";
  std::string policy = "finch-span";
  std::optional<std::int64_t> keep;   ///< K; at most one of keep and ratio
  std::optional<double> ratio;        ///< R: K = ceil(n / R); 16 when neither is given
  std::optional<std::int64_t> chunk;  ///< m; default min(512, what fits)
  std::uint64_t seed = 0;
  std::int64_t answer_tokens = 0;  ///< room to leave in the context window for the answer
};

struct Plan {
  std::span<const model::TokenId> document;
  std::span<const model::TokenId> prompt;  ///< empty for policies that ignore it while reading
  const Reader* reader = nullptr;
  const Policy* policy = nullptr;
  std::int64_t budget = 0;  ///< K = min(keep, n)
  std::int64_t chunk = 0;   ///< m
  std::uint64_t seed = 0;   ///< 0 for policies that draw nothing

  /// Entries kept after the first `seen` tokens of the document: ceil(K * seen / n).
  [[nodiscard]] std::int64_t keep_after(std::int64_t seen) const;
};

inline constexpr double kDefaultRatio = 16;
inline constexpr std::int64_t kDefaultChunk = 512;

/// invalid_argument with the numbers: an empty document, an empty prompt for a policy that needs one, keep below 1, a
/// ratio below 1, a chunk below 1, or more than the model's context window (or sliding window) holds.
[[nodiscard]] Result<Plan> resolve_plan(const ReadRequest& request, const model::ModelConfig& config);

}  // namespace finchkv::compressor
