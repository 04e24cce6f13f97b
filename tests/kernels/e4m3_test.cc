// e4m3 rounding against a table of all its values, and the class fp8 of a CPU against products of rounded values.
#include "kernels/e4m3.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/kernels/device_data.h"

namespace finchkv::kernels {
namespace {

using namespace finchkv::testing;  // NOLINT: the file's helpers

// The value of a byte below 0x7f, by the format's definition.
double value_of(int byte) {
  const int exponent = byte >> 3, fraction = byte & 7;
  return exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
}

// The nearest of all 127 values, of two as near the one whose byte is even.
double nearest(double size) {
  int best = 0;
  for (int byte = 1; byte < 0x7f; ++byte) {
    const double off = std::abs(value_of(byte) - size), least = std::abs(value_of(best) - size);
    if (off < least || (off == least && byte % 2 == 0)) best = byte;
  }
  return value_of(best);
}

TEST(E4m3, EveryValueStaysAndHalfwaysGoToEven) {
  for (int byte = 0; byte < 0x7f; ++byte) {
    const double value = value_of(byte);
    EXPECT_EQ(to_e4m3(static_cast<float>(value)), static_cast<float>(value));
    EXPECT_EQ(to_e4m3(static_cast<float>(-value)), static_cast<float>(-value));
    if (byte == 0x7e) break;
    const auto halfway = static_cast<float>((value + value_of(byte + 1)) / 2);
    const auto even = static_cast<float>(value_of(byte % 2 == 0 ? byte : byte + 1));
    EXPECT_EQ(to_e4m3(halfway), even);
    EXPECT_EQ(to_e4m3(-halfway), -even);
    EXPECT_EQ(to_e4m3(std::nextafter(halfway, 0.0F)), static_cast<float>(value));
    EXPECT_EQ(to_e4m3(std::nextafter(halfway, 1e9F)), static_cast<float>(value_of(byte + 1)));
  }
}

TEST(E4m3, TakesTheNearestValueOfAll) {
  for (std::uint32_t high = 0; high < 0x7f80; ++high) {  // every finite bf16, and some that are no bf16
    for (const std::uint32_t low : {0U, 0x1234U, 0x8000U, 0xffffU}) {
      const float x = std::bit_cast<float>(high << 16 | low);
      if (x > 1e6F || x < 1e-9F) continue;
      ASSERT_EQ(to_e4m3(x), static_cast<float>(nearest(static_cast<double>(x)))) << x;
      ASSERT_EQ(to_e4m3(-x), -static_cast<float>(nearest(static_cast<double>(x)))) << x;
    }
  }
}

TEST(E4m3, TheEndsOfTheRange) {
  EXPECT_EQ(to_e4m3(448.0F), 448.0F);
  EXPECT_EQ(to_e4m3(1e30F), 448.0F);
  EXPECT_EQ(to_e4m3(-std::numeric_limits<float>::infinity()), -448.0F);
  EXPECT_EQ(to_e4m3(std::numeric_limits<float>::denorm_min()), 0.0F);
  EXPECT_TRUE(std::isnan(to_e4m3(std::numeric_limits<float>::quiet_NaN())));
}

TEST(E4m3, ARowsLargestIs448AndTinyRowsAreZeros) {
  std::vector<float> row = {0.5F, -2.0F, 0.0F, 1.0F};
  EXPECT_EQ(round_row_to_e4m3(row.data(), 4), 2.0F / 448);
  EXPECT_EQ(row, (std::vector<float>{112, -448, 0, 224}));
  for (const float tiny : {0.0F, 1e-40F, kNoE4m3Row}) {
    std::vector<float> none(16, -tiny);
    EXPECT_EQ(round_row_to_e4m3(none.data(), 16), 1.0F);
    for (const float x : none) EXPECT_EQ(x, 0.0F);
  }
  std::vector<float> small(16, kNoE4m3Row * 1.01F);
  EXPECT_TRUE(std::isnormal(round_row_to_e4m3(small.data(), 16)));
  EXPECT_EQ(small[3], 448.0F);
}

struct Rounded {
  std::vector<float> values, scales;
};
Rounded rounded_rows(std::vector<float> x, std::size_t width) {
  Rounded out{std::move(x), {}};
  for (std::size_t at = 0; at < out.values.size(); at += width)
    out.scales.push_back(round_row_to_e4m3(out.values.data() + at, static_cast<std::int64_t>(width)));
  return out;
}

class CpuFp8 : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    device = make_device(NumericClass::kFp8, 2, GetParam());
    ASSERT_NE(device, nullptr);
  }
  static LinearSource source(const std::vector<float>& w, std::int64_t in) {
    LinearSource s;
    s.in = in;
    s.out = static_cast<std::int64_t>(w.size()) / in;
    s.rows = [&w, in](std::int64_t first, std::int64_t count, float* dst) {
      std::copy_n(w.data() + first * in, count * in, dst);
    };
    return s;
  }
  std::vector<float> activations(std::int64_t n, std::int64_t in, std::uint32_t seed) const {
    return rounded_to(device->activation_type(n), random_floats(static_cast<std::size_t>(n * in), seed, -3.0F, 3.0F));
  }
  // x W^T of what both become in 8 bits, in double. Few rows are not rounded to 8 bits, but to the tiles' type.
  std::vector<double> expected(const std::vector<float>& x, const std::vector<float>& w, std::int64_t in,
                               bool few) const {
    const auto width = static_cast<std::size_t>(in);
    const Rounded rw = rounded_rows(w, width);
    Rounded rx = few ? Rounded{rounded_to(device->kv_type(), x), {}} : rounded_rows(x, width);
    if (few) rx.scales.assign(x.size() / width, 1.0F);
    std::vector<double> y;
    for (std::size_t i = 0; i < rx.scales.size(); ++i) {
      for (std::size_t o = 0; o < rw.scales.size(); ++o) {
        double sum = 0;
        for (std::size_t k = 0; k < width; ++k)
          sum += static_cast<double>(rx.values[i * width + k]) * static_cast<double>(rw.values[o * width + k]);
        y.push_back(sum * static_cast<double>(rx.scales[i]) * static_cast<double>(rw.scales[o]));
      }
    }
    return y;
  }
  std::unique_ptr<Device> device;
};

