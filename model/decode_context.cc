#include "model/decode_context.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/stored_bytes.h"

namespace finchkv::model {

using kernels::ElementType;
using kernels::Tensor;

namespace {

// Whether this model can go on behind such a set: the largest count of its layers.
Result<std::int64_t> check_frame(const Transformer& model, const SetFrame& set, std::int64_t append) {
  const ModelConfig& c = model.config();
  if (set.shape.n_layers != c.n_layers || set.shape.n_kv_heads != c.n_kv_heads || set.shape.head_dim != c.head_dim ||
      set.n_kept.size() != set.shape.n_layers) {
    return Status::invalid_argument(fmt::format(
        "the entry has {} layers, {} KV heads of {} dimensions; the model has {}, {} of {}: they do not belong "
        "together",
        set.shape.n_layers, set.shape.n_kv_heads, set.shape.head_dim, c.n_layers, c.n_kv_heads, c.head_dim));
  }
  if (set.key_form == KeyForm::kNone || set.rope != c.rope) {
    return Status::invalid_argument(
        "the entry's keys were made for another position encoding than the model's: they do not belong together");
  }
  const std::uint64_t longest = set.n_kept.empty() ? 0 : *std::max_element(set.n_kept.begin(), set.n_kept.end());
  if (set.key_form == KeyForm::kPreRope && set.next_position != longest) {
    return Status::invalid_argument(fmt::format(
        "the entry says that its prompt starts at {}, but its longest layer keeps {}", set.next_position, longest));
  }
  // Sets come from files too: a position is only believed inside the model's window.
  const auto window = static_cast<std::uint64_t>(c.context_length);
  if (append < 0 || set.next_position < longest || set.next_position > window ||
      static_cast<std::uint64_t>(append) > window - set.next_position) {
    return Status::invalid_argument(
        fmt::format("the entry keeps {} and its prompt starts at {}; with {} more tokens that does not fit the model's "
                    "context window of {}",
                    longest, set.next_position, append, c.context_length));
  }
  return static_cast<std::int64_t>(longest);
}

std::uint64_t tensor_bytes(const SetFrame& frame, GroupAxis axis, std::uint64_t n) {
  return stored_bytes(frame.layout, axis, {frame.shape.n_kv_heads, n, frame.shape.head_dim});
}

}  // namespace

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
  FINCHKV_RETURN_IF_ERROR(set.validate());
  std::vector<std::uint32_t> n_kept;
  for (const KvLayer& layer : set.layers) n_kept.push_back(layer.n_kept);
  const SetFrame frame{set.shape, set.dtype, set.dtype, set.key_form, set.next_position, set.rope, n_kept};
  return from_layers(
      model, frame,
      [&set](std::uint32_t l) -> Result<OwnedLayer> {
        return OwnedLayer{set.layers[l], nullptr};
      },
      append);
}

Result<DecodeContext> DecodeContext::from_layers(const Transformer& model, const SetFrame& frame,
                                                 const std::function<Result<OwnedLayer>(std::uint32_t layer)>& layer,
                                                 std::int64_t append) {
  FINCHKV_ASSIGN_OR_RETURN(const std::int64_t longest, check_frame(model, frame, append));
  FINCHKV_ASSIGN_OR_RETURN(DecodeContext context, create(model, longest + append));
  context.base_ = static_cast<std::int64_t>(frame.next_position);
  context.append_capacity_ = append;
  const Status loaded = context.load_layers(frame, layer);
  const Status arrived = model.device().synchronize();  // whatever was wrong: nothing reads the layers' memory now
  FINCHKV_RETURN_IF_ERROR(loaded);
  FINCHKV_RETURN_IF_ERROR(arrived);
  return context;
}

Status DecodeContext::load_layers(const SetFrame& frame,
                                  const std::function<Result<OwnedLayer>(std::uint32_t layer)>& layer) {
  for (std::uint32_t l = 0; l < frame.shape.n_layers; ++l) {
    FINCHKV_ASSIGN_OR_RETURN(const OwnedLayer from, layer(l));
    FINCHKV_RETURN_IF_ERROR(load_layer(frame, from, l));
  }
  return Status::ok();
}

Status DecodeContext::load_layer(const SetFrame& frame, const OwnedLayer& from, std::size_t index) {
  Layer& layer = layers_[index];
  kernels::Device& dev = model_->device();
  const std::int64_t n = from.views.n_kept;
  const auto fits = [&](std::span<const std::byte> bytes, GroupAxis axis) {
    return bytes.size() == tensor_bytes(frame, axis, from.views.n_kept);
  };
  if (n != frame.n_kept[index] || !fits(from.views.keys, GroupAxis::kTokens) ||
      !fits(from.views.values, GroupAxis::kChannels)) {
    return Status::invalid_argument(
        fmt::format("layer {} of the entry does not have the {} entries that it should", index, frame.n_kept[index]));
  }
  layer.kept = n;
  if (n == 0) return Status::ok();
  const auto load = [&](std::span<const std::byte> bytes, GroupAxis axis, const RopeRecord* rope, const Tensor& to) {
    dev.load({frame.layout, axis, frame.dtype, bytes, from.memory}, rope, base_ - n, to.slice(1, 0, n));
  };
  load(from.views.keys, GroupAxis::kTokens, frame.key_form == KeyForm::kPreRope ? &frame.rope : nullptr, layer.keys);
  load(from.views.values, GroupAxis::kChannels, nullptr, layer.values);
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
