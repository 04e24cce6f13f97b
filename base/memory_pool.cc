#include "base/memory_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

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

// Steps of an eighth at most: pieces of almost the same size serve one another.
std::size_t rounded(std::size_t bytes) {
  if (bytes > std::numeric_limits<std::size_t>::max() / 2) return 0;
  const std::size_t step = std::max(kSmallest, std::bit_floor(bytes) / 8);
  return (bytes + step - 1) / step * step;
}

}  // namespace

std::byte* AnonymousPages::map(std::size_t bytes) {
  // Not every system puts a large mapping where huge pages can begin.
  const std::size_t spare = bytes >= kHugePage ? kHugePage : 0;
  if (bytes > std::numeric_limits<std::size_t>::max() - spare) return nullptr;
  void* const start = mmap(nullptr, bytes + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) return nullptr;
  auto* at = static_cast<std::byte*>(start);
  if (spare == 0) return at;
  const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(at) % kHugePage) % kHugePage;
  if (before != 0) munmap(at, before);
  at += before;
  munmap(at + bytes, spare - before);
  madvise(at, bytes, MADV_HUGEPAGE);  // a wish: small pages do as well
  return at;
}

void AnonymousPages::unmap(std::byte* at, std::size_t bytes) { munmap(at, bytes); }

// Alive as long as a piece is out or the pool is there.
struct MemoryPool::Shelf {
  Shelf(std::size_t keep, std::shared_ptr<PageSource> source) : keep_bytes(keep), pages(std::move(source)) {}
  ~Shelf() {
    for (const auto& [bytes, piece] : pieces) pages->unmap(piece.at, bytes);
  }
  Shelf(const Shelf&) = delete;
  Shelf& operator=(const Shelf&) = delete;

  using Pieces = std::multimap<std::size_t, Piece>;

  // The one that came last is the likeliest to be in a cache.
  std::byte* find(std::size_t bytes, std::size_t* got) {
    const std::lock_guard lock(mutex);
    const auto least = pieces.lower_bound(bytes);
    if (least == pieces.end() || least->first > bytes + bytes / kWasteShare) return nullptr;
    const auto it = std::prev(pieces.upper_bound(least->first));
    std::byte* const at = it->second.at;
    *got = it->first;
    kept -= it->first;
    pieces.erase(it);
    return at;
  }

  void put_back(std::byte* at, std::size_t bytes) {
    std::vector<std::pair<std::byte*, std::size_t>> leaving;
    {
      const std::lock_guard lock(mutex);
      if (bytes > keep_bytes) {
        leaving.emplace_back(at, bytes);
      } else {
        while (kept + bytes > keep_bytes) leaving.push_back(take_oldest());
        pieces.emplace(bytes, Piece{at, Clock::now()});
        kept += bytes;
      }
    }
    for (const auto& [start, size] : leaving) pages->unmap(start, size);
  }

  std::pair<std::byte*, std::size_t> take_oldest() {
    const auto it = std::min_element(pieces.begin(), pieces.end(),
                                     [](const auto& a, const auto& b) { return a.second.since < b.second.since; });
    const std::pair<std::byte*, std::size_t> oldest{it->second.at, it->first};
    kept -= it->first;
    pieces.erase(it);
    return oldest;
  }

  const std::size_t keep_bytes;
  const std::shared_ptr<PageSource> pages;
  mutable std::mutex mutex;
  Pieces pieces;  // of one size in the order they came back
  std::size_t kept = 0;
};

MemoryPool::MemoryPool(std::size_t keep_bytes) : MemoryPool(keep_bytes, std::make_shared<AnonymousPages>()) {}

MemoryPool::MemoryPool(std::size_t keep_bytes, std::shared_ptr<PageSource> pages)
    : shelf_(std::make_shared<Shelf>(keep_bytes, std::move(pages))) {}

MemoryPool& MemoryPool::shared() {
  static MemoryPool pool(std::size_t{512} << 20);
  return pool;
}

std::shared_ptr<std::byte> MemoryPool::take(std::size_t bytes) {
  if (bytes < kSmallest) return allocate_shared_bytes(bytes);
  std::size_t size = rounded(bytes);
  if (size < bytes) return nullptr;
  std::byte* at = shelf_->find(size, &size);
  if (at == nullptr) at = shelf_->pages->map(size);
  if (at == nullptr) return nullptr;
  return {at, [shelf = shelf_, size](std::byte* back) { shelf->put_back(back, size); }};
}

void MemoryPool::release_idle(std::chrono::milliseconds age) {
  const auto before = Clock::now() - age;
  std::vector<std::pair<std::byte*, std::size_t>> leaving;
  {
    const std::lock_guard lock(shelf_->mutex);
    for (auto it = shelf_->pieces.begin(); it != shelf_->pieces.end();) {
      if (it->second.since > before) {
        ++it;
        continue;
      }
      leaving.emplace_back(it->second.at, it->first);
      shelf_->kept -= it->first;
      it = shelf_->pieces.erase(it);
    }
  }
  for (const auto& [at, bytes] : leaving) shelf_->pages->unmap(at, bytes);
}

std::size_t MemoryPool::kept_bytes() const {
  const std::lock_guard lock(shelf_->mutex);
  return shelf_->kept;
}

}  // namespace finchkv
