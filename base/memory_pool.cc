#include "base/memory_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "base/kvset.h"

namespace finchkv {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kHugePage = 2 << 20;
constexpr std::size_t kSmallest = 64 << 10;  // below, the heap does as well
constexpr std::size_t kWasteShare = 4;       // a piece that is larger by more than a quarter stays for others

struct Piece {
  std::byte* at;
  Clock::time_point since;
};

std::size_t rounded(std::size_t bytes) {
  const std::size_t step = bytes >= kHugePage ? kHugePage : kSmallest;
  return (bytes + step - 1) / step * step;
}

std::byte* map(std::size_t bytes) {
  void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return nullptr;
  if (bytes >= kHugePage) madvise(at, bytes, MADV_HUGEPAGE);  // a wish: small pages do as well
  return static_cast<std::byte*>(at);
}

}  // namespace

// Alive as long as a piece is out or the pool is there.
struct MemoryPool::Shelf {
  explicit Shelf(std::size_t keep) : keep_bytes(keep) {}
  ~Shelf() {
    for (const auto& [bytes, piece] : pieces) munmap(piece.at, bytes);
  }
  Shelf(const Shelf&) = delete;
  Shelf& operator=(const Shelf&) = delete;

  std::byte* find(std::size_t bytes, std::size_t* got) {
    const std::lock_guard lock(mutex);
    const auto it = pieces.lower_bound(bytes);
    if (it == pieces.end() || it->first > bytes + bytes / kWasteShare) return nullptr;
    std::byte* const at = it->second.at;
    *got = it->first;
    kept -= it->first;
    pieces.erase(it);
    return at;
  }

  void put_back(std::byte* at, std::size_t bytes) {
    {
      const std::lock_guard lock(mutex);
      if (kept + bytes <= keep_bytes) {
        pieces.emplace(bytes, Piece{at, Clock::now()});
        kept += bytes;
        return;
      }
    }
    munmap(at, bytes);
  }

  const std::size_t keep_bytes;
  mutable std::mutex mutex;
  std::multimap<std::size_t, Piece> pieces;
  std::size_t kept = 0;
};

MemoryPool::MemoryPool(std::size_t keep_bytes) : shelf_(std::make_shared<Shelf>(keep_bytes)) {}

MemoryPool& MemoryPool::shared() {
  static MemoryPool pool(std::size_t{512} << 20);
  return pool;
}

std::shared_ptr<std::byte> MemoryPool::take(std::size_t bytes) {
  if (bytes < kSmallest) return allocate_shared_bytes(bytes);
  std::size_t size = rounded(bytes);
  if (size < bytes) return nullptr;
  std::byte* at = shelf_->find(size, &size);
  if (at == nullptr) at = map(size);
  if (at == nullptr) return nullptr;
  return {at, [shelf = shelf_, size](std::byte* back) { shelf->put_back(back, size); }};
}

void MemoryPool::release_idle(std::chrono::milliseconds age) {
  const auto before = Clock::now() - age;
  const std::lock_guard lock(shelf_->mutex);
  for (auto it = shelf_->pieces.begin(); it != shelf_->pieces.end();) {
    if (it->second.since > before) {
      ++it;
      continue;
    }
    munmap(it->second.at, it->first);
    shelf_->kept -= it->first;
    it = shelf_->pieces.erase(it);
  }
}

std::size_t MemoryPool::kept_bytes() const {
  const std::lock_guard lock(shelf_->mutex);
  return shelf_->kept;
}

}  // namespace finchkv
