// Weight products through the Device against a plain product in double: odd shapes, both numeric classes, all uses.
#include <gtest/gtest.h>

#include <cstring>

#include "tests/kernels/device_data.h"

namespace finchkv::kernels {
namespace {

using namespace finchkv::testing;  // NOLINT: the file's helpers

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

LinearSource source_of(const std::vector<float>& w, std::int64_t in, std::int64_t out, int grid_steps = 0) {
  LinearSource s;
  s.in = in;
  s.out = out;
  s.grid_steps = grid_steps;
  s.rows = [&w, in, out](std::int64_t first, std::int64_t count, float* dst) {
    ASSERT_GE(first, 0);
    ASSERT_LE(first + count, out);
    std::copy_n(w.data() + first * in, count * in, dst);
  };
  return s;
}

// Sixteenths from -8/16 to 7/16: a 4-bit grid that bf16 holds exactly.
std::vector<float> four_bit(std::size_t count, std::uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<float> w(count);
  for (float& x : w) x = static_cast<float>(static_cast<int>(engine() % 16) - 8) / 16;
  return w;
}

// x [n, in] W^T and the sum of the absolute products, which bounds what rounding can do.
struct Product {
  std::vector<double> value, size;
};
Product plain_product(const std::vector<float>& x, const std::vector<float>& w, std::int64_t n, std::int64_t in,
                      std::int64_t out) {
  Product p{std::vector<double>(at(n * out)), std::vector<double>(at(n * out))};
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t o = 0; o < out; ++o) {
      double sum = 0, size = 0;
      for (std::int64_t k = 0; k < in; ++k) {
        const double term = static_cast<double>(x[at(i * in + k)]) * static_cast<double>(w[at(o * in + k)]);
        sum += term;
        size += std::abs(term);
      }
      p.value[at(i * out + o)] = sum;
      p.size[at(i * out + o)] = size;
    }
  }
  return p;
}

// A width that is no multiple of 32 has no narrow copy: one f32 row may then be rounded to bf16 first, 2^-9 of each.
double rounded_input(NumericClass numeric, std::int64_t n, std::int64_t in) {
  return numeric == NumericClass::kFast && n == 1 && in % 32 != 0 ? 0x1p-8 : 0;
}

class LinearTest : public ::testing::TestWithParam<NumericClass> {
 protected:
  void SetUp() override {
    device = make_device(GetParam());
    ASSERT_NE(device, nullptr);
  }
  // Activations for n rows, as they come to the product.
  std::vector<float> activations(std::int64_t n, std::int64_t in, ElementType type) {
    return rounded_to(type, random_floats(at(n * in), static_cast<std::uint32_t>(n + in)));
  }
  std::unique_ptr<Device> device;
};

constexpr std::int64_t kRowCounts[] = {1, 2, 3, 31, 32, 33, 64, 65, 130};

// Four-bit weights are exact in every copy that a device keeps, so only the order of summation differs.
TEST_P(LinearTest, AgreesWithThePlainProduct) {
  for (const std::int64_t in : {32, 47, 100, 160}) {
    for (const std::int64_t out : {1, 16, 250, 257, 600}) {
      const auto w = four_bit(at(in * out), static_cast<std::uint32_t>(in * out));
      for (const int grid_steps : {0, 15}) {
        const auto packed = device->pack_linear(source_of(w, in, out, grid_steps), LinearUse::kEveryRow);
        ASSERT_TRUE(packed.is_ok()) << packed.status().to_string();
        EXPECT_EQ((*packed)->in(), in);
        EXPECT_EQ((*packed)->out(), out);
        EXPECT_GT((*packed)->bytes(), at(in * out) / 2);
        for (const std::int64_t n : kRowCounts) {
          if (grid_steps != 0 && n > 3) continue;  // the same tiles
          const ElementType type = device->activation_type(n);
          const auto x = activations(n, in, type);
          const Product want = plain_product(x, w, n, in, out);
          const Tensor y = tensor_of(*device, ElementType::kF32, {n, out}, std::vector<float>(at(n * out), 1e6F));
          device->linear(**packed, tensor_of(*device, type, {n, in}, x), y, false);
          ASSERT_TRUE(device->synchronize().is_ok());
          const auto got = floats_of(y);
          // Without the hint one row of the fast class goes through 8 bits of the range, half a step off at most.
          const bool eight_bits = n == 1 && grid_steps == 0 && GetParam() == NumericClass::kFast;
          double most = 0;
          for (const float v : x) most += eight_bits ? std::abs(static_cast<double>(v)) * 0.5 / 254 : 0.0;
          for (std::size_t i = 0; i < got.size(); ++i) {
            ASSERT_NEAR(static_cast<double>(got[i]), want.value[i],
                        want.size[i] * (2e-6 + rounded_input(GetParam(), n, in)) + 1e-6 + most)
                << in << " -> " << out << ", " << n << " rows, grid " << grid_steps << ", at " << i;
          }
        }
      }
    }
  }
}

