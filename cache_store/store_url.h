// Where a store is, as users write it.
//
// Pure functions, thread-safe. Left out: opening what is named.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace finchkv::cache_store {

struct StoreUrl {
  enum class Kind { kDirectory, kMemory };
  Kind kind = Kind::kDirectory;
  std::string directory;  ///< of kDirectory
};

/// "DIR", "rocksdb:DIR" or "memory:". unsupported: the addresses of a daemon or of Ceph, which are not there yet.
/// invalid_argument: nothing, or a scheme that is none.
[[nodiscard]] Result<StoreUrl> parse_store_url(std::string_view url);

}  // namespace finchkv::cache_store
