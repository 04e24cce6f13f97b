// What tests of the CUDA device share: the device (or a reason to skip), reading its tensors, comparing with a CPU's.
#pragma once

#include <gtest/gtest.h>

#include <span>

#include "tests/kernels/device_data.h"

namespace finchkv::testing {

/// The GPU as a device of this class, made once; null where there is none.
inline Device* cuda_device(NumericClass numeric) {
  static std::unique_ptr<Device> devices[3];
  static bool tried[3] = {};
  const auto i = static_cast<std::size_t>(numeric);
  if (!tried[i]) {
    auto made = kernels::make_cuda_device({.numeric_class = numeric, .ordinal = 0, .threads = 2});
    if (made.is_ok()) devices[i] = *std::move(made);
    tried[i] = true;
  }
  return devices[i].get();
}

/// All elements of a dense tensor as f32.
inline std::vector<float> fetch(Device& device, const Tensor& t) {
  std::vector<float> out(static_cast<std::size_t>(t.elements()));
  if (t.type() == ElementType::kBF16) {
    std::vector<BF16> narrow(out.size());
    device.download(t, narrow.data());
    convert_to_f32(DType::kBF16, narrow.data(), out.data(), out.size());
  } else {
    device.download(t, out.data());
  }
  return out;
}

/// The largest |a - b| over the largest |b|; infinite for different lengths or a NaN.
inline float distance(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return INFINITY;
  float most = 0, scale = 1e-30F;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) || std::isnan(b[i])) return INFINITY;
    most = std::max(most, std::abs(a[i] - b[i]));
    scale = std::max(scale, std::abs(b[i]));
  }
  return most / scale;
}

/// Tests over both numeric classes on a GPU, with a CPU in f32 beside it.
class CudaTest : public ::testing::TestWithParam<NumericClass> {
 protected:
  void SetUp() override {
    gpu = cuda_device(GetParam());
    if (gpu == nullptr) GTEST_SKIP() << "there is no usable NVIDIA GPU here";
    cpu = make_device(NumericClass::kReference);
    ASSERT_NE(cpu, nullptr);
  }
  void TearDown() override {
    if (gpu == nullptr) return;
    const Status status = gpu->synchronize();
    EXPECT_TRUE(status.is_ok()) << status.to_string();
  }
  /// The type of keys and activations on the GPU.
  [[nodiscard]] ElementType type() const { return gpu->kv_type(); }
  /// How far results may be from f32 on a CPU: rounding of f32 sums, or of bf16 values.
  [[nodiscard]] float tolerance() const { return GetParam() == NumericClass::kReference ? 2e-5F : 2e-2F; }
  /// Random values, rounded to the GPU's type so that both devices start from the same numbers.
  [[nodiscard]] std::vector<float> values(std::size_t count, std::uint32_t seed, float low = -1, float high = 1) const {
    return rounded_to(type(), random_floats(count, seed, low, high));
  }

  Device* gpu = nullptr;
  std::unique_ptr<Device> cpu;
};

inline std::string numeric_name(const ::testing::TestParamInfo<NumericClass>& info) { return class_name(info.param); }

}  // namespace finchkv::testing
