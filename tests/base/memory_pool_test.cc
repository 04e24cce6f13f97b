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

TEST(MemoryPool, WhatCameBackLastIsKeptAndHandedOutFirst) {
  MemoryPool pool(9 << 20);
  auto one = pool.take(4 << 20), two = pool.take(4 << 20), three = pool.take(4 << 20);
  const std::byte* const second = two.get();
  const std::byte* const third = three.get();
  one.reset();
  two.reset();
  three.reset();  // there is room for two: the first goes
  EXPECT_EQ(pool.kept_bytes(), 8U << 20);
  const auto again = pool.take(4 << 20);
  EXPECT_EQ(again.get(), third);
  EXPECT_EQ(pool.take(4 << 20).get(), second);
}

// What was mapped and not given back yet.
class CountedPages final : public PageSource {
 public:
  std::byte* map(std::size_t bytes) override {
    if (out_ + bytes > (16U << 20)) return nullptr;
    out_ += bytes;
    return pages_.map(bytes);
  }
  void unmap(std::byte* at, std::size_t bytes) override {
    out_ -= bytes;
    pages_.unmap(at, bytes);
  }
  std::size_t out_ = 0;

 private:
  AnonymousPages pages_;
};

TEST(MemoryPool, PagesComeFromTheirSourceAndGoBackThere) {
  const auto pages = std::make_shared<CountedPages>();
  std::shared_ptr<std::byte> outlives;
  {
    MemoryPool pool(6 << 20, pages);
    const auto large = pool.take(8 << 20);
    ASSERT_NE(large, nullptr);
    std::memset(large.get(), 1, 8 << 20);
    EXPECT_EQ(pages->out_, 8U << 20);
    EXPECT_EQ(pool.take(12 << 20), nullptr) << "the source has no more";
    outlives = pool.take(3 << 20);
    (void)pool.take(2 << 20);
    EXPECT_EQ(pages->out_, 13U << 20) << "2 MiB are kept";
  }
  EXPECT_EQ(pages->out_, 5U << 20) << "the large one was too large to keep; what is out keeps the shelf";
  outlives.reset();
  EXPECT_EQ(pages->out_, 0U);
}

TEST(MemoryPool, LargePiecesBeginWhereHugePagesDo) {
  MemoryPool pool(64 << 20);
  for (const std::size_t bytes : {2UL << 20, 5UL << 20, 17UL << 20}) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pool.take(bytes).get()) % (2U << 20), 0U) << bytes;
  }
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
  threads.reserve(4);
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
