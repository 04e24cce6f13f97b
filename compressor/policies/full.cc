// full: keeps everything; the budget is the document. The yardstick for all others.
#include "compressor/policies/policies.h"

namespace finchkv::compressor {
namespace {

class Full final : public Policy {
 public:
  std::string_view name() const override { return "full"; }
  bool uses_prompt() const override { return false; }
  bool keeps_everything() const override { return true; }
  Result<kernels::Tensor> score(const SelectionStep& step) const override {
    return Status::internal("the policy full was asked to drop " + std::to_string(step.candidates - step.keep) +
                            " entries");
  }
};

}  // namespace

const Policy& full_policy() {
  static const Full policy;
  return policy;
}

}  // namespace finchkv::compressor
