// The one place where a rocksdb::Status becomes ours.
//
// Internal to cache_store. Pure, thread-safe.
#pragma once

#include <string_view>

#include <rocksdb/status.h>

#include "base/status.h"

namespace finchkv::cache_store {

/// `doing` completes "the store DIRECTORY failed while ...".
[[nodiscard]] Status from_rocksdb(const rocksdb::Status& status, std::string_view directory, std::string_view doing);

}  // namespace finchkv::cache_store
