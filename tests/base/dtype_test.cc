// The 16-bit floats against their definitions, over all of their values.
#include "base/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <ostream>
#include <vector>

namespace finchkv {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

/// What a word with this many exponent and mantissa bits means, by definition and in double.
double meaning(std::uint16_t word, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (word >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = word & ((1 << mantissa_bits) - 1);
  const double sign = (word & 0x8000U) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

struct Format {
  const char* name;
  int exponent_bits;
  int mantissa_bits;
  float (*to_f32)(std::uint16_t);
  std::uint16_t (*from_f32)(float);
};

void PrintTo(const Format& f, std::ostream* out) { *out << f.name; }

class HalfWords : public ::testing::TestWithParam<Format> {};

TEST_P(HalfWords, EveryWordMeansWhatItShouldAndComesBack) {
  const Format& f = GetParam();
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto word = static_cast<std::uint16_t>(i);
    const double want = meaning(word, f.exponent_bits, f.mantissa_bits);
    const float got = f.to_f32(word);
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(got)) << i;
      ASSERT_TRUE(std::isnan(meaning(f.from_f32(got), f.exponent_bits, f.mantissa_bits))) << i;
      continue;
    }
    ASSERT_EQ(static_cast<double>(got), want) << i;
    ASSERT_EQ(std::signbit(got), (word & 0x8000U) != 0) << i;
    ASSERT_EQ(f.from_f32(got), word) << i;
  }
}

TEST_P(HalfWords, RoundToNearestEven) {
  const Format& f = GetParam();
  const std::uint32_t infinity = ((1U << f.exponent_bits) - 1) << f.mantissa_bits;
  for (std::uint32_t i = 0; i + 1 < infinity; ++i) {
    const auto below = static_cast<std::uint16_t>(i);
    const auto above = static_cast<std::uint16_t>(i + 1);
    const double middle = (meaning(below, f.exponent_bits, f.mantissa_bits) +  //
                           meaning(above, f.exponent_bits, f.mantissa_bits)) /
                          2;
    const auto tie = static_cast<float>(middle);
    if (static_cast<double>(tie) != middle) continue;  // below f32's own subnormals
    ASSERT_EQ(f.from_f32(tie), i % 2 == 0 ? below : above) << i;
    ASSERT_EQ(f.from_f32(std::nextafter(tie, 0.0F)), below) << i;
    ASSERT_EQ(f.from_f32(std::nextafter(tie, kInf)), above) << i;
    ASSERT_EQ(f.from_f32(-tie), (i % 2 == 0 ? below : above) | 0x8000U) << i;
  }
}

TEST_P(HalfWords, TooLargeBecomesInfinity) {
  const Format& f = GetParam();
  const auto infinity = static_cast<std::uint16_t>(((1U << f.exponent_bits) - 1) << f.mantissa_bits);
  EXPECT_EQ(f.from_f32(kInf), infinity);
  EXPECT_EQ(f.from_f32(-kInf), infinity | 0x8000U);
  EXPECT_EQ(f.from_f32(std::numeric_limits<float>::max()), infinity);
}

INSTANTIATE_TEST_SUITE_P(Formats, HalfWords,
                         ::testing::Values(Format{"f16", 5, 10, f16_to_f32, f32_to_f16},
                                           Format{"bf16", 8, 7, bf16_to_f32, f32_to_bf16}),
                         [](const auto& each) { return std::string(each.param.name); });

TEST(F16, TheEdgeOfInfinity) {
  EXPECT_EQ(f32_to_f16(65504.0F), 0x7bffU);
  EXPECT_EQ(f32_to_f16(std::nextafter(65520.0F, 0.0F)), 0x7bffU);
  EXPECT_EQ(f32_to_f16(65520.0F), 0x7c00U);
}

TEST(DTypes, NamesGoBothWays) {
  for (const DType d : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8, DType::kQ4}) {
    EXPECT_EQ(dtype_from_name(dtype_name(d)), d);
  }
  EXPECT_EQ(dtype_from_name("F32"), std::nullopt);
  EXPECT_EQ(dtype_from_name(""), std::nullopt);
  EXPECT_EQ(static_cast<int>(DType::kQ4), 4) << "stored in files";
  EXPECT_EQ(element_bytes(DType::kF32), 4U);
  EXPECT_EQ(element_bytes(DType::kF16), 2U);
  EXPECT_EQ(element_bytes(DType::kBF16), 2U);
}

TEST(DTypes, ConvertsArrays) {
  const std::vector<float> values = {0.0F, -1.5F, 3.0F, 1e-3F, 65504.0F};
  for (const DType d : {DType::kF32, DType::kF16, DType::kBF16}) {
    std::vector<std::uint16_t> stored(values.size() * 2);
    std::vector<float> back(values.size());
    convert_from_f32(d, values.data(), stored.data(), values.size());
    convert_to_f32(d, stored.data(), back.data(), values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      EXPECT_NEAR(back[i], values[i], std::abs(values[i]) / 250) << dtype_name(d);
    }
    EXPECT_EQ(back[1], -1.5F);
  }
}

TEST(DTypes, ConvertsBetweenAnyTwo) {
  std::vector<float> values(2500);                                                              // more than one piece
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) / 8 - 100;  // exact in f16
  for (const DType from : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const DType to : {DType::kF32, DType::kF16, DType::kBF16}) {
      std::vector<std::byte> in(values.size() * element_bytes(from));
      std::vector<std::byte> got(values.size() * element_bytes(to));
      std::vector<std::byte> want(got.size());
      convert_from_f32(from, values.data(), in.data(), values.size());
      std::vector<float> wide(values.size());
      convert_to_f32(from, in.data(), wide.data(), wide.size());
      convert_from_f32(to, wide.data(), want.data(), wide.size());
      convert_elements(from, in.data(), to, got.data(), values.size());
      EXPECT_EQ(got, want) << dtype_name(from) << " to " << dtype_name(to);
    }
  }
}

TEST(DTypes, FiniteOrNot) {
  for (const DType d : {DType::kF32, DType::kF16, DType::kBF16}) {
    std::vector<float> values(200, 1.0F);
    std::vector<std::byte> bytes(values.size() * element_bytes(d));
    convert_from_f32(d, values.data(), bytes.data(), values.size());
    EXPECT_TRUE(all_elements_finite(d, bytes));
    values[199] = -kInf;
    convert_from_f32(d, values.data(), bytes.data(), values.size());
    EXPECT_FALSE(all_elements_finite(d, bytes));
    values[199] = std::numeric_limits<float>::quiet_NaN();
    convert_from_f32(d, values.data(), bytes.data(), values.size());
    EXPECT_FALSE(all_elements_finite(d, bytes));
    EXPECT_TRUE(all_elements_finite(d, {}));
  }
}

}  // namespace
}  // namespace finchkv
