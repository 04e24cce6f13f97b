// The store that bit_flip_test damages: entries of every storage dtype, small and large, of two tenants, replaced and
// removed ones among them, and what must be found of all that afterwards. Plain data; no threads.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "cache_store/rocksdb_store.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store::testing {

struct FlipEntry {
  PutRequest request;
  KvSet stored;  // what get() must return
  CacheId id;
};

// What must be found, and what must not, by tenant.
struct FlipContents {
  Tenant tenant;
  std::vector<FlipEntry> there;
  std::vector<CacheId> gone;
};

struct FlipPlan {
  std::vector<FlipContents> contents;
  // In the order of their putting, with the tenant's place in `contents`.
  using Puts = std::vector<std::pair<std::size_t, FlipEntry>>;
  Puts early;  // all end up in tables
  Puts late;   // the small ones stay in the log

  // Closing a database that has taken large puts flushes it: the small ones get an opening of their own.
  [[nodiscard]] Puts late_ones(bool large) const;
};
FlipPlan make_flip_plan();

RocksDbOptions flip_options(RocksDbOptions::Mode mode);

enum class Ending : std::uint8_t {
  kClosed,   // the last small entries are in the log
  kKilled,   // after a flush, which is the manifest's last word
  kFlushed,  // everything is in tables, and the manifest's last word is where
};

// In a process of its own, so that this one has no RocksDB threads when it forks the trials.
void build_store(const std::string& directory, const FlipPlan& plan, Ending ending);

}  // namespace finchkv::cache_store::testing
