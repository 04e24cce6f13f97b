// Tensor: views over shared memory, their shapes, strides and addresses.
#include "kernels/tensor.h"

#include <gtest/gtest.h>

namespace finchkv::kernels {
namespace {

Tensor numbered(ElementType type, std::initializer_list<std::int64_t> shape) {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  std::shared_ptr<void> memory(new std::int32_t[static_cast<std::size_t>(n)],
                               [](void* p) { delete[] static_cast<std::int32_t*>(p); });
  for (std::int64_t i = 0; i < n; ++i) static_cast<std::int32_t*>(memory.get())[i] = static_cast<std::int32_t>(i);
  return {memory, type, shape};
}

std::int32_t at(const Tensor& t, std::int64_t i, std::int64_t j, std::int64_t k) {
  return t.data<std::int32_t>()[i * t.stride(0) + j * t.stride(1) + k * t.stride(2)];
}

TEST(Tensor, DefaultIsEmpty) {
  EXPECT_TRUE(Tensor().empty());
  EXPECT_EQ(Tensor().rank(), 0);
}

TEST(Tensor, DenseIsRowMajor) {
  const Tensor t = numbered(ElementType::kI32, {2, 3, 4});
  EXPECT_FALSE(t.empty());
  EXPECT_EQ(t.rank(), 3);
  EXPECT_EQ(t.elements(), 24);
  EXPECT_EQ(t.stride(0), 12);
  EXPECT_EQ(t.stride(1), 4);
  EXPECT_EQ(t.stride(2), 1);
  EXPECT_TRUE(t.is_dense());
  EXPECT_EQ(at(t, 1, 2, 3), 23);
}

TEST(Tensor, ElementSizes) {
  EXPECT_EQ(element_size(ElementType::kF32), 4U);
  EXPECT_EQ(element_size(ElementType::kI32), 4U);
  EXPECT_EQ(element_size(ElementType::kBF16), 2U);
}

TEST(Tensor, SlicesMoveTheAddressByTheElementSize) {
  const Tensor t = numbered(ElementType::kI32, {2, 3, 4});
  const Tensor s = t.slice(1, 1, 2);
  EXPECT_EQ(s.dim(1), 2);
  EXPECT_FALSE(s.is_dense());
  EXPECT_EQ(at(s, 0, 0, 0), 4);
  EXPECT_EQ(at(s, 1, 1, 3), 23);
  EXPECT_TRUE(t.slice(0, 1, 1).is_dense());
  EXPECT_TRUE(t.slice(0, 0, 1).slice(1, 0, 1).slice(2, 1, 2).is_dense()) << "dimensions of one have no gaps";

  const Tensor narrow = numbered(ElementType::kBF16, {4, 6});
  EXPECT_EQ(narrow.slice(0, 2, 1).data<std::byte>() - narrow.data<std::byte>(), 2 * 6 * 2);
  EXPECT_EQ(narrow.slice(1, 3, 1).data<std::byte>() - narrow.data<std::byte>(), 3 * 2);
}

TEST(Tensor, EmptySliceHasNoElements) { EXPECT_EQ(numbered(ElementType::kF32, {2, 3}).slice(1, 3, 0).elements(), 0); }

TEST(Tensor, SliceOfSlice) {
  const Tensor t = numbered(ElementType::kI32, {4, 5, 6});
  const Tensor s = t.slice(0, 1, 3).slice(1, 2, 2).slice(0, 1, 1);
  EXPECT_EQ(at(s, 0, 1, 5), 2 * 30 + 3 * 6 + 5);
}

TEST(Tensor, ReshapeKeepsAddressAndOrder) {
  const Tensor t = numbered(ElementType::kI32, {4, 6}).slice(0, 1, 2).reshape({3, 2, 2});
  EXPECT_EQ(t.rank(), 3);
  EXPECT_TRUE(t.is_dense());
  EXPECT_EQ(at(t, 0, 0, 0), 6);
  EXPECT_EQ(at(t, 2, 1, 1), 17);
}

TEST(Tensor, SplitLastKeepsGapsBetweenRows) {
  const Tensor t = numbered(ElementType::kI32, {3, 10}).slice(1, 2, 6).split_last(3, 2);
  EXPECT_EQ(t.rank(), 3);
  EXPECT_EQ(t.stride(0), 10);
  EXPECT_EQ(t.stride(1), 2);
  EXPECT_EQ(t.stride(2), 1);
  EXPECT_EQ(at(t, 2, 1, 1), 20 + 2 + 3);
}

TEST(Tensor, TransposeSwapsShapeAndStrides) {
  const Tensor t = numbered(ElementType::kI32, {2, 3, 4});
  const Tensor u = t.transpose(0, 1);
  EXPECT_EQ(u.dim(0), 3);
  EXPECT_EQ(u.dim(1), 2);
  EXPECT_FALSE(u.is_dense());
  for (std::int64_t i = 0; i < 2; ++i) {
    for (std::int64_t j = 0; j < 3; ++j) EXPECT_EQ(at(u, j, i, 3), at(t, i, j, 3));
  }
  EXPECT_TRUE(u.transpose(1, 0).is_dense());
}

TEST(Tensor, ViewsKeepTheMemory) {
  std::weak_ptr<void> watched;
  Tensor view;
  {
    std::shared_ptr<void> memory(new float[8], [](void* p) { delete[] static_cast<float*>(p); });
    watched = memory;
    view = Tensor(memory, ElementType::kF32, {8}).slice(0, 4, 4).reshape({2, 2}).transpose(0, 1);
  }
  EXPECT_FALSE(watched.expired());
  view = {};
  EXPECT_TRUE(watched.expired());
}

}  // namespace
}  // namespace finchkv::kernels
