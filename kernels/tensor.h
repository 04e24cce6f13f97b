// Tensor: a typed, strided view of memory that belongs to one Device.
//
// Copying a Tensor copies the view and shares the memory; the memory goes when the last view does. Shapes and strides
// count elements, 64-bit. Views are made by slicing, never by pointer arithmetic outside kernels/. Not synchronised:
// whoever writes through one view while another reads has a bug.
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>

#include "base/dtype.h"

namespace finchkv::kernels {

/// kF16 is what stored sets and other engines may have: only load() and turn() of a Device compute with it.
enum class ElementType : std::uint8_t { kF32, kBF16, kI32, kF16 };

[[nodiscard]] constexpr std::size_t element_size(ElementType t) {
  return t == ElementType::kBF16 || t == ElementType::kF16 ? 2 : 4;
}
/// Of numbers that a set holds: f32, f16 or bf16.
[[nodiscard]] constexpr ElementType element_type(DType dtype) {
  if (dtype == DType::kF16) return ElementType::kF16;
  return dtype == DType::kBF16 ? ElementType::kBF16 : ElementType::kF32;
}
[[nodiscard]] constexpr DType dtype_of(ElementType type) {
  if (type == ElementType::kF16) return DType::kF16;
  return type == ElementType::kBF16 ? DType::kBF16 : DType::kF32;
}

class Tensor {
 public:
  static constexpr int kMaxRank = 4;

  Tensor() = default;
  /// A dense row-major tensor over `storage`, which holds at least its elements.
  Tensor(std::shared_ptr<void> storage, ElementType type, std::initializer_list<std::int64_t> shape);

  [[nodiscard]] bool empty() const { return data_ == nullptr; }
  [[nodiscard]] ElementType type() const { return type_; }
  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] std::int64_t dim(int i) const {
    assert(i < rank_);
    return shape_[static_cast<std::size_t>(i)];
  }
  [[nodiscard]] std::int64_t stride(int i) const {
    assert(i < rank_);
    return strides_[static_cast<std::size_t>(i)];
  }
  [[nodiscard]] std::int64_t elements() const;
  [[nodiscard]] bool is_dense() const;  ///< row-major without gaps

  /// Device address of the first element. Only the device that made the tensor may follow it.
  template <typename T = void>
  [[nodiscard]] T* data() const {
    return static_cast<T*>(data_);
  }

  /// Places [first, first + count) of dimension `axis`.
  [[nodiscard]] Tensor slice(int axis, std::int64_t first, std::int64_t count) const;
  /// The same elements under another shape; the last dimension may be split or dense ones joined.
  [[nodiscard]] Tensor reshape(std::initializer_list<std::int64_t> shape) const;
  /// Splits the last dimension [.., a * b] into [.., a, b]: rows may have gaps between them.
  [[nodiscard]] Tensor split_last(std::int64_t a, std::int64_t b) const;
  /// Dimensions i and j exchanged.
  [[nodiscard]] Tensor transpose(int i, int j) const;

 private:
  std::shared_ptr<void> storage_;
  void* data_ = nullptr;
  ElementType type_ = ElementType::kF32;
  int rank_ = 0;
  std::array<std::int64_t, kMaxRank> shape_{};
  std::array<std::int64_t, kMaxRank> strides_{};
};

}  // namespace finchkv::kernels
