// Device::load() on the CPU, in both numeric classes.
#include "tests/kernels/load_cases.h"

namespace finchkv::kernels {
namespace {

using finchkv::testing::class_name;
using finchkv::testing::make_device;

class Load : public ::testing::TestWithParam<NumericClass> {
 protected:
  void SetUp() override { ASSERT_NE(device, nullptr); }
  std::unique_ptr<Device> device = make_device(GetParam());
};

TEST_P(Load, AsDecodedOnTheHost) { finchkv::testing::expect_loads(*device); }

TEST_P(Load, FromTheDevicesOwnMemory) { finchkv::testing::expect_loads_from_own_memory(*device); }

INSTANTIATE_TEST_SUITE_P(Cpu, Load, ::testing::Values(NumericClass::kReference, NumericClass::kFast),
                         [](const auto& tested) { return class_name(tested.param); });

}  // namespace
}  // namespace finchkv::kernels
