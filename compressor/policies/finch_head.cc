// finch-head: finch's score, summed and chosen per KV head (over its own query heads only).
//
// Heads look at different things; measured on SmolLM2 (docs/architecture.md's source table) it keeps more of the answer
// than one choice for all heads at every ratio.
#include "compressor/policies/policies.h"

namespace finchkv::compressor {
namespace {

class FinchHead final : public Policy {
 public:
  std::string_view name() const override { return "finch-head"; }
  bool per_head() const override { return true; }
  Status choose(const SelectionStep& step, const kernels::Tensor& indices) const override {
    FINCHKV_ASSIGN_OR_RETURN(const kernels::Tensor mass, attention_mass(step));
    step.device.top_k(mass, indices);
    return Status::ok();
  }
};

}  // namespace

const Policy& finch_head_policy() {
  static const FinchHead policy;
  return policy;
}

}  // namespace finchkv::compressor
