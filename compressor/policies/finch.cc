// finch: the paper's choice (Corallo & Papotti, "FINCH: Prompt-guided Key-Value Cache Compression", TACL 2024, section
// 3).
//
// A candidate's score is the attention that the prompt's rows pay it, summed over all heads and rows, each row weighted
// by the share of keys it sees; all heads of a layer keep the same tokens.
#include "compressor/policies/policies.h"

namespace finchkv::compressor {
namespace {

class Finch final : public Policy {
 public:
  std::string_view name() const override { return "finch"; }
  Result<kernels::Tensor> score(const SelectionStep& step) const override {
    FINCHKV_ASSIGN_OR_RETURN(const kernels::Tensor mass, attention_mass(step));
    FINCHKV_ASSIGN_OR_RETURN(const kernels::Tensor pooled,
                             step.device.empty(kernels::ElementType::kF32, {1, step.candidates}));
    step.device.sum_rows(mass, pooled);
    return pooled;
  }
};

}  // namespace

const Policy& finch_policy() {
  static const Finch policy;
  return policy;
}

}  // namespace finchkv::compressor
