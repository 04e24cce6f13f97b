// What PinnedMemory does where pages cannot be locked. Needs no GPU: the driver's part is played here.
#include "kernels/cuda/pinned_memory.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

namespace finchkv::kernels::cuda {
namespace {

constexpr std::size_t kPiece = std::size_t{1} << 20;

class CountingLock final : public PageLock {
 public:
  bool lock(std::byte*, std::size_t) override {
    ++asked;
    return !refuses;
  }
  void unlock(std::byte*) override { ++unlocked; }

  std::atomic<int> asked{0}, unlocked{0};
  std::atomic<bool> refuses{false};
};

bool holds(const PinnedMemory& memory, const std::shared_ptr<std::byte>& piece) {
  return memory.holds({piece.get(), kPiece});
}

TEST(CudaPinnedMemory, PiecesAreLockedAndComeBack) {
  const auto lock = std::make_shared<CountingLock>();
  {
    PinnedMemory memory(lock);
    auto piece = memory.take(kPiece);
    ASSERT_NE(piece, nullptr);
    EXPECT_TRUE(holds(memory, piece));
    EXPECT_FALSE(memory.holds({piece.get(), kPiece * 2}));
    piece.reset();
    piece = memory.take(kPiece);
    EXPECT_TRUE(holds(memory, piece));
    EXPECT_EQ(lock->asked, 1) << "what came back serves again";
    EXPECT_FALSE(memory.was_refused());
  }
  EXPECT_EQ(lock->unlocked, 1);
}

TEST(CudaPinnedMemory, ARefusalIsRemembered) {
  const auto lock = std::make_shared<CountingLock>();
  PinnedMemory memory(lock, std::chrono::hours(1));
  const auto locked = memory.take(kPiece);
  lock->refuses = true;
  std::vector<std::shared_ptr<std::byte>> pieces;
  for (int i = 0; i < 5; ++i) {
    pieces.push_back(memory.take(kPiece));
    ASSERT_NE(pieces.back(), nullptr) << "ordinary memory does as well";
    EXPECT_FALSE(holds(memory, pieces.back()));
    pieces.back().get()[kPiece - 1] = std::byte{7};
  }
  EXPECT_EQ(lock->asked, 2) << "one was locked, one refused, and nothing was asked after that";
  EXPECT_TRUE(memory.was_refused());
  EXPECT_TRUE(holds(memory, locked)) << "what was locked before stays so";
  EXPECT_EQ(lock->unlocked, 0) << "nothing is unlocked that was not locked";
}

TEST(CudaPinnedMemory, AfterAWhileItIsTriedAgain) {
  const auto lock = std::make_shared<CountingLock>();
  PinnedMemory memory(lock, std::chrono::milliseconds(20));
  lock->refuses = true;
  const auto first = memory.take(kPiece);
  EXPECT_FALSE(holds(memory, first));
  lock->refuses = false;
  std::this_thread::sleep_for(std::chrono::milliseconds(40));
  const auto later = memory.take(kPiece);
  EXPECT_TRUE(holds(memory, later));
  EXPECT_TRUE(memory.was_refused());
}

}  // namespace
}  // namespace finchkv::kernels::cuda
