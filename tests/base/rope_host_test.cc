#include "base/rope_host.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

namespace finchkv {
namespace {

RopeRecord record(bool interleaved) {
  RopeRecord rope;
  rope.rotary_dims = 4;
  rope.interleaved = interleaved;
  rope.inv_freq = {1.0F, 0.1F};
  return rope;
}

TEST(RopeHost, RotatesPairsByPositionTimesFrequency) {
  for (const bool interleaved : {false, true}) {
    std::vector<float> keys = {1, 2, 3, 4, 9, 1, 2, 3, 4, 9};  // two entries of 5 dimensions, the last not rotated
    ASSERT_TRUE(rotate_keys(record(interleaved), 1, 2, 5, 7, keys).is_ok());
    for (std::size_t i = 0; i < 2; ++i) {
      const double position = 7.0 + static_cast<double>(i);
      const float* key = keys.data() + i * 5;
      for (std::size_t k = 0; k < 2; ++k) {
        const double angle = position * (k == 0 ? 1.0 : 0.1);
        const std::size_t a = interleaved ? 2 * k : k;
        const std::size_t b = interleaved ? 2 * k + 1 : k + 2;
        const double x = static_cast<double>(a) + 1;
        const double y = static_cast<double>(b) + 1;
        EXPECT_NEAR(key[a], x * std::cos(angle) - y * std::sin(angle), 2e-6);
        EXPECT_NEAR(key[b], x * std::sin(angle) + y * std::cos(angle), 2e-6);
      }
      EXPECT_EQ(key[4], 9.0F);
    }
  }
}

TEST(RopeHost, PositionZeroOnlyScales) {
  RopeRecord rope = record(false);
  rope.attention_factor = 1.5F;
  std::vector<float> keys = {1, 2, 3, 4, 1, 2, 3, 4};
  ASSERT_TRUE(rotate_keys(rope, 2, 1, 4, 0, keys).is_ok());
  EXPECT_EQ(keys, (std::vector<float>{1.5, 3, 4.5, 6, 1.5, 3, 4.5, 6}));
}

TEST(RopeHost, RefusesWhatDoesNotFit) {
  std::vector<float> keys(8);
  EXPECT_EQ(rotate_keys(record(false), 2, 1, 2, 0, keys).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(rotate_keys(record(false), 3, 1, 4, 0, keys).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(rotate_keys(record(false), 2, 1, 4, 1U << 25, keys).code(), StatusCode::kInvalidArgument);
  RopeRecord rope = record(false);
  rope.inv_freq.pop_back();
  EXPECT_EQ(rotate_keys(rope, 2, 1, 4, 0, keys).code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace finchkv
