// finch-head: finch's score, summed and chosen per KV head (over its own query heads only).
//
// Heads look at different things: one choice for all of them keeps what most like and loses what a few need.
#include "compressor/policies/policies.h"

namespace finchkv::compressor {
namespace {

class FinchHead final : public Policy {
 public:
  std::string_view name() const override { return "finch-head"; }
  bool per_head() const override { return true; }
  Result<kernels::Tensor> score(const SelectionStep& step) const override { return attention_mass(step); }
};

}  // namespace

const Policy& finch_head_policy() {
  static const FinchHead policy;
  return policy;
}

}  // namespace finchkv::compressor
