#include "kernels/tensor.h"

#include <utility>

namespace finchkv::kernels {

Tensor::Tensor(std::shared_ptr<void> storage, ElementType type, std::initializer_list<std::int64_t> shape)
    : storage_(std::move(storage)), data_(storage_.get()), type_(type), rank_(static_cast<int>(shape.size())) {
  assert(rank_ <= kMaxRank);
  std::size_t i = 0;
  for (const std::int64_t d : shape) shape_[i++] = d;
  std::int64_t stride = 1;
  for (std::size_t k = shape.size(); k-- > 0;) {
    strides_[k] = stride;
    stride *= shape_[k];
  }
}

std::int64_t Tensor::elements() const {
  std::int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= dim(i);
  return n;
}

bool Tensor::is_dense() const {
  std::int64_t expected = 1;
  for (int i = rank_ - 1; i >= 0; --i) {
    if (dim(i) != 1 && stride(i) != expected) return false;
    expected *= dim(i);
  }
  return true;
}

Tensor Tensor::slice(int axis, std::int64_t first, std::int64_t count) const {
  assert(first >= 0 && count >= 0 && first + count <= dim(axis));
  Tensor out = *this;
  out.shape_[static_cast<std::size_t>(axis)] = count;
  out.data_ = static_cast<std::byte*>(data_) + static_cast<std::size_t>(first * stride(axis)) * element_size(type_);
  return out;
}

Tensor Tensor::reshape(std::initializer_list<std::int64_t> shape) const {
  assert(is_dense());
  Tensor out(storage_, type_, shape);
  assert(out.elements() == elements());
  out.data_ = data_;
  return out;
}

Tensor Tensor::split_last(std::int64_t a, std::int64_t b) const {
  assert(rank_ < kMaxRank && dim(rank_ - 1) == a * b && stride(rank_ - 1) == 1);
  Tensor out = *this;
  const auto last = static_cast<std::size_t>(rank_ - 1);
  out.shape_[last] = a;
  out.strides_[last] = b;
  out.shape_[last + 1] = b;
  out.strides_[last + 1] = 1;
  ++out.rank_;
  return out;
}

Tensor Tensor::transpose(int i, int j) const {
  Tensor out = *this;
  std::swap(out.shape_[static_cast<std::size_t>(i)], out.shape_[static_cast<std::size_t>(j)]);
  std::swap(out.strides_[static_cast<std::size_t>(i)], out.strides_[static_cast<std::size_t>(j)]);
  return out;
}

}  // namespace finchkv::kernels