TEST_P(LinearTest, AnyWeights) {
  const std::int64_t in = 192, out = 300;
  const auto w = random_floats(at(in * out), 3, -0.5F, 0.5F);
  const auto packed = device->pack_linear(source_of(w, in, out), LinearUse::kEveryRow);
  ASSERT_TRUE(packed.is_ok());
  for (const std::int64_t n : {1, 2, 70}) {
    const ElementType type = device->activation_type(n);
    const auto x = activations(n, in, type);
    const Product want = plain_product(x, w, n, in, out);
    const Tensor y = empty_tensor(*device, ElementType::kF32, {n, out});
    device->linear(**packed, tensor_of(*device, type, {n, in}, x), y, false);
    const auto got = floats_of(y);
    double worst = 0;
    for (std::size_t i = 0; i < got.size(); ++i)
      worst = std::max(worst, std::abs(static_cast<double>(got[i]) - want.value[i]) / want.size[i]);
    // 8 bits of a range of 1: half a step is 1/508; bf16: 2^-9 of each weight. Errors of many terms partly cancel.
    EXPECT_LT(worst, GetParam() == NumericClass::kReference ? 2e-6 : 3e-3) << n << " rows";
  }
}

TEST_P(LinearTest, Accumulates) {
  const std::int64_t in = 64, out = 257;
  const auto w = four_bit(at(in * out), 4);
  const auto packed = device->pack_linear(source_of(w, in, out, 15), LinearUse::kEveryRow);
  ASSERT_TRUE(packed.is_ok());
  for (const std::int64_t n : {1, 3, 33, 65}) {
    const ElementType type = device->activation_type(n);
    const auto x = activations(n, in, type);
    const Product want = plain_product(x, w, n, in, out);
    const auto before = random_floats(at(n * out), 5);
    const Tensor y = tensor_of(*device, ElementType::kF32, {n, out}, before);
    device->linear(**packed, tensor_of(*device, type, {n, in}, x), y, true);
    const auto got = floats_of(y);
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(static_cast<double>(got[i]), want.value[i] + static_cast<double>(before[i]), 1e-3) << n << " " << i;
  }
}

TEST_P(LinearTest, WritesOnlyItsColumnsOfAWiderMatrix) {
  const std::int64_t in = 64, out = 40, n = 35;
  const auto w = four_bit(at(in * out), 6);
  const auto packed = device->pack_linear(source_of(w, in, out, 15), LinearUse::kEveryRow);
  ASSERT_TRUE(packed.is_ok());
  for (const std::int64_t rows : {std::int64_t{1}, n}) {
    const ElementType type = device->activation_type(rows);
    const auto x = activations(rows, in, type);
    const Product want = plain_product(x, w, rows, in, out);
    const Tensor all = tensor_of(*device, ElementType::kF32, {rows, 60}, std::vector<float>(at(rows * 60), 77.0F));
    device->linear(**packed, tensor_of(*device, type, {rows, in}, x), all.slice(1, 10, out), false);
    const auto got = floats_of(all);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t c = 0; c < 60; ++c) {
        const double expected = c < 10 || c >= 50 ? 77.0 : want.value[at(i * out + c - 10)];
        ASSERT_NEAR(static_cast<double>(got[at(i * 60 + c)]), expected, 1e-3);
      }
    }
  }
}

// A row of a pass of many may be taken alone (the last row's logits): it comes in the type of many.
TEST_P(LinearTest, OneRowInTheTypeOfMany) {
  const ElementType type = device->kv_type();
  for (const std::int64_t in : {64, 47}) {
    const auto w = four_bit(at(in * 40), 7);
    for (const LinearUse use : {LinearUse::kEveryRow, LinearUse::kFewRows}) {
      const auto packed = device->pack_linear(source_of(w, in, 40, 15), use);
      ASSERT_TRUE(packed.is_ok());
      const auto x = activations(3, in, type);
      const Product want = plain_product(x, w, 3, in, 40);
      const Tensor all = tensor_of(*device, type, {3, in}, x);
      const Tensor y = empty_tensor(*device, ElementType::kF32, {1, 40});
      device->linear(**packed, all.slice(0, 2, 1), y, false);
      const auto got = floats_of(y);
      for (std::size_t i = 0; i < 40; ++i) EXPECT_NEAR(static_cast<double>(got[i]), want.value[80 + i], 1e-3);
    }
  }
}

