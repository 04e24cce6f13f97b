#include "base/quantised.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace finchkv {
namespace {

std::vector<float> numbers(std::size_t count, std::uint32_t seed, float scale = 1.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.3F, 1.0F);
  std::vector<float> out(count);
  for (float& x : out) x = normal(random) * scale;
  return out;
}

// f32 in and out, which most cases here use.
Status quantise_floats(DType layout, GroupAxis axis, const QuantisedShape& shape, const std::vector<float>& in,
                       std::span<std::byte> out) {
  return quantise(layout, axis, shape, DType::kF32, std::as_bytes(std::span(in)), out);
}

Status dequantise_floats(DType layout, GroupAxis axis, const QuantisedShape& shape, std::span<const std::byte> in,
                         std::vector<float>& out) {
  return dequantise(layout, axis, shape, in, DType::kF32, std::as_writable_bytes(std::span(out)));
}

F16 f16_at(std::span<const std::byte> bytes, std::size_t at) {
  F16 v = 0;
  std::memcpy(&v, bytes.data() + at, 2);
  return v;
}

TEST(Quantised, GoldenQ8Keys) {  // 2 tokens x 2 channels: scales of both channels, then tokens of channels
  const std::vector<float> in = {127.0F, -1.0F, -63.5F, 0.5F};
  const QuantisedShape shape{1, 2, 2};
  std::vector<std::byte> out(*quantised_bytes(DType::kQ8, GroupAxis::kTokens, shape));
  ASSERT_EQ(out.size(), 8U);
  ASSERT_TRUE(quantise_floats(DType::kQ8, GroupAxis::kTokens, shape, in, out).is_ok());
  EXPECT_EQ(f16_at(out, 0), f32_to_f16(1.0F));
  EXPECT_EQ(static_cast<int>(out[4]), 127);
  EXPECT_EQ(static_cast<std::int8_t>(out[6]), -64);  // -63.5 is a tie: to even
  EXPECT_NEAR(f16_to_f32(f16_at(out, 2)), 1.0F / 127, 1e-5);
  EXPECT_EQ(static_cast<std::int8_t>(out[5]), -127);
}

TEST(Quantised, GoldenQ4Values) {  // 3 channels: scale, minimum, then low nibble first
  const std::vector<float> in = {-1.0F, 14.0F, 2.0F};
  const QuantisedShape shape{1, 1, 3};
  std::vector<std::byte> out(*quantised_bytes(DType::kQ4, GroupAxis::kChannels, shape));
  ASSERT_EQ(out.size(), 6U);
  ASSERT_TRUE(quantise_floats(DType::kQ4, GroupAxis::kChannels, shape, in, out).is_ok());
  EXPECT_EQ(f16_at(out, 0), f32_to_f16(1.0F));
  EXPECT_EQ(f16_at(out, 2), f32_to_f16(-1.0F));
  EXPECT_EQ(static_cast<int>(out[4]), 0xf0);
  EXPECT_EQ(static_cast<int>(out[5]), 0x03);
}

TEST(Quantised, Q4KeysPairTokensOfOneChannel) {
  const std::vector<float> in = {0, 15, 1, 14, 2, 13, 15, 0};  // 4 tokens x 2 channels
  const QuantisedShape shape{1, 4, 2};
  std::vector<std::byte> out(*quantised_bytes(DType::kQ4, GroupAxis::kTokens, shape));
  ASSERT_EQ(out.size(), 2U * 4U + 4U);
  ASSERT_TRUE(quantise_floats(DType::kQ4, GroupAxis::kTokens, shape, in, out).is_ok());
  const std::vector<int> quants = {0x10, 0xef, 0xf2, 0x0d};
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(static_cast<int>(out[8 + i]), quants[i]) << i;
}

struct Case {
  DType layout;
  GroupAxis axis;
};

class QuantisedRoundTrip : public ::testing::TestWithParam<Case> {};

