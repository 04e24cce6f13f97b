// The one place where a rocksdb::Status becomes ours, and what else must be known of RocksDB's own values.
//
// Internal to cache_store. Pure, thread-safe.
#pragma once

#include <cstdint>
#include <string_view>

#include <rocksdb/status.h>
#include <rocksdb/write_batch.h>

#include "base/status.h"

namespace finchkv::cache_store {

/// `doing` completes "the store DIRECTORY failed while ...".
[[nodiscard]] Status from_rocksdb(const rocksdb::Status& status, std::string_view directory, std::string_view doing);

/// The sequence number of the last record of a batch that has been written: it stands at the batch's start.
[[nodiscard]] std::uint64_t last_sequence_of(const rocksdb::WriteBatch& written);

}  // namespace finchkv::cache_store
