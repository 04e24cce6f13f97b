// Device::turn(), load() as decoded, and lend() on the CPU.
#include "tests/kernels/turn_cases.h"

namespace finchkv::kernels {
namespace {

using namespace finchkv::testing;  // NOLINT: the file's helpers

class Turn : public ::testing::TestWithParam<NumericClass> {
 protected:
  void SetUp() override { ASSERT_NE(device, nullptr); }
  std::unique_ptr<Device> device = make_device(GetParam());
};

TEST_P(Turn, AsTheHostTurns) { expect_turns(*device); }

TEST_P(Turn, LoadedAsDecoded) { expect_loads_as_decoded(*device); }

TEST_P(Turn, WhatIsLentOutlivesTheDevice) {
  const std::vector<float> numbers = random_floats(64, 3);
  Tensor t = tensor_of(*device, ElementType::kF32, {1, 4, 16}, numbers);
  auto lent = device->lend(t, 0);
  ASSERT_TRUE(lent.is_ok());
  const auto* at = t.data<const float>();
  t = Tensor();
  device.reset();
  EXPECT_TRUE(std::equal(numbers.begin(), numbers.end(), at));
}

INSTANTIATE_TEST_SUITE_P(Cpu, Turn, ::testing::Values(NumericClass::kReference, NumericClass::kFast),
                         [](const auto& tested) { return class_name(tested.param); });

}  // namespace
}  // namespace finchkv::kernels
