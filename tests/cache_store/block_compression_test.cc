#include "cache_store/block_compression.h"

#include <atomic>
#include <cstdint>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace finchkv::cache_store {
namespace {

using Bytes = std::vector<std::byte>;

Bytes repetitive(std::size_t size, std::uint32_t seed) {
  std::mt19937 random(seed);
  Bytes out(size);
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>(random() % 4);
  return out;
}

Bytes noise(std::size_t size, std::uint32_t seed) {
  std::mt19937 random(seed);
  Bytes out(size);
  for (std::byte& b : out) b = static_cast<std::byte>(random());
  return out;
}

TEST(BlockCompression, RoundTrip) {
  for (const std::size_t size : {1000U, 65536U, 300001U, 5000000U}) {
    for (const int level : {1, 3, 9}) {
      const Bytes block = repetitive(size, 1);
      const auto stored = compress_block(block, level);
      ASSERT_TRUE(stored.has_value());
      EXPECT_LE(stored->size(), size - size / 16);
      Bytes out(size);
      ASSERT_TRUE(decompress_block(*stored, out).is_ok());
      EXPECT_EQ(out, block);
    }
  }
}

TEST(BlockCompression, WhatDoesNotShrinkStays) {
  EXPECT_FALSE(compress_block({}).has_value());
  for (const std::size_t size : {1U, 2U, 15U, 16U, 17U, 100000U}) {
    EXPECT_FALSE(compress_block(noise(size, 2)).has_value()) << size;
  }
  // One part in 20 is compressible: less than a sixteenth.
  Bytes block = noise(100000, 3);
  std::fill(block.begin(), block.begin() + 5000, std::byte{0});
  EXPECT_FALSE(compress_block(block).has_value());
  std::fill(block.begin(), block.begin() + 10000, std::byte{0});
  const auto stored = compress_block(block);
  ASSERT_TRUE(stored.has_value());
  EXPECT_LE(stored->size(), 100000U - 100000U / 16);
  // A block that failed leaves nothing behind in the context.
  EXPECT_FALSE(compress_block(noise(100000, 4)).has_value());
  EXPECT_EQ(compress_block(block), stored);
}

TEST(BlockCompression, AnythingElseIsCorrupt) {
  const Bytes block = repetitive(5000, 5);
  const auto stored = compress_block(block);
  ASSERT_TRUE(stored.has_value());
  const auto code = [](const Bytes& bytes, std::size_t size) {
    Bytes out(size);
    return decompress_block(bytes, out).code();
  };
  ASSERT_EQ(code(*stored, 5000), StatusCode::kOk);
  EXPECT_EQ(code(*stored, 4999), StatusCode::kCorrupt);
  EXPECT_EQ(code(*stored, 5001), StatusCode::kCorrupt);
  EXPECT_EQ(code(*stored, 0), StatusCode::kCorrupt);
  EXPECT_EQ(code({}, 5000), StatusCode::kCorrupt);
  EXPECT_EQ(code({}, 0), StatusCode::kCorrupt);
  EXPECT_EQ(code(block, 5000), StatusCode::kCorrupt);
  EXPECT_EQ(code(noise(3000, 6), 5000), StatusCode::kCorrupt);
  for (std::size_t cut = 0; cut < stored->size(); cut += 7) {
    EXPECT_EQ(code(Bytes(stored->begin(), stored->begin() + static_cast<std::ptrdiff_t>(cut)), 5000),
              StatusCode::kCorrupt);
  }
  Bytes longer = *stored;
  longer.push_back(std::byte{0});
  EXPECT_EQ(code(longer, 5000), StatusCode::kCorrupt);
  Bytes twice = *stored;
  twice.insert(twice.end(), stored->begin(), stored->end());
  EXPECT_EQ(code(twice, 10000), StatusCode::kCorrupt);  // zstd would take both frames
  Bytes skipped = {std::byte{0x50}, std::byte{0x2a}, std::byte{0x4d}, std::byte{0x18},
                   std::byte{0},    std::byte{0},    std::byte{0},    std::byte{0}};
  EXPECT_EQ(code(skipped, 0), StatusCode::kCorrupt);
  skipped.insert(skipped.end(), stored->begin(), stored->end());
  EXPECT_EQ(code(skipped, 5000), StatusCode::kCorrupt);
}

TEST(BlockCompression, FlippedBitsAreCorruptOrOtherBytesOfTheSameSize) {  // the digest finds the latter
  const Bytes block = repetitive(2000, 7);
  const auto stored = compress_block(block);
  ASSERT_TRUE(stored.has_value());
  int refused = 0;
  for (std::size_t bit = 0; bit < stored->size() * 8; ++bit) {
    Bytes flipped = *stored;
    flipped[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    Bytes out(2000);
    const Status status = decompress_block(flipped, out);
    if (status.is_ok()) continue;
    EXPECT_EQ(status.code(), StatusCode::kCorrupt);
    ++refused;
  }
  EXPECT_GT(refused, 0);
  Bytes out(2000);
  ASSERT_TRUE(decompress_block(*stored, out).is_ok());
  EXPECT_EQ(out, block) << "a context that met damage must still work";
}

TEST(BlockCompression, ThreadsDoNotShareContexts) {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&wrong, t] {
      for (std::uint32_t i = 0; i < 20; ++i) {
        const Bytes block = repetitive(20000 + 1000 * t + i, t * 100 + i);
        const auto stored = compress_block(block, 1 + static_cast<int>(i % 3));
        Bytes out(block.size());
        if (!stored || !decompress_block(*stored, out).is_ok() || out != block) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace finchkv::cache_store
