#include "compressor/read_scratch.h"

#include <algorithm>

namespace finchkv::compressor {

using kernels::ElementType;

namespace {

// Keys lie [KV, T, D], so T is part of their strides, which a device may plan for: documents of all lengths up to the
// next step share one.
constexpr std::int64_t kKeyStep = 256;

std::int64_t round_to_step(std::int64_t n) { return (n + kKeyStep - 1) / kKeyStep * kKeyStep; }

}  // namespace

ReadScratch::Needs ReadScratch::round_up(const Needs& needs) const {
  return {std::max(needs.rows, there_.rows), std::max(round_to_step(needs.keys), there_.keys),
          std::max(needs.indices, there_.indices)};
}

Status ReadScratch::reserve(const Needs& needs) {
  const Needs goal = round_up(needs);
  const model::ModelConfig& c = model_->config();
  kernels::Device& dev = model_->device();
  const ElementType a = dev.kv_type();
  const std::int64_t kv = c.n_kv_heads, d = c.head_dim;
  if (goal.keys > there_.keys) {
    there_.keys = 0;
    plain_keys = rotated_keys = values = {};
    FINCHKV_ASSIGN_OR_RETURN(plain_keys, dev.empty(a, {kv, goal.keys, d}));
    FINCHKV_ASSIGN_OR_RETURN(rotated_keys, dev.empty(a, {kv, goal.keys, d}));
    FINCHKV_ASSIGN_OR_RETURN(values, dev.empty(a, {kv, goal.keys, d}));
    there_.keys = goal.keys;
  }
  if (goal.rows > there_.rows) {
    there_.rows = 0;
    queries = lse = {};
    FINCHKV_ASSIGN_OR_RETURN(queries, dev.empty(a, {goal.rows, c.n_heads, d}));
    FINCHKV_ASSIGN_OR_RETURN(lse, dev.empty(ElementType::kF32, {goal.rows, c.n_heads}));
    there_.rows = goal.rows;
  }
  if (goal.indices > there_.indices) {
    there_.indices = 0;
    indices = {};
    FINCHKV_ASSIGN_OR_RETURN(indices, dev.empty(ElementType::kI32, {goal.indices}));
    there_.indices = goal.indices;
  }
  return Status::ok();
}

std::size_t ReadScratch::missing_bytes(const Needs& needs) const {
  const Needs goal = round_up(needs);
  const model::ModelConfig& c = model_->config();
  const std::size_t width = kernels::element_size(model_->device().kv_type());
  const auto keys = static_cast<std::size_t>((goal.keys - there_.keys) * c.n_kv_heads * c.head_dim);
  const auto rows = static_cast<std::size_t>((goal.rows - there_.rows) * c.n_heads);
  return 3 * keys * width + rows * (static_cast<std::size_t>(c.head_dim) * width + sizeof(float)) +
         static_cast<std::size_t>(goal.indices - there_.indices) * sizeof(std::int32_t);
}

}  // namespace finchkv::compressor
