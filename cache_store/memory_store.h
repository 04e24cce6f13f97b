// A store in memory, for tests and for runs that keep nothing.
//
// Holds the same encoded blocks as the RocksDB store under the same limits, so that what it accepts, refuses, evicts
// and returns is the same. Thread-safe. What concerns disks does not apply: durability, and files written. It has no
// thread of its own: expired entries go with the next put or gc(), and only scrub() scrubs.
#pragma once

#include <memory>

#include "base/status.h"
#include "cache_store/store.h"

namespace finchkv::cache_store {

/// invalid_argument for settings that are none.
[[nodiscard]] Result<std::shared_ptr<StoreHost>> open_memory_store(const StoreSettings& settings = {});
/// One without limits.
[[nodiscard]] std::shared_ptr<StoreHost> make_memory_store();

}  // namespace finchkv::cache_store
