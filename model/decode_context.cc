#include "model/decode_context.h"

#include <fmt/format.h>

namespace finchkv::model {

using kernels::ElementType;
using kernels::Tensor;

Result<DecodeContext> DecodeContext::create(const Transformer& model, std::int64_t capacity) {
  DecodeContext context(model);
  const ModelConfig& c = model.config();
  kernels::Device& dev = model.device();
  context.append_capacity_ = capacity;
  context.layers_.resize(static_cast<std::size_t>(c.n_layers));
  for (Layer& layer : context.layers_) {
    FINCHKV_ASSIGN_OR_RETURN(layer.keys, dev.empty(dev.kv_type(), {c.n_kv_heads, capacity, c.head_dim}));
    FINCHKV_ASSIGN_OR_RETURN(layer.values, dev.empty(dev.kv_type(), {c.n_kv_heads, capacity, c.head_dim}));
  }
  return context;
}

Result<DecodeContext> DecodeContext::from_set(const Transformer& model, const KvSet& set, std::int64_t append) {
  const ModelConfig& c = model.config();
  FINCHKV_RETURN_IF_ERROR(set.validate());
  if (set.shape.n_layers != c.n_layers || set.shape.n_kv_heads != c.n_kv_heads || set.shape.head_dim != c.head_dim) {
    return Status::invalid_argument(fmt::format(
        "the entry has {} layers, {} KV heads of {} dimensions; the model has {}, {} of {}: they do not belong "
        "together",
        set.shape.n_layers, set.shape.n_kv_heads, set.shape.head_dim, c.n_layers, c.n_kv_heads, c.head_dim));
  }
  if (set.key_form == KeyForm::kNone || set.rope != c.rope) {
    return Status::invalid_argument(
        "the entry's keys were made for another position encoding than the model's: they do not belong together");
  }
  if (set.key_form == KeyForm::kPreRope && set.next_position != set.max_kept()) {
    return Status::invalid_argument(
        fmt::format("the entry says that its prompt starts at {}, but its longest layer keeps {}", set.next_position,
                    set.max_kept()));
  }
  // Sets come from files too: a position is only believed inside the model's window.
  const auto window = static_cast<std::uint64_t>(c.context_length);
  if (append < 0 || set.next_position < set.max_kept() || set.next_position > window ||
      static_cast<std::uint64_t>(append) > window - set.next_position) {
    return Status::invalid_argument(
        fmt::format("the entry keeps {} and its prompt starts at {}; with {} more tokens that does not fit the model's "
                    "context window of {}",
                    set.max_kept(), set.next_position, append, c.context_length));
  }
  const auto base = static_cast<std::int64_t>(set.next_position);
  FINCHKV_ASSIGN_OR_RETURN(DecodeContext context, create(model, static_cast<std::int64_t>(set.max_kept()) + append));
  context.base_ = base;
  context.append_capacity_ = append;
  for (std::size_t l = 0; l < set.layers.size(); ++l) FINCHKV_RETURN_IF_ERROR(context.load_layer(set, l));
  FINCHKV_RETURN_IF_ERROR(model.device().synchronize());
  return context;
}

Status DecodeContext::load_layer(const KvSet& set, std::size_t index) {
  Layer& layer = layers_[index];
  const KvLayer& from = set.layers[index];
  kernels::Device& dev = model_->device();
  const std::int64_t heads = set.shape.n_kv_heads, d = set.shape.head_dim, n = from.n_kept;
  layer.kept = n;
  if (n == 0) return Status::ok();
  const ElementType type = set.dtype == DType::kBF16 ? ElementType::kBF16 : ElementType::kF32;
  FINCHKV_ASSIGN_OR_RETURN(const Tensor keys, dev.empty(type, {heads, n, d}));
  FINCHKV_ASSIGN_OR_RETURN(const Tensor values, dev.empty(type, {heads, n, d}));
  const auto upload = [&](std::span<const std::byte> bytes, const Tensor& to) {
    if (set.dtype != DType::kF16) return dev.upload(bytes.data(), to);
    std::vector<float> wide(static_cast<std::size_t>(to.elements()));
    convert_to_f32(DType::kF16, bytes.data(), wide.data(), wide.size());
    dev.upload(wide.data(), to);
  };
  upload(from.keys, keys);
  upload(from.values, values);
  dev.copy(values, layer.values.slice(1, 0, n));
  if (set.key_form == KeyForm::kPreRope) {
    dev.rotate(set.rope, keys.transpose(0, 1), base_ - n, layer.keys.slice(1, 0, n).transpose(0, 1));
  } else {
    dev.copy(keys, layer.keys.slice(1, 0, n));
  }
  return Status::ok();
}

Result<kernels::DecodeSlot> DecodeContext::slot(std::int64_t index) const {
  const Layer& layer = layers_[static_cast<std::size_t>(index)];
  if (layer.appended + 1 > append_capacity_) {
    return Status::resource_exhausted(
        fmt::format("the cache has room for {} tokens after the entry, and they are used up", append_capacity_));
  }
  return kernels::DecodeSlot{layer.keys, layer.values, layer.kept + layer.appended, base_ + layer.appended};
}

Status DecodeContext::attend(std::int64_t index, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out) {
  Layer& layer = layers_[static_cast<std::size_t>(index)];
  kernels::Device& dev = model_->device();
  const RopeRecord& rope = model_->config().rope;
  const std::int64_t n = q.dim(0);
  const std::int64_t used = layer.kept + layer.appended;
  const std::int64_t position = base_ + layer.appended;
  if (layer.appended + n > append_capacity_) {
    return Status::resource_exhausted(
        fmt::format("the cache has room for {} more tokens, not for {}", append_capacity_ - layer.appended, n));
  }
  if (n == 1) {
    const kernels::DecodeSlot here{layer.keys, layer.values, used, position};
    dev.decode_attention(rope, q, k, v, {&here, 1}, model_->attention_scale(), out);
    ++layer.appended;
    return Status::ok();
  }
  const ElementType type = dev.activation_type(n);
  if (rotated_q_.empty() || rotated_q_.dim(0) < n || rotated_q_.type() != type) {
    FINCHKV_ASSIGN_OR_RETURN(rotated_q_, dev.empty(type, {n, q.dim(1), q.dim(2)}));
  }
  const Tensor queries = rotated_q_.slice(0, 0, n);
  dev.rotate(rope, q, position, queries);
  dev.rotate(rope, k, position, layer.keys.slice(1, used, n).transpose(0, 1));
  dev.copy(v, layer.values.slice(1, used, n).transpose(0, 1));
  dev.attention(queries, layer.keys.slice(1, 0, used + n), layer.values.slice(1, 0, used + n),
                model_->attention_scale(), out, {});
  layer.appended += n;
  return Status::ok();
}

}  // namespace finchkv::model
