// snapkv: one pass over [document ; prompt] with the prompt as the observation window, per KV head, scores averaged
// over 7 neighbours (Li et al., "SnapKV: LLM Knows What You are Looking for Before Generation", NeurIPS 2024, section
// 4).
//
// Differs from the paper in one thing: the score is the row-weighted attention mass that all our policies share.
#include "compressor/policies/policies.h"

namespace finchkv::compressor {
namespace {

constexpr std::int32_t kRadius = 3;  // 7 neighbours, itself included

class SnapKv final : public Policy {
 public:
  std::string_view name() const override { return "snapkv"; }
  bool per_head() const override { return true; }
  bool one_pass() const override { return true; }
  std::map<std::string, std::int64_t> parameters() const override { return {{"span_radius", kRadius}}; }
  Result<kernels::Tensor> score(const SelectionStep& step) const override {
    FINCHKV_ASSIGN_OR_RETURN(const kernels::Tensor mass, attention_mass(step));
    FINCHKV_ASSIGN_OR_RETURN(const kernels::Tensor pooled,
                             step.device.empty(kernels::ElementType::kF32, {step.n_kv_heads, step.candidates}));
    step.device.span_mean(mass, step.origins, kRadius, 0.0F, pooled);
    return pooled;
  }
};

}  // namespace

const Policy& snapkv_policy() {
  static const SnapKv policy;
  return policy;
}

}  // namespace finchkv::compressor
