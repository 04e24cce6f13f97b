#include "kernels/cpu/weight_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace finchkv::kernels::cpu {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{32} << 20;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

std::shared_ptr<std::byte> map_piece(std::size_t bytes) {
  // One huge page more than asked for, so that an aligned start can be found inside.
  const std::size_t mapped = bytes + kHugePage;
  void* start = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) throw std::bad_alloc();
  const auto address = reinterpret_cast<std::uintptr_t>(start);
  auto* aligned = static_cast<std::byte*>(start) + (round_up(address, kHugePage) - address);
  ::madvise(aligned, bytes, MADV_HUGEPAGE);  // advice: where it is not taken, pages are small and all else is the same
  return {aligned, [start, mapped](std::byte*) { ::munmap(start, mapped); }};
}

}  // namespace

AlignedBuffer WeightArena::take(std::size_t bytes) {
  const std::size_t needed = round_up(std::max<std::size_t>(bytes, 1), 64);
  if (used_ + needed > size_) {
    size_ = std::max(kPieceBytes, round_up(needed, kHugePage));
    piece_ = map_piece(size_);
    used_ = 0;
  }
  AlignedBuffer out;
  out.data = std::shared_ptr<std::byte>(piece_, piece_.get() + used_);
  out.size = bytes;
  used_ += needed;
  return out;
}

}  // namespace finchkv::kernels::cpu
