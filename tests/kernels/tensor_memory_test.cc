// The limit of what tensors may take together on a CPU device.
#include "kernels/cpu/tensor_memory.h"

#include <gtest/gtest.h>

#include "kernels/device.h"

namespace finchkv::kernels {
namespace {

TEST(TensorMemory, CountsWhatIsTakenUntilItIsGivenBack) {
  cpu::TensorMemory memory(1000);
  EXPECT_EQ(memory.free_bytes(), 1000U);
  auto first = memory.take(600);
  ASSERT_TRUE(first.is_ok());
  EXPECT_EQ(memory.free_bytes(), 400U);
  const auto refused = memory.take(401);
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(refused.status().message().find("600 of the 1000"), std::string::npos) << refused.status().message();
  EXPECT_TRUE(memory.take(400).is_ok());
  first->reset();
  EXPECT_EQ(memory.free_bytes(), 1000U);
}

TEST(TensorMemory, PiecesMayOutliveIt) {
  std::shared_ptr<void> piece;
  {
    cpu::TensorMemory memory(100);
    piece = *memory.take(100);
  }
  static_cast<char*>(piece.get())[99] = 1;
}

TEST(TensorMemory, WithoutALimitTheMachineSets) {
  const cpu::TensorMemory memory(0);
  EXPECT_GT(memory.free_bytes(), 0U);
}

TEST(TensorMemory, IsTheDevices) {
  const auto device = make_cpu_device({.numeric_class = NumericClass::kReference, .threads = 1, .memory_limit = 4096});
  ASSERT_TRUE(device.is_ok());
  {
    const auto tensor = (*device)->empty(ElementType::kF32, {16, 32});
    ASSERT_TRUE(tensor.is_ok());
    EXPECT_EQ((*device)->free_memory(), 2048U);
    const Tensor view = tensor->slice(0, 3, 2);  // shares the memory
    EXPECT_EQ((*device)->free_memory(), 2048U);
    EXPECT_EQ((*device)->empty(ElementType::kF32, {513}).status().code(), StatusCode::kResourceExhausted);
  }
  EXPECT_EQ((*device)->free_memory(), 4096U);
}

}  // namespace
}  // namespace finchkv::kernels
