// Policy: which KV entries of the candidates stay. Everything else of a reading (chunks, attention, budgets) is shared.
//
// A new policy is one file in policies/ and one line in policy.cc: it states what it needs and writes its
// score. It works on Device tensors only, so it runs wherever the model does. Policies are stateless and
// thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "kernels/device.h"

namespace finchkv::compressor {

/// One layer of one chunk, after attention. C candidates: the entries kept so far, then the chunk's tokens.
struct SelectionStep {
  explicit SelectionStep(kernels::Device& on) : device(on) {}

  kernels::Device& device;
  std::int64_t layer = 0;
  std::int64_t chunk_index = 0;
  std::int64_t kept = 0;        ///< candidates that were kept before this chunk
  std::int64_t candidates = 0;  ///< C
  std::int64_t keep = 0;        ///< k, how many of them to choose; k < C
  std::int64_t budget = 0;      ///< K of the whole document
  std::uint64_t seed = 0;
  std::int64_t n_kv_heads = 0;
  float scale = 1.0F;
  kernels::Tensor prompt_queries;  ///< activations [P, H, D], rotated; empty for policies that ignore the prompt
  kernels::Tensor keys;            ///< activations [KV, C + P, D], rotated
  kernels::Tensor lse;             ///< f32 [P, H]
  kernels::Tensor origins;         ///< i32 [R, C], document positions, ascending
};

class Policy {
 public:
  virtual ~Policy() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  /// Raised when the choice changes beyond rounding: part of the cache id.
  [[nodiscard]] virtual std::uint32_t revision() const { return 1; }
  [[nodiscard]] virtual bool uses_prompt() const { return true; }
  [[nodiscard]] virtual bool uses_seed() const { return false; }
  [[nodiscard]] virtual bool per_head() const { return false; }          ///< R = KV heads instead of 1
  [[nodiscard]] virtual bool keeps_everything() const { return false; }  ///< the budget is the document
  [[nodiscard]] virtual bool one_pass() const { return false; }          ///< must see the whole document at once
  /// What else can change the choice, as scaled integers: part of the cache id.
  [[nodiscard]] virtual std::map<std::string, std::int64_t> parameters() const { return {}; }
  /// How much each candidate is worth keeping: f32 [R, C], higher is better, finite. Called only when k < C. Scores of
  /// one row can be compared across calls for the same prompt, so a reader may choose among several passes' candidates
  /// together.
  virtual Result<kernels::Tensor> score(const SelectionStep& step) const = 0;

  /// The choice: the k highest scores of each row, ties to the lower index, as ascending indices i32 [R, k].
  Status choose(const SelectionStep& step, const kernels::Tensor& indices) const;
};

/// invalid_argument lists the names there are.
[[nodiscard]] Result<const Policy*> find_policy(std::string_view name);
[[nodiscard]] std::vector<const Policy*> all_policies();

/// score[g, j] of step 2 per KV head (Device::attention_mass): f32 [KV, C].
[[nodiscard]] Result<kernels::Tensor> attention_mass(const SelectionStep& step);

/// Scores made on the host as a tensor of the step's device: f32 [1, C].
[[nodiscard]] Result<kernels::Tensor> to_device(const SelectionStep& step, const std::vector<float>& scores);

}  // namespace finchkv::compressor
