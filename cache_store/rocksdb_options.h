// How RocksDB is set up for a store, with the reasons.
//
// Internal to cache_store.
#pragma once

#include <cstddef>
#include <cstdint>

#include <rocksdb/options.h>

namespace finchkv::cache_store {

inline constexpr char kBlocksFamily[] = "blocks";

/// Bounds what an opening has to read again: 2 MiB of log took some ms, 14 MiB more than 100.
inline constexpr std::uint64_t kMostLogBytes = 2 << 20;
/// Every opening for writing starts a log, and it stays until its contents are in a table.
inline constexpr std::size_t kMostLogs = 8;

struct OpenKind {
  bool create = false;
  bool reader = false;
  bool flush_logs = false;
  rocksdb::Env* env = nullptr;
};

[[nodiscard]] rocksdb::DBOptions database_options(const OpenKind& kind);
[[nodiscard]] rocksdb::ColumnFamilyOptions heads_options();
[[nodiscard]] rocksdb::ColumnFamilyOptions blocks_options();

}  // namespace finchkv::cache_store
