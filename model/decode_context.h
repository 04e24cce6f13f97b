// DecodeContext: the cache an answer is decoded from: a KvSet at its place, then the prompt and the answer so far.
//
// Keys lie rotated, so a step rotates only its own. Capacity is fixed when it is made: base + appended tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/kvset.h"
#include "model/transformer.h"

namespace finchkv::model {

/// What is known of a set before its layers are there. Views: the caller's.
struct SetFrame {
  KvShape shape;
  DType dtype = DType::kF32;   ///< f32, f16 or bf16: what the numbers are
  DType layout = DType::kF32;  ///< how the layers come: as dtype, or as q8 or q4 that decode to it (base/quantised.h)
  KeyForm key_form = KeyForm::kPreRope;
  std::uint64_t next_position = 0;
  const RopeRecord& rope;
  std::span<const std::uint32_t> n_kept;  ///< [n_layers]
};

class DecodeContext final : public AttentionContext {
 public:
  /// An empty cache, for running a model without any set.
  static Result<DecodeContext> create(const Transformer& model, std::int64_t capacity);
  /// A cache that starts with `set` and has room for `append` more tokens. The set's layers may keep different counts:
  /// shorter ones sit at the end of the longest, and appended tokens start at set.next_position.
  /// invalid_argument when the set's shape or RoPE record is not this model's, or it all passes the context window.
  static Result<DecodeContext> from_set(const Transformer& model, const KvSet& set, std::int64_t append);
  /// The same from layers that are still on their way: `layer` is asked for each in order, and each goes to the device
  /// and is expanded there while the next ones come. A layer's memory is let go as soon as the device has it; without
  /// an owner it stays until this returns. What `layer` says when it fails is returned.
  static Result<DecodeContext> from_layers(const Transformer& model, const SetFrame& frame,
                                           const std::function<Result<OwnedLayer>(std::uint32_t layer)>& layer,
                                           std::int64_t append);

  // Copies would share the cache's memory and count apart.
  DecodeContext(DecodeContext&&) = default;
  DecodeContext& operator=(DecodeContext&&) = default;
  DecodeContext(const DecodeContext&) = delete;
  DecodeContext& operator=(const DecodeContext&) = delete;

  Status attend(std::int64_t layer, const kernels::Tensor& q, const kernels::Tensor& k, const kernels::Tensor& v,
                const kernels::Tensor& out) override;

  /// Where one more token goes in this layer (DecodeBatch). resource_exhausted when there is no room for it.
  Result<kernels::DecodeSlot> slot(std::int64_t layer) const;
  /// A token was appended to every layer at its slot().
  void advance() {
    for (Layer& layer : layers_) ++layer.appended;
  }

  [[nodiscard]] std::int64_t appended() const { return layers_.empty() ? 0 : layers_.back().appended; }
  [[nodiscard]] std::int64_t position() const { return base_ + appended(); }  ///< of the next token
  [[nodiscard]] std::int64_t room() const { return append_capacity_ - appended(); }

 private:
  struct Layer {
    kernels::Tensor keys;    // [KV, capacity, D] rotated
    kernels::Tensor values;  // [KV, capacity, D]
    std::int64_t kept = 0;
    std::int64_t appended = 0;
  };
  explicit DecodeContext(const Transformer& model) : model_(&model) {}
  Status load_layers(const SetFrame& frame, const std::function<Result<OwnedLayer>(std::uint32_t layer)>& layer);
  Status load_layer(const SetFrame& frame, const OwnedLayer& from, std::size_t layer);

  const Transformer* model_;
  std::int64_t base_ = 0;
  std::int64_t append_capacity_ = 0;
  std::vector<Layer> layers_;
  kernels::Tensor rotated_q_;  // [n, H, D] scratch
};

}  // namespace finchkv::model
