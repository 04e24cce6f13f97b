// RoPE frequencies from a file: none, linear, llama3's divisors and yarn, against numbers worked out from the formulas.
#include "model/rope_scaling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "tests/model/tiny_gguf.h"

namespace finchkv::model {
namespace {

using testing::ParsedGguf;
using testing::TinyGguf;

Result<RopeRecord> rope_of(const TinyGguf& tiny, std::int64_t head_dim = 8) {
  const ParsedGguf parsed(tiny);
  if (!parsed.file) return parsed.status;
  return rope_from_gguf(*parsed.file, "llama", head_dim, true);
}

void expect_freqs(const RopeRecord& rope, const std::vector<double>& want) {
  ASSERT_EQ(rope.inv_freq.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i)
    EXPECT_NEAR(static_cast<double>(rope.inv_freq[i]), want[i], want[i] * 1e-6) << i;
}

void expect_refused(const TinyGguf& tiny, StatusCode code, const std::string& naming) {
  const auto rope = rope_of(tiny);
  ASSERT_FALSE(rope.is_ok()) << "accepted; should name " << naming;
  EXPECT_EQ(rope.status().code(), code) << rope.status().to_string();
  EXPECT_NE(rope.status().message().find(naming), std::string::npos) << rope.status().message();
}

TEST(RopeScaling, None) {
  const auto rope = rope_of(TinyGguf());
  ASSERT_TRUE(rope.is_ok()) << rope.status().to_string();
  EXPECT_EQ(rope->scaling, "none");
  EXPECT_EQ(rope->attention_factor, 1.0F);
  EXPECT_TRUE(rope->interleaved);
  expect_freqs(*rope, {1, 0.1, 0.01, 0.001});  // 10000^(-2i/8)
}

TEST(RopeScaling, FewerRotaryDimensionsThanTheHead) {
  TinyGguf tiny;
  tiny.keys["llama.rope.dimension_count"] = std::uint64_t{4};
  const auto rope = rope_of(tiny);
  EXPECT_EQ(rope->rotary_dims, 4U);
  expect_freqs(*rope, {1, 0.01});
}

TEST(RopeScaling, Linear) {
  TinyGguf tiny;
  tiny.keys["llama.rope.scaling.type"] = std::string("linear");
  tiny.keys["llama.rope.scaling.factor"] = 4.0;
  const auto rope = rope_of(tiny);
  EXPECT_EQ(rope->scaling, "linear");
  EXPECT_EQ(rope->factor, 4.0F);
  EXPECT_EQ(rope->attention_factor, 1.0F);
  expect_freqs(*rope, {0.25, 0.025, 0.0025, 0.00025});
}

TEST(RopeScaling, OlderFilesStateALinearFactorAlone) {
  TinyGguf tiny;
  tiny.keys["llama.rope.scale_linear"] = 2.0;
  const auto rope = rope_of(tiny);
  EXPECT_EQ(rope->scaling, "linear");
  expect_freqs(*rope, {0.5, 0.05, 0.005, 0.0005});
}

TEST(RopeScaling, Llama3DivisorsFromTheFile) {
  TinyGguf tiny;
  tiny.floats("rope_freqs.weight", {4}, {1, 1, 2.5F, 8});
  const auto rope = rope_of(tiny);
  ASSERT_TRUE(rope.is_ok()) << rope.status().to_string();
  EXPECT_EQ(rope->scaling, "llama3");
  expect_freqs(*rope, {1, 0.1, 0.004, 0.000125});
}

TEST(RopeScaling, DivisorsOfAnotherCountOrNotPositive) {
  TinyGguf tiny;
  tiny.floats("rope_freqs.weight", {3}, {1, 1, 1});
  expect_refused(tiny, StatusCode::kCorrupt, "rope_freqs.weight");
  for (const float bad : {0.0F, -1.0F, NAN}) {
    tiny.floats("rope_freqs.weight", {4}, {1, 1, bad, 1});
    expect_refused(tiny, StatusCode::kCorrupt, "rope_freqs.weight[2]");
  }
}

// d = 64, theta = 10000, L0 = 2048, s = 4. c(b) = 64 ln(2048 / (2 pi b)) / (2 ln 10000):
// c(32) = 64 * ln(10.18591) / 18.42068 = 8.06400 -> lo = 8; c(1) = 64 * ln(325.9493) / 18.42068 = 20.10520 -> hi = 21.
TEST(RopeScaling, YarnWithTheUsualBetas) {
  TinyGguf tiny;
  tiny.keys["llama.rope.scaling.type"] = std::string("yarn");
  tiny.keys["llama.rope.scaling.factor"] = 4.0;
  tiny.keys["llama.rope.scaling.original_context_length"] = std::uint64_t{2048};
  const auto rope = rope_of(tiny, 64);
  ASSERT_TRUE(rope.is_ok()) << rope.status().to_string();
  EXPECT_EQ(rope->scaling, "yarn");
  EXPECT_EQ(rope->original_context, 2048U);
  EXPECT_NEAR(rope->attention_factor, 1.1386294F, 1e-6F);  // 0.1 ln 4 + 1
  ASSERT_EQ(rope->inv_freq.size(), 32U);
  const auto plain = [](double i) { return std::pow(10000.0, -i / 32); };
  const auto at = [&](std::size_t i) { return static_cast<double>(rope->inv_freq[i]); };
  for (const std::size_t i : {0U, 4U, 8U}) EXPECT_NEAR(at(i), plain(i), plain(i) * 1e-6) << i;
  for (const std::size_t i : {21U, 25U, 31U}) EXPECT_NEAR(at(i), plain(i) / 4, plain(i) * 1e-6) << i;
  // ramp 1/13 and 5/13: f (1 - ramp) + f / 4 ramp = f (1 - 3/4 ramp)
  EXPECT_NEAR(at(9), plain(9) * (1 - 0.75 / 13), plain(9) * 1e-6);
  EXPECT_NEAR(at(13), plain(13) * (1 - 3.75 / 13), plain(13) * 1e-6);
}

// The same with betas 16 and 2: c(16) = 64 * ln(20.37183) / 18.42068 = 10.4722 -> 10; c(2) = 64 * ln(162.9747) /
// 18.42068 = 17.6970 -> 18.
TEST(RopeScaling, YarnWithBetasOfTheFile) {
  TinyGguf tiny;
  tiny.keys["llama.rope.scaling.type"] = std::string("yarn");
  tiny.keys["llama.rope.scaling.factor"] = 8.0;
  tiny.keys["llama.rope.scaling.original_context_length"] = std::uint64_t{2048};
  tiny.keys["llama.rope.scaling.yarn_beta_fast"] = 16.0;
  tiny.keys["llama.rope.scaling.yarn_beta_slow"] = 2.0;
  const auto rope = rope_of(tiny, 64);
  ASSERT_TRUE(rope.is_ok()) << rope.status().to_string();
  const auto plain = [](double i) { return std::pow(10000.0, -i / 32); };
  EXPECT_NEAR(static_cast<double>(rope->inv_freq[10]), plain(10), plain(10) * 1e-6);
  EXPECT_NEAR(static_cast<double>(rope->inv_freq[14]), plain(14) * (1 - 0.5 * 0.875), plain(14) * 1e-6);
  EXPECT_NEAR(static_cast<double>(rope->inv_freq[18]), plain(18) / 8, plain(18) * 1e-6);
  EXPECT_NEAR(rope->attention_factor, 1.2079442F, 1e-6F);  // 0.1 ln 8 + 1
}

TEST(RopeScaling, YarnThatIsNotWhole) {
  TinyGguf tiny;
  tiny.keys["llama.rope.scaling.type"] = std::string("yarn");
  tiny.keys["llama.rope.scaling.factor"] = 4.0;
  expect_refused(tiny, StatusCode::kCorrupt, "original_context_length");
  tiny.keys["llama.rope.scaling.original_context_length"] = std::uint64_t{2048};
  ASSERT_TRUE(rope_of(tiny).is_ok());
  tiny.keys["llama.rope.scaling.yarn_beta_fast"] = -1.0;
  expect_refused(tiny, StatusCode::kCorrupt, "betas");
  tiny.keys["llama.rope.scaling.yarn_beta_fast"] = 32.0;
  tiny.keys["llama.rope.scaling.yarn_ext_factor"] = 0.5;
  expect_refused(tiny, StatusCode::kUnsupported, "yarn");
}

TEST(RopeScaling, ScalingsThatDependOnTheLengthAreRefusedByName) {
  for (const char* type : {"dynamic", "longrope", "su"}) {
    TinyGguf tiny;
    tiny.keys["llama.rope.scaling.type"] = std::string(type);
    expect_refused(tiny, StatusCode::kUnsupported, type);
  }
}

TEST(RopeScaling, NumbersThatCannotBe) {
  for (const std::uint64_t dims : {std::uint64_t{0}, std::uint64_t{3}, std::uint64_t{10}, std::uint64_t{1} << 20}) {
    TinyGguf tiny;
    tiny.keys["llama.rope.dimension_count"] = dims;
    expect_refused(tiny, StatusCode::kCorrupt, "dimension_count");
  }
  for (const double theta : {0.0, 1.0, -10000.0, 1e300, std::numeric_limits<double>::quiet_NaN()}) {
    TinyGguf tiny;
    tiny.keys["llama.rope.freq_base"] = theta;
    expect_refused(tiny, StatusCode::kCorrupt, "freq_base");
  }
  for (const double factor : {0.0, -2.0, std::numeric_limits<double>::infinity()}) {
    TinyGguf tiny;
    tiny.keys["llama.rope.scaling.type"] = std::string("linear");
    tiny.keys["llama.rope.scaling.factor"] = factor;
    expect_refused(tiny, StatusCode::kCorrupt, "factor");
  }
}

// 64-bit numbers of a file must not be cut to 32 bits, and doubles not to floats that overflow, before they are judged.
TEST(RopeScaling, NumbersThatDoNotFitTheirFieldAreRefused) {
  TinyGguf dims;
  dims.keys["llama.rope.dimension_count"] = (std::uint64_t{1} << 32) + 8;
  expect_refused(dims, StatusCode::kCorrupt, "dimension_count");
  TinyGguf context;
  context.keys["llama.rope.scaling.type"] = std::string("yarn");
  context.keys["llama.rope.scaling.factor"] = 4.0;
  context.keys["llama.rope.scaling.original_context_length"] = (std::uint64_t{1} << 32) + 2048;
  expect_refused(context, StatusCode::kCorrupt, "original_context_length");
  for (const double factor : {1e-300, 1e300}) {
    TinyGguf tiny;
    tiny.keys["llama.rope.scaling.type"] = std::string("linear");
    tiny.keys["llama.rope.scaling.factor"] = factor;
    expect_refused(tiny, StatusCode::kCorrupt, "factor");
  }
}

}  // namespace
}  // namespace finchkv::model