TEST_P(CpuFp8, MultipliesRoundedValues) {
  EXPECT_EQ(device->numeric_class(), NumericClass::kFp8);
  EXPECT_NE(device->description().find("fp8"), std::string::npos);
  for (const std::int64_t in : {32, 176}) {
    for (const std::int64_t out : {16, 272, 512}) {
      const auto w = random_floats(static_cast<std::size_t>(in * out), 7, -0.4F, 0.4F);
      const auto packed = device->pack_linear(source(w, in), LinearUse::kEveryRow);
      ASSERT_TRUE(packed.is_ok()) << packed.status().to_string();
      for (const std::int64_t n : {1, 32, 33, 64, 130}) {
        const auto x = activations(n, in, static_cast<std::uint32_t>(n));
        const auto want = expected(x, w, in, n <= kUnroundedE4m3Rows);
        const Tensor xt = tensor_of(*device, device->activation_type(n), {n, in}, x);
        const Tensor y = empty_tensor(*device, ElementType::kF32, {n, out});
        device->linear(**packed, xt, y, false);
        const auto got = floats_of(y);
        for (std::size_t i = 0; i < got.size(); ++i)
          ASSERT_NEAR(static_cast<double>(got[i]), want[i], 2e-4) << in << " -> " << out << ", " << n << " rows, " << i;
        device->linear(**packed, xt, y, true);
        ASSERT_NEAR(static_cast<double>(floats_of(y).back()), 2 * want.back(), 4e-4);
      }
    }
  }
}

TEST_P(CpuFp8, GatedPairs) {
  const std::int64_t in = 64, ffn = 176;
  const auto gate = random_floats(static_cast<std::size_t>(in * ffn), 8, -0.4F, 0.4F);
  const auto up = random_floats(static_cast<std::size_t>(in * ffn), 9, -0.4F, 0.4F);
  const auto packed = device->pack_gated(source(gate, in), source(up, in));
  ASSERT_TRUE(packed.is_ok());
  for (const std::int64_t n : {1, 5, 70}) {
    const auto x = activations(n, in, static_cast<std::uint32_t>(n));
    const auto g = expected(x, gate, in, n <= kUnroundedE4m3Rows), u = expected(x, up, in, n <= kUnroundedE4m3Rows);
    const ElementType type = device->activation_type(n);
    const Tensor y = empty_tensor(*device, type, {n, ffn});
    device->linear_swiglu(**packed, tensor_of(*device, type, {n, in}, x), y);
    const auto got = floats_of(y);
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double want = g[i] / (1 + std::exp(-g[i])) * u[i];
      ASSERT_NEAR(static_cast<double>(got[i]), want, std::abs(want) * 0x1p-8 + 1e-3) << n << " rows, " << i;
    }
  }
}

// The output head decides between tokens, and odd widths have no product of 8 bits on a GPU: both stay as in `fast`.
TEST_P(CpuFp8, HeadsAndOddWidthsStayAsInFast) {
  const auto fast = make_device(NumericClass::kFast, 2, GetParam());
  struct Case {
    std::int64_t in, out;
    LinearUse use;
  };
  for (const auto& [in, out, use] :
       {Case{64, 48, LinearUse::kFewRows}, Case{50, 48, LinearUse::kEveryRow}, Case{64, 40, LinearUse::kEveryRow}}) {
    const auto w = random_floats(static_cast<std::size_t>(in * out), 10);
    const auto here = device->pack_linear(source(w, in), use), there = fast->pack_linear(source(w, in), use);
    ASSERT_TRUE(here.is_ok() && there.is_ok());
    for (const std::int64_t n : {1, 9}) {
      const auto x = activations(n, in, 11);
      const ElementType type = device->activation_type(n);
      const Tensor a = empty_tensor(*device, ElementType::kF32, {n, out});
      const Tensor b = empty_tensor(*fast, ElementType::kF32, {n, out});
      device->linear(**here, tensor_of(*device, type, {n, in}, x), a, false);
      fast->linear(**there, tensor_of(*fast, type, {n, in}, x), b, false);
      EXPECT_EQ(floats_of(a), floats_of(b)) << in << " -> " << out << ", " << n << " rows";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(In, CpuFp8, ::testing::Bool(), [](const auto& bf16) { return bf16.param ? "bf16" : "f32"; });

}  // namespace
}  // namespace finchkv::kernels
