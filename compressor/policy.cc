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

Status Policy::choose(const SelectionStep& step, const kernels::Tensor& indices) const {
  FINCHKV_ASSIGN_OR_RETURN(const kernels::Tensor scores, score(step));
  step.device.top_k(scores, indices);
  return Status::ok();
}

Result<kernels::Tensor> to_device(const SelectionStep& step, const std::vector<float>& scores) {
  const auto count = static_cast<std::int64_t>(scores.size());
  FINCHKV_ASSIGN_OR_RETURN(kernels::Tensor out, step.device.empty(kernels::ElementType::kF32, {1, count}));
  step.device.upload(scores.data(), out);
  return out;
}

Result<kernels::Tensor> attention_mass(const SelectionStep& step) {
  FINCHKV_ASSIGN_OR_RETURN(kernels::Tensor mass,
                           step.device.empty(kernels::ElementType::kF32, {step.n_kv_heads, step.candidates}));
  step.device.attention_mass(step.prompt_queries, step.keys, step.lse, step.scale, mass);
  return mass;
}

}  // namespace finchkv::compressor