TEST_P(LinearTest, OutputHeadOfFewRows) {
  for (const std::int64_t in : {96, 50}) {
    const std::int64_t out = 333;
    const auto w = four_bit(at(in * out), 8);
    for (const int grid_steps : {15, 31}) {
      const auto packed = device->pack_linear(source_of(w, in, out, grid_steps), LinearUse::kFewRows);
      ASSERT_TRUE(packed.is_ok());
      for (const std::int64_t n : {1, 2, 5}) {
        const ElementType type = device->activation_type(n);
        const auto x = activations(n, in, type);
        const Product want = plain_product(x, w, n, in, out);
        const Tensor y = empty_tensor(*device, ElementType::kF32, {n, out});
        device->linear(**packed, tensor_of(*device, type, {n, in}, x), y, false);
        const auto got = floats_of(y);
        for (std::size_t i = 0; i < got.size(); ++i)
          ASSERT_NEAR(static_cast<double>(got[i]), want.value[i],
                      want.size[i] * rounded_input(GetParam(), n, in) + 2e-3)
              << in << " " << n << " " << i;
      }
    }
  }
}

// A hint that is wrong must cost exactness of nothing: weights off the grid go through 8 bits.
TEST_P(LinearTest, AWrongGridHintIsOnlyAHint) {
  const std::int64_t in = 64, out = 20;
  const auto w = random_floats(at(in * out), 9);
  const auto packed = device->pack_linear(source_of(w, in, out, 15), LinearUse::kEveryRow);
  ASSERT_TRUE(packed.is_ok());
  const auto x = random_floats(at(in), 10);
  const Product want = plain_product(x, w, 1, in, out);
  const Tensor y = empty_tensor(*device, ElementType::kF32, {1, out});
  device->linear(**packed, tensor_of(*device, device->activation_type(1), {1, in}, x), y, false);
  const auto got = floats_of(y);
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(static_cast<double>(got[i]), want.value[i], 0.05);
}

TEST_P(LinearTest, GatedPairs) {
  for (const std::int64_t in : {64, 50}) {
    for (const std::int64_t ffn : {1, 16, 127, 128, 129, 160, 300}) {
      const auto gate = four_bit(at(in * ffn), 11);
      const auto up = four_bit(at(in * ffn), 12);
      for (const int grid_steps : {15, 31}) {
        const auto packed =
            device->pack_gated(source_of(gate, in, ffn, grid_steps), source_of(up, in, ffn, grid_steps));
        ASSERT_TRUE(packed.is_ok()) << packed.status().to_string();
        EXPECT_EQ((*packed)->in(), in);
        EXPECT_EQ((*packed)->out(), ffn);
        for (const std::int64_t n : {1, 2, 33, 65}) {
          const ElementType type = device->activation_type(n);
          const auto x = activations(n, in, type);
          const Product g = plain_product(x, gate, n, in, ffn);
          const Product u = plain_product(x, up, n, in, ffn);
          const Tensor y = empty_tensor(*device, type, {n, ffn});
          device->linear_swiglu(**packed, tensor_of(*device, type, {n, in}, x), y);
          const auto got = floats_of(y);
          const double relative = type == ElementType::kBF16 ? 0x1p-8 : 1e-4;
          for (std::size_t i = 0; i < got.size(); ++i) {
            const double want = g.value[i] / (1 + std::exp(-g.value[i])) * u.value[i];
            const double input = rounded_input(GetParam(), n, in) *
                                 (g.size[i] * std::abs(u.value[i]) + u.size[i] * std::abs(g.value[i]));
            ASSERT_NEAR(static_cast<double>(got[i]), want, std::abs(want) * relative + 2e-3 + 1.2 * input)
                << in << " -> " << ffn << ", " << n << " rows, grid " << grid_steps << ", at " << i;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Classes, LinearTest, ::testing::Values(NumericClass::kReference, NumericClass::kFast),
                         [](const auto& tested) { return class_name(tested.param); });

// Stepwise decoding equals one pass only if a row does not feel its neighbours.
TEST(LinearReference, ARowDoesNotDependOnTheOthers) {
  const auto device = make_device(NumericClass::kReference);
  const std::int64_t in = 96, out = 270, n = 130;
  const auto w = random_floats(at(in * out), 13);
  const auto packed = device->pack_linear(source_of(w, in, out), LinearUse::kEveryRow);
  ASSERT_TRUE(packed.is_ok());
  const auto x = random_floats(at(n * in), 14);
  const Tensor all_x = tensor_of(*device, ElementType::kF32, {n, in}, x);
  const Tensor all = empty_tensor(*device, ElementType::kF32, {n, out});
  device->linear(**packed, all_x, all, false);
  for (const std::int64_t row : {0, 31, 64, 129}) {
    const Tensor one = empty_tensor(*device, ElementType::kF32, {1, out});
    device->linear(**packed, all_x.slice(0, row, 1), one, false);
    EXPECT_EQ(floats_of(one), floats_of(all.slice(0, row, 1))) << row;
  }
}

}  // namespace
}  // namespace finchkv::kernels
