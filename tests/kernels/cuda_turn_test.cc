// Device::turn(), load() as decoded, and lend() on a GPU. What a reader on another stream sees:
// tests/capi/device_test.c.
#include "tests/kernels/cuda_data.h"
#include "tests/kernels/turn_cases.h"

namespace finchkv::kernels {
namespace {

using namespace finchkv::testing;  // NOLINT: the file's helpers

class CudaTurn : public CudaTest {};

TEST_P(CudaTurn, AsTheHostTurns) { expect_turns(*gpu); }

TEST_P(CudaTurn, LoadedAsDecoded) { expect_loads_as_decoded(*gpu); }

TEST_P(CudaTurn, WhatIsLentOutlivesTheDevice) {
  auto other = make_cuda_device({.numeric_class = GetParam(), .ordinal = 0, .threads = 1});
  ASSERT_TRUE(other.is_ok()) << other.status().to_string();
  const std::vector<float> numbers = random_floats(64, 3);
  std::vector<std::shared_ptr<const void>> lent;
  for (const std::uint64_t stream : {0, 1, 2}) {
    const Tensor t = tensor_of(**other, ElementType::kF32, {1, 4, 16}, numbers);
    auto loan = (*other)->lend(t, stream);
    ASSERT_TRUE(loan.is_ok()) << loan.status().to_string();
    lent.push_back(*std::move(loan));
    EXPECT_EQ(fetch(**other, t), numbers);
  }
  other->reset();
  lent.clear();  // on a stream that is the loans' alone by now
}

INSTANTIATE_TEST_SUITE_P(Gpu, CudaTurn, ::testing::Values(NumericClass::kReference, NumericClass::kFast), numeric_name);

}  // namespace
}  // namespace finchkv::kernels
