#include "base/memory_pool.h"

#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace finchkv {
namespace {

TEST(MemoryPool, HandsOutAPieceAgain) {
  MemoryPool pool(64 << 20);
  const std::byte* first = nullptr;
  {
    const auto piece = pool.take(5 << 20);
    ASSERT_NE(piece, nullptr);
    std::memset(piece.get(), 1, 5 << 20);
    first = piece.get();
    EXPECT_EQ(pool.kept_bytes(), 0U);
  }
  EXPECT_EQ(pool.kept_bytes(), 5U << 20);
  EXPECT_EQ(pool.take((5 << 20) - 100).get(), first);
}

TEST(MemoryPool, APieceMuchTooLargeStaysForOthers) {
  MemoryPool pool(64 << 20);
  const std::byte* const large = pool.take(32 << 20).get();
  EXPECT_NE(pool.take(4 << 20).get(), large);
  EXPECT_EQ(pool.take(30 << 20).get(), large);
}

TEST(MemoryPool, KeepsNoMoreThanItWasTold) {
  MemoryPool pool(8 << 20);
  {
    const auto one = pool.take(6 << 20);
    const auto two = pool.take(6 << 20);
  }
  EXPECT_EQ(pool.kept_bytes(), 6U << 20);
}

TEST(MemoryPool, IdlePiecesGoBack) {
  MemoryPool pool(64 << 20);
  (void)pool.take(4 << 20);
  pool.release_idle(std::chrono::hours(1));
  EXPECT_EQ(pool.kept_bytes(), 4U << 20);
  pool.release_idle(std::chrono::milliseconds(0));
  EXPECT_EQ(pool.kept_bytes(), 0U);
}

TEST(MemoryPool, PiecesOutliveThePool) {
  std::shared_ptr<std::byte> piece;
  {
    MemoryPool pool(8 << 20);
    piece = pool.take(1 << 20);
  }
  std::memset(piece.get(), 7, 1 << 20);
  EXPECT_EQ(piece.get()[(1 << 20) - 1], std::byte{7});
}

TEST(MemoryPool, PiecesAreAlignedAndThereIsAnEndToThem) {
  MemoryPool pool(1 << 20);
  for (const std::size_t bytes : {1UL, 63UL, 70000UL, 3UL << 20}) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pool.take(bytes).get()) % 64, 0U) << bytes;
  }
  EXPECT_EQ(pool.take(std::size_t{1} << 60), nullptr);
  EXPECT_EQ(pool.take(~std::size_t{0}), nullptr);
}

TEST(MemoryPool, ManyThreadsShareIt) {
  MemoryPool pool(32 << 20);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, t] {
      for (int i = 0; i < 200; ++i) {
        const std::size_t bytes = (64U << 10) * static_cast<unsigned>(1 + (i * 7 + t) % 20);
        const auto piece = pool.take(bytes);
        std::memset(piece.get(), t, bytes);
        ASSERT_EQ(piece.get()[bytes - 1], static_cast<std::byte>(t));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_LE(pool.kept_bytes(), 32U << 20);
}

}  // namespace
}  // namespace finchkv
