#include "base/key_turner.h"

#include <cmath>
#include <cstring>
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

std::vector<float> turned(const RopeRecord& rope, PairOrder order, bool rotate, std::uint64_t first,
                          const std::vector<float>& keys, std::uint32_t heads, std::uint32_t n) {
  const auto dims = static_cast<std::uint32_t>(keys.size() / (heads * n));
  const auto turner = KeyTurner::create(rope, dims, order, rotate, first, n);
  EXPECT_TRUE(turner.is_ok()) << turner.status().message();
  std::vector<float> out(keys.size());
  if (turner.is_ok()) {
    turner->turn(std::as_bytes(std::span(keys)), DType::kF32, heads, n, std::as_writable_bytes(std::span(out)),
                 DType::kF32);
  }
  return out;
}

TEST(KeyTurner, RotatesPairsByPositionTimesFrequency) {
  for (const bool interleaved : {false, true}) {
    const std::vector<float> keys = {1, 2, 3, 4, 9, 1, 2, 3, 4, 9};  // two entries of 5 dimensions, the last stays
    const auto out = turned(record(interleaved), PairOrder::kAsStored, true, 7, keys, 1, 2);
    for (std::size_t i = 0; i < 2; ++i) {
      const double position = 7.0 + static_cast<double>(i);
      const float* key = out.data() + i * 5;
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

TEST(KeyTurner, PositionZeroOnlyScales) {
  RopeRecord rope = record(false);
  rope.attention_factor = 1.5F;
  EXPECT_EQ(turned(rope, PairOrder::kAsStored, true, 0, {1, 2, 3, 4, 1, 2, 3, 4}, 2, 1),
            (std::vector<float>{1.5, 3, 4.5, 6, 1.5, 3, 4.5, 6}));
}

TEST(KeyTurner, EveryHeadStartsAtTheFirstPosition) {
  const auto out =
      turned(record(false), PairOrder::kAsStored, true, 3, {1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8}, 2, 2);
  EXPECT_EQ(std::vector<float>(out.begin(), out.begin() + 8), std::vector<float>(out.begin() + 8, out.end()));
}

TEST(KeyTurner, ReordersPairsWithAndWithoutRotation) {
  // Pairs of interleaved keys (0, 1), (2, 3) go to (0, 2), (1, 3), and back; dimension 4 stays.
  EXPECT_EQ(turned(record(true), PairOrder::kHalfSplit, false, 0, {1, 2, 3, 4, 9}, 1, 1),
            (std::vector<float>{1, 3, 2, 4, 9}));
  EXPECT_EQ(turned(record(false), PairOrder::kInterleaved, false, 0, {1, 3, 2, 4, 9}, 1, 1),
            (std::vector<float>{1, 2, 3, 4, 9}));
  // Reordering and rotating commute.
  const auto turned_there = turned(record(true), PairOrder::kHalfSplit, true, 5, {1, 2, 3, 4, 9}, 1, 1);
  EXPECT_EQ(turned_there, turned(record(false), PairOrder::kAsStored, true, 5, {1, 3, 2, 4, 9}, 1, 1));
}

TEST(KeyTurner, RoundsOnceAtTheEnd) {
  const std::vector<float> keys = {1.25F, -2.5F, 3.125F, 0.75F};
  const auto wide = turned(record(false), PairOrder::kAsStored, true, 11, keys, 1, 1);
  std::vector<std::uint16_t> narrow(4), expected(4);
  const auto turner = KeyTurner::create(record(false), 4, PairOrder::kAsStored, true, 11, 1);
  ASSERT_TRUE(turner.is_ok());
  turner->turn(std::as_bytes(std::span(keys)), DType::kF32, 1, 1, std::as_writable_bytes(std::span(narrow)),
               DType::kBF16);
  convert_from_f32(DType::kBF16, wide.data(), reinterpret_cast<std::byte*>(expected.data()), 4);
  EXPECT_EQ(narrow, expected);
}

// One row after the other, in the plainest way.
std::vector<float> turned_plainly(const RopeRecord& rope, bool to_interleaved, std::uint64_t first,
                                  const std::vector<float>& keys, std::uint32_t n, std::uint32_t dims) {
  std::vector<float> out(keys);
  const std::size_t half = rope.rotary_dims / 2;
  for (std::size_t row = 0; row < keys.size() / dims; ++row) {
    const auto position = static_cast<float>(first + row % n);
    for (std::size_t p = 0; p < half; ++p) {
      const double angle = position * rope.inv_freq[p];
      const float c = static_cast<float>(std::cos(angle)) * rope.attention_factor;
      const float s = static_cast<float>(std::sin(angle)) * rope.attention_factor;
      const float a = keys[row * dims + (rope.interleaved ? 2 * p : p)];
      const float b = keys[row * dims + (rope.interleaved ? 2 * p + 1 : p + half)];
      out[row * dims + (to_interleaved ? 2 * p : p)] = a * c - b * s;
      out[row * dims + (to_interleaved ? 2 * p + 1 : p + half)] = a * s + b * c;
    }
  }
  return out;
}

TEST(KeyTurner, ManyRowsHaveTheBytesOfOneAfterTheOther) {
  constexpr std::uint32_t kHeads = 3, kRows = 1501;  // several tasks, and a last one that is short
  ThreadPool pool(4);
  for (const std::uint32_t dims : {64U, 80U, 37U}) {
    std::vector<float> keys(std::size_t{kHeads} * kRows * dims);
    std::uint32_t state = dims;
    for (float& k : keys) {
      state = state * 1664525U + 1013904223U;
      k = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-28F;
    }
    for (const bool from : {false, true}) {
      for (const bool to : {false, true}) {
        RopeRecord rope;
        rope.rotary_dims = dims == 64 ? 64 : 32;
        rope.interleaved = from;
        rope.attention_factor = 1.25F;
        for (std::uint32_t i = 0; i < rope.rotary_dims / 2; ++i) rope.inv_freq.push_back(std::pow(0.7F, 1.0F * i));
        const PairOrder order = to ? PairOrder::kInterleaved : PairOrder::kHalfSplit;
        const auto expected = turned_plainly(rope, to, 1000, keys, kRows, dims);
        const auto turner = KeyTurner::create(rope, dims, order, true, 1000, kRows);
        ASSERT_TRUE(turner.is_ok());
        for (ThreadPool* const threads : {static_cast<ThreadPool*>(nullptr), &pool}) {
          std::vector<float> out(keys.size());
          turner->turn(std::as_bytes(std::span(keys)), DType::kF32, kHeads, kRows,
                       std::as_writable_bytes(std::span(out)), DType::kF32, threads);
          EXPECT_EQ(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)), 0) << dims << from << to;
          std::vector<std::uint16_t> narrow(keys.size()), narrow_expected(keys.size());
          turner->turn(std::as_bytes(std::span(keys)), DType::kF32, kHeads, kRows,
                       std::as_writable_bytes(std::span(narrow)), DType::kF16, threads);
          convert_from_f32(DType::kF16, expected.data(), narrow_expected.data(), expected.size());
          EXPECT_EQ(narrow, narrow_expected) << dims << from << to;
        }
      }
    }
  }
}

TEST(KeyTurner, RefusesWhatDoesNotFit) {
  const auto code = [](const RopeRecord& rope, std::uint32_t head_dim, std::uint64_t first) {
    return KeyTurner::create(rope, head_dim, PairOrder::kAsStored, true, first, 1).status().code();
  };
  EXPECT_EQ(code(record(false), 2, 0), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(record(false), 4, 1U << 25), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(record(false), 4, 1U << 20), StatusCode::kOk);
  RopeRecord rope = record(false);
  rope.inv_freq.pop_back();
  EXPECT_EQ(code(rope, 4, 0), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace finchkv
