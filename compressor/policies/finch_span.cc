// finch-span: finch-head, with each score averaged over the candidates whose document positions are at most 7 away,
// plus a 64th of the candidate's own score (which orders entries inside an even stretch). The default.
//
// An entry is worth little without its neighbours: a name's second token, the words around a number. Averaging keeps
// stretches of text instead of scattered tokens.
#include "compressor/policies/policies.h"

namespace finchkv::compressor {
namespace {

constexpr std::int32_t kRadius = 7;
constexpr std::int64_t kOwnShareDivisor = 64;

class FinchSpan final : public Policy {
 public:
  std::string_view name() const override { return "finch-span"; }
  bool per_head() const override { return true; }
  std::map<std::string, std::int64_t> parameters() const override {
    return {{"span_radius", kRadius}, {"own_share_divisor", kOwnShareDivisor}};
  }
  Result<kernels::Tensor> score(const SelectionStep& step) const override {
    FINCHKV_ASSIGN_OR_RETURN(const kernels::Tensor mass, attention_mass(step));
    FINCHKV_ASSIGN_OR_RETURN(const kernels::Tensor pooled,
                             step.device.empty(kernels::ElementType::kF32, {step.n_kv_heads, step.candidates}));
    step.device.span_mean(mass, step.origins, kRadius, 1.0F / static_cast<float>(kOwnShareDivisor), pooled);
    return pooled;
  }
};

}  // namespace

const Policy& finch_span_policy() {
  static const FinchSpan policy;
  return policy;
}

}  // namespace finchkv::compressor
