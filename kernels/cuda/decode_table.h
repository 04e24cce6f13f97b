// The caches of a decoding step's sequences as kernels look them up: on the GPU, at one address for the table's life.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/runtime.h"
#include "kernels/device.h"

namespace finchkv::kernels::cuda {

/// One sequence's cache in one layer. Strides in elements, from KV head to KV head.
struct CacheView {
  void* keys;
  void* values;
  std::int64_t key_stride, value_stride;
  std::int32_t used, position;
};

/// What is the same in all layers: cosines and sines f32 [positions, dims].
struct StepView {
  const float* cos;
  const float* sin;
};

class CudaDecodeTable final : public DecodeTable {
 public:
  static Result<std::unique_ptr<CudaDecodeTable>> create(Runtime& rt, const DecodeShape& shape, ElementType type);

  [[nodiscard]] const DecodeShape& shape() const override { return shape_; }
  /// slots [layers, rows].
  void write(Runtime& rt, const RopeTableView& rope, std::span<const DecodeSlot> slots);

  // Addresses on the GPU.
  [[nodiscard]] const StepView* step() const { return static_cast<const StepView*>(memory_.get()); }
  [[nodiscard]] const CacheView* caches(std::int64_t layer) const;  ///< [rows]
  /// What the blocks of one attention leave for the last of them: `counters` are zero between attentions.
  [[nodiscard]] unsigned* counters() const { return static_cast<unsigned*>(counters_.get()); }
  [[nodiscard]] void* partials() const { return partials_.get(); }
  /// Shares that the keys of a sequence are cut into, at most.
  [[nodiscard]] int shares() const { return shares_; }

 private:
  explicit CudaDecodeTable(const DecodeShape& shape) : shape_(shape) {}

  DecodeShape shape_;
  int shares_ = 1;
  std::shared_ptr<void> memory_;  // StepView, then CacheView [layers][rows]
  std::shared_ptr<void> counters_, partials_;
  std::vector<std::byte> host_;
};

}  // namespace finchkv::kernels::cuda