// The claim of the header: no element is off by more than half a stored step (and what f32 arithmetic itself loses).
TEST_P(QuantisedRoundTrip, WithinHalfAStep) {
  const auto [layout, axis] = GetParam();
  for (const std::uint64_t tokens : {1U, 2U, 63U, 64U, 65U, 130U}) {
    for (const std::uint64_t channels : {1U, 8U, 63U, 64U, 80U, 128U, 129U}) {
      for (const float magnitude : {1e-6F, 1.0F, 3000.0F}) {
        const QuantisedShape shape{2, tokens, channels};
        const auto in = numbers(2 * tokens * channels, static_cast<std::uint32_t>(tokens * 1000 + channels), magnitude);
        std::vector<std::byte> bytes(*quantised_bytes(layout, axis, shape));
        ASSERT_TRUE(quantise_floats(layout, axis, shape, in, bytes).is_ok());
        std::vector<float> out(in.size());
        ASSERT_TRUE(dequantise_floats(layout, axis, shape, bytes, out).is_ok());
        for (std::uint64_t h = 0; h < 2; ++h) {
          for (std::uint64_t t = 0; t < tokens; ++t) {
            for (std::uint64_t c = 0; c < channels; ++c) {
              // The group of this element, gathered here without the codec's own arithmetic.
              float least = 1e30F;
              float most = -1e30F;
              const bool by_token = axis == GroupAxis::kTokens;
              const std::uint64_t first = (by_token ? t : c) / 64 * 64;
              for (std::uint64_t i = first; i < std::min<std::uint64_t>(first + 64, by_token ? tokens : channels);
                   ++i) {
                const float x = by_token ? in[(h * tokens + i) * channels + c] : in[(h * tokens + t) * channels + i];
                least = std::min(least, x);
                most = std::max(most, x);
              }
              const float step =
                  layout == DType::kQ8 ? std::max(std::fabs(least), std::fabs(most)) / 127 : (most - least) / 15;
              // A scale is rounded to f16: up to 2^-10 larger, or 2^-24 where f16 is subnormal; so is q4's minimum.
              const float slack = layout == DType::kQ8 ? 0.0F : std::max(std::fabs(least) * 0x1p-10F, 0x1p-24F) / 15;
              const float bound = 0.5F * ((step + slack) * (1 + 0x1p-9F) + 0x1p-24F) + magnitude * 4e-7F;
              const std::uint64_t at = (h * tokens + t) * channels + c;
              ASSERT_LE(std::fabs(in[at] - out[at]), bound) << tokens << " " << channels << " " << magnitude;
            }
          }
        }
      }
    }
  }
}

TEST_P(QuantisedRoundTrip, ConstantsAndZerosAreExactWhereF16Is) {
  const auto [layout, axis] = GetParam();
  const QuantisedShape shape{1, 70, 70};
  for (const float x : {0.0F, -0.0F, 1.0F}) {
    std::vector<float> in(70 * 70, layout == DType::kQ8 ? x * 127 : x);
    std::vector<std::byte> bytes(*quantised_bytes(layout, axis, shape));
    ASSERT_TRUE(quantise_floats(layout, axis, shape, in, bytes).is_ok());
    std::vector<float> out(in.size());
    ASSERT_TRUE(dequantise_floats(layout, axis, shape, bytes, out).is_ok());
    EXPECT_EQ(in, out);
  }
}

TEST_P(QuantisedRoundTrip, RefusesWhatIsNotFiniteOrTooLarge) {
  const auto [layout, axis] = GetParam();
  const QuantisedShape shape{2, 3, 5};
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN(), 1e30F, -1e30F}) {
    auto in = numbers(30, 1);
    in[17] = bad;
    std::vector<std::byte> bytes(*quantised_bytes(layout, axis, shape));
    const Status status = quantise_floats(layout, axis, shape, in, bytes);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << bad;
    EXPECT_NE(status.message().find("KV head 1"), std::string::npos) << status.message();
  }
}

TEST_P(QuantisedRoundTrip, HostileScalesAreCorrupt) {
  const auto [layout, axis] = GetParam();
  const QuantisedShape shape{1, 3, 5};
  std::vector<std::byte> bytes(*quantised_bytes(layout, axis, shape), std::byte{0xff});
  std::vector<float> out(15);
  EXPECT_EQ(dequantise_floats(layout, axis, shape, bytes, out).code(), StatusCode::kCorrupt);
}

TEST_P(QuantisedRoundTrip, SizesDoNotOverflow) {
  const auto [layout, axis] = GetParam();
  const std::uint64_t huge = std::uint64_t{1} << 40;
  EXPECT_FALSE(quantised_bytes(layout, axis, {huge, huge, huge}).has_value());
  EXPECT_EQ(quantised_bytes(layout, axis, {4, 0, 64}), 0U);
}

INSTANTIATE_TEST_SUITE_P(Layouts, QuantisedRoundTrip,
                         ::testing::Values(Case{DType::kQ8, GroupAxis::kTokens}, Case{DType::kQ8, GroupAxis::kChannels},
                                           Case{DType::kQ4, GroupAxis::kTokens},
                                           Case{DType::kQ4, GroupAxis::kChannels}),
                         [](const auto& one) {
                           return std::string(dtype_name(one.param.layout)) +
                                  (one.param.axis == GroupAxis::kTokens ? "_keys" : "_values");
                         });

