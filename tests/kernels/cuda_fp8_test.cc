// The class fp8 on a GPU rounds to the very e4m3 values that a CPU rounds to: seen through products that pick them out.
#include <gtest/gtest.h>

#include "kernels/e4m3.h"
#include "tests/kernels/cuda_data.h"

namespace finchkv::kernels {
namespace {

using namespace finchkv::testing;  // NOLINT: the file's helpers

constexpr std::int64_t kWidth = 512;

class CudaFp8 : public ::testing::Test {
 protected:
  void SetUp() override {
    gpu = cuda_device(NumericClass::kFp8);
    if (gpu == nullptr) GTEST_SKIP() << "there is no usable NVIDIA GPU here";
  }
  // kWidth rows of bf16 values: magnitudes of all kinds, halfway cases, rows that are all but zero.
  static std::vector<float> rows_of_all_kinds() {
    std::vector<float> x = random_floats(static_cast<std::size_t>(kWidth * kWidth), 21);
    for (std::int64_t r = 0; r < kWidth; ++r) {
      float* row = x.data() + r * kWidth;
      const float size = std::ldexp(1.0F, static_cast<int>(r % 40) - 20);
      for (std::int64_t i = 0; i < kWidth; ++i) {
        if (r % 4 == 1) row[i] = std::ldexp(row[i], static_cast<int>(-(i % 24)));      // many powers of two
        if (r % 4 == 2) row[i] = std::round(row[i] * 255) * (i % 2 == 0 ? 1 : 0.25F);  // many ties
        row[i] = r == 5 ? 0.0F : r == 6 ? 1e-36F : row[i] * size;
      }
      if (r % 4 == 2) row[0] = 448 * size;  // the scale is a power of two then, and ties stay ties
    }
    return rounded_to(ElementType::kBF16, std::move(x));
  }
  LinearSource source(const std::vector<float>& w) const {
    LinearSource s;
    s.in = s.out = kWidth;
    s.rows = [&w](std::int64_t first, std::int64_t count, float* dst) {
      std::copy_n(w.data() + first * kWidth, count * kWidth, dst);
    };
    return s;
  }
  Device* gpu = nullptr;
};

// A row with a single one picks a column of the weights, exactly: value times scale.
TEST_F(CudaFp8, WeightsAreTheCpusBitForBit) {
  const auto w = rows_of_all_kinds();
  const auto packed = gpu->pack_linear(source(w), LinearUse::kEveryRow);
  ASSERT_TRUE(packed.is_ok()) << packed.status().to_string();
  std::vector<float> want = w, scales;
  for (std::int64_t r = 0; r < kWidth; ++r) scales.push_back(round_row_to_e4m3(want.data() + r * kWidth, kWidth));
  const Tensor y = empty_tensor(*gpu, ElementType::kF32, {1, kWidth});
  for (std::int64_t column = 0; column < kWidth; ++column) {
    std::vector<float> one(kWidth, 0.0F);
    one[static_cast<std::size_t>(column)] = 1;
    gpu->linear(**packed, tensor_of(*gpu, ElementType::kBF16, {1, kWidth}, one), y, false);
    const auto got = fetch(*gpu, y);
    for (std::size_t r = 0; r < got.size(); ++r)
      ASSERT_EQ(got[r], want[r * kWidth + static_cast<std::size_t>(column)] * scales[r]) << r << ", " << column;
  }
}

// The identity as weights: its ones become 448 with a scale of 1/448. The nearest other e4m3 value is 6 % off.
TEST_F(CudaFp8, ActivationsAreTheCpusValueForValue) {
  std::vector<float> identity(static_cast<std::size_t>(kWidth * kWidth), 0.0F);
  for (std::size_t i = 0; i < kWidth; ++i) identity[i * kWidth + i] = 1;
  const auto packed = gpu->pack_linear(source(identity), LinearUse::kEveryRow);
  ASSERT_TRUE(packed.is_ok()) << packed.status().to_string();
  const auto x = rows_of_all_kinds();
  const Tensor y = empty_tensor(*gpu, ElementType::kF32, {kWidth, kWidth});
  gpu->linear(**packed, tensor_of(*gpu, ElementType::kBF16, {kWidth, kWidth}, x), y, false);
  const auto got = fetch(*gpu, y);
  for (std::size_t r = 0; r < kWidth; ++r) {
    std::vector<float> row(x.begin() + static_cast<std::ptrdiff_t>(r * kWidth),
                           x.begin() + static_cast<std::ptrdiff_t>((r + 1) * kWidth));
    const float scale = round_row_to_e4m3(row.data(), kWidth);
    for (std::size_t i = 0; i < kWidth; ++i) {
      const float want = row[i] * scale;
      ASSERT_NEAR(got[r * kWidth + i], want, std::abs(want) * 1e-5F) << r << ", " << i << ": " << x[r * kWidth + i];
    }
  }
}

// The same product as a CPU in the same class, which multiplies the same values.
TEST_F(CudaFp8, ProductsAreTheCpus) {
  const auto cpu = make_device(NumericClass::kFp8);
  const auto w =
      rounded_to(ElementType::kBF16, random_floats(static_cast<std::size_t>(kWidth * kWidth), 22, -0.1F, 0.1F));
  const auto here = gpu->pack_linear(source(w), LinearUse::kEveryRow);
  const auto there = cpu->pack_linear(source(w), LinearUse::kEveryRow);
  ASSERT_TRUE(here.is_ok() && there.is_ok());
  for (const std::int64_t n : {2, 32, 33, 100, 577}) {
    const auto x = rounded_to(ElementType::kBF16,
                              random_floats(static_cast<std::size_t>(n * kWidth), static_cast<std::uint32_t>(n)));
    const Tensor a = empty_tensor(*gpu, ElementType::kF32, {n, kWidth});
    const Tensor b = empty_tensor(*cpu, ElementType::kF32, {n, kWidth});
    gpu->linear(**here, tensor_of(*gpu, gpu->activation_type(n), {n, kWidth}, x), a, false);
    cpu->linear(**there, tensor_of(*cpu, cpu->activation_type(n), {n, kWidth}, x), b, false);
    // Hopper adds 8-bit products in steps with fewer bits than f32 has; a rounding that differed would show as 1e-2.
    EXPECT_LT(distance(fetch(*gpu, a), floats_of(b)), 2e-3F) << n << " rows";
  }
}

}  // namespace
}  // namespace finchkv::kernels
