// RoPE tables against the formula: pair (a, b) at angle t becomes (a cos t - b sin t, b cos t + a sin t).
#include "kernels/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace finchkv::kernels {
namespace {

RopeRecord record(bool interleaved, float attention_factor = 1.0F, std::uint32_t dims = 16) {
  RopeRecord rope;
  rope.interleaved = interleaved;
  rope.rotary_dims = dims;
  rope.attention_factor = attention_factor;
  for (std::uint32_t i = 0; i < dims / 2; ++i)
    rope.inv_freq.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / dims)));
  return rope;
}

class RopeTableTest : public ::testing::TestWithParam<bool> {};

TEST_P(RopeTableTest, RotatesPairsByTheirAngle) {
  const bool interleaved = GetParam();
  for (const float factor : {1.0F, 1.2079F}) {
    const RopeRecord rope = record(interleaved, factor);
    RopeTables tables;
    const auto table = tables.get(rope, 5000);
    ASSERT_GE(table->positions, 5000);
    for (const std::int64_t p : {0, 1, 7, 300, 4999}) {
      const float* cos = table->cos.data() + p * 16;
      const float* sin = table->sin.data() + p * 16;
      for (std::size_t i = 0; i < 8; ++i) {
        const std::size_t a = interleaved ? 2 * i : i;
        const std::size_t b = interleaved ? 2 * i + 1 : i + 8;
        const auto angle = static_cast<double>(static_cast<float>(p) * rope.inv_freq[i]);
        const double xa = 0.75, xb = -1.5;  // any pair
        const double want_a = (xa * std::cos(angle) - xb * std::sin(angle)) * static_cast<double>(factor);
        const double want_b = (xb * std::cos(angle) + xa * std::sin(angle)) * static_cast<double>(factor);
        const double got_a = xa * static_cast<double>(cos[a]) + xb * static_cast<double>(sin[a]);
        const double got_b = xb * static_cast<double>(cos[b]) + xa * static_cast<double>(sin[b]);
        EXPECT_NEAR(got_a, want_a, 1e-6) << "position " << p << " pair " << i;
        EXPECT_NEAR(got_b, want_b, 1e-6) << "position " << p << " pair " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(PairOrders, RopeTableTest, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "interleaved" : "halves"; });

TEST(RopeTables, PositionZeroTurnsNothing) {
  RopeTables tables;
  const auto table = tables.get(record(true), 1);
  for (std::size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(table->cos[i], 1.0F);
    EXPECT_EQ(table->sin[i], 0.0F);
  }
}

TEST(RopeTables, GrowingKeepsWhatWasThere) {
  RopeTables tables;
  const RopeRecord rope = record(false);
  const auto small = tables.get(rope, 10);
  const auto large = tables.get(rope, small->positions + 1);
  ASSERT_GT(large->positions, small->positions);
  ASSERT_EQ(large->cos.size(), static_cast<std::size_t>(large->positions) * 16);
  EXPECT_TRUE(std::equal(small->cos.begin(), small->cos.end(), large->cos.begin()));
  EXPECT_TRUE(std::equal(small->sin.begin(), small->sin.end(), large->sin.begin()));
  EXPECT_EQ(tables.get(rope, 5), large) << "a table that is long enough is used again";
}

TEST(RopeTables, EveryRecordHasItsOwn) {
  RopeTables tables;
  const auto halves = tables.get(record(false), 8);
  const auto pairs = tables.get(record(true), 8);
  const auto scaled = tables.get(record(false, 2.0F), 8);
  const auto narrow = tables.get(record(false, 1.0F, 8), 8);
  EXPECT_NE(halves->sin, pairs->sin);
  EXPECT_EQ(scaled->cos[17], 2.0F * halves->cos[17]);
  EXPECT_EQ(narrow->cos.size(), static_cast<std::size_t>(narrow->positions) * 8);
  EXPECT_EQ(tables.get(record(false), 8), halves);
}

}  // namespace
}  // namespace finchkv::kernels