// The bound by the step that was stored: half of it, for every element, whatever the elements came as.
TEST_P(QuantisedRoundTrip, WithinHalfAStoredStep) {
  const auto [layout, axis] = GetParam();
  const bool by_token = axis == GroupAxis::kTokens;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const float magnitude : {1e-3F, 1.0F, 300.0F}) {
      const QuantisedShape shape{1, 64, 64};  // one tile of keys, one group a token of values
      const auto source = numbers(64 * 64, 11, magnitude);
      std::vector<std::byte> in(source.size() * element_bytes(dtype));
      convert_from_f32(dtype, source.data(), in.data(), source.size());
      std::vector<float> given(source.size());
      convert_to_f32(dtype, in.data(), given.data(), given.size());
      std::vector<std::byte> bytes(*quantised_bytes(layout, axis, shape));
      ASSERT_TRUE(quantise(layout, axis, shape, dtype, in, bytes).is_ok());
      std::vector<float> out(given.size());
      ASSERT_TRUE(dequantise_floats(layout, axis, shape, bytes, out).is_ok());
      const std::size_t token_bytes = bytes.size() / 64;
      double worst = 0;
      for (std::size_t t = 0; t < 64; ++t) {
        for (std::size_t c = 0; c < 64; ++c) {
          const double step = f16_to_f32(f16_at(bytes, by_token ? c * 2 : t * token_bytes));
          const double off = std::fabs(static_cast<double>(given[t * 64 + c]) - out[t * 64 + c]);
          // Quotient and sum are rounded to f32: 127 * 2^-24 of a step, and 2^-24 of the number.
          ASSERT_LE(off, step * (0.5 + 0x1p-16) + std::fabs(given[t * 64 + c]) * 0x1p-23) << t << " " << c;
          worst = std::max(worst, off / step);
        }
      }
      EXPECT_GT(worst, 0.4) << "the steps are not what the bytes were made with";
    }
  }
}

// Other dtypes than f32 in memory: what comes out is the f32 result, rounded once.
TEST_P(QuantisedRoundTrip, ReadsAndWritesNarrowElements) {
  const auto [layout, axis] = GetParam();
  const QuantisedShape shape{3, 70, 80};
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const auto source = numbers(3 * 70 * 80, 5);
    std::vector<std::byte> narrow(source.size() * 2);
    convert_from_f32(dtype, source.data(), narrow.data(), source.size());
    std::vector<float> wide(source.size());
    convert_to_f32(dtype, narrow.data(), wide.data(), wide.size());
    std::vector<std::byte> from_narrow(*quantised_bytes(layout, axis, shape));
    std::vector<std::byte> from_wide(from_narrow.size());
    ASSERT_TRUE(quantise(layout, axis, shape, dtype, narrow, from_narrow).is_ok());
    ASSERT_TRUE(quantise_floats(layout, axis, shape, wide, from_wide).is_ok());
    EXPECT_EQ(from_narrow, from_wide);
    ASSERT_TRUE(dequantise(layout, axis, shape, from_wide, dtype, narrow).is_ok());
    ASSERT_TRUE(dequantise_floats(layout, axis, shape, from_wide, wide).is_ok());
    std::vector<std::byte> rounded(narrow.size());
    convert_from_f32(dtype, wide.data(), rounded.data(), wide.size());
    EXPECT_EQ(narrow, rounded);
  }
}

TEST_P(QuantisedRoundTrip, NothingIsFine) {
  const auto [layout, axis] = GetParam();
  EXPECT_TRUE(quantise(layout, axis, {4, 0, 64}, DType::kBF16, {}, {}).is_ok());
  EXPECT_TRUE(dequantise(layout, axis, {4, 0, 64}, {}, DType::kBF16, {}).is_ok());
}

TEST(Quantised, Q4IsSmall) {  // with scales, against bf16
  const QuantisedShape shape{3, 64, 64};
  for (const GroupAxis axis : {GroupAxis::kTokens, GroupAxis::kChannels}) {
    EXPECT_LE(static_cast<double>(*quantised_bytes(DType::kQ4, axis, shape)), 0.29 * 2 * 3 * 64 * 64);
  }
}

// Every scale and minimum of every tile, each alone.
TEST(Quantised, CheckSaysWhatDecodingWouldSay) {
  for (const DType layout : {DType::kQ8, DType::kQ4}) {
    for (const GroupAxis axis : {GroupAxis::kTokens, GroupAxis::kChannels}) {
      for (const QuantisedShape& shape :
           {QuantisedShape{2, 70, 5}, QuantisedShape{2, 3, 130}, QuantisedShape{1, 64, 64}}) {
        const std::size_t count = shape.heads * shape.tokens * shape.channels;
        std::vector<std::byte> bytes(*quantised_bytes(layout, axis, shape));
        ASSERT_TRUE(quantise_floats(layout, axis, shape, numbers(count, 3), bytes).is_ok());
        EXPECT_TRUE(check_quantised(layout, axis, shape, bytes).is_ok());
        std::vector<float> out(count);
        int refused = 0;
        for (std::size_t at = 0; at + 1 < bytes.size(); ++at) {
          std::vector<std::byte> changed = bytes;
          changed[at] = std::byte{0x01};
          changed[at + 1] = std::byte{0x7e};  // not a number, where a word stands here
          const Status want = dequantise_floats(layout, axis, shape, changed, out);
          const Status got = check_quantised(layout, axis, shape, changed);
          EXPECT_EQ(got.code(), want.code()) << at;
          EXPECT_EQ(got.message(), want.message()) << at;
          refused += want.is_ok() ? 0 : 1;
        }
        EXPECT_GT(refused, 0);
      }
    }
  }
  EXPECT_TRUE(check_quantised(DType::kQ8, GroupAxis::kTokens, {2, 0, 4}, {}).is_ok());
}

}  // namespace
}  // namespace finchkv
