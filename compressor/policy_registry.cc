#include <fmt/format.h>

#include "compressor/policies/policies.h"
#include "compressor/policy.h"

namespace finchkv::compressor {

std::vector<const Policy*> all_policies() {
  return {&finch_span_policy(), &finch_head_policy(), &finch_policy(), &full_policy(),
          &snapkv_policy(),     &streaming_policy(),  &random_policy()};
}

Result<const Policy*> find_policy(std::string_view name) {
  std::string names;
  for (const Policy* p : all_policies()) {
    if (p->name() == name) return p;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", p->name());
  }
  return Status::invalid_argument(fmt::format("there is no policy '{}'; the policies are {}", name, names));
}

Result<kernels::Tensor> attention_mass(const SelectionStep& step) {
  FINCHKV_ASSIGN_OR_RETURN(kernels::Tensor mass,
                           step.device.empty(kernels::ElementType::kF32, {step.n_kv_heads, step.candidates}));
  step.device.attention_mass(step.prompt_queries, step.keys, step.lse, step.scale, mass);
  return mass;
}

}  // namespace finchkv::compressor
