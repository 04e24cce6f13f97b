// A store in memory, for tests and for runs that keep nothing.
//
// Holds the same encoded heads and blocks as the RocksDB store, so that what it accepts, refuses and returns is the
// same. Thread-safe.
#pragma once

#include <memory>

#include "cache_store/store.h"

namespace finchkv::cache_store {

[[nodiscard]] std::shared_ptr<StoreHost> make_memory_store();

}  // namespace finchkv::cache_store
