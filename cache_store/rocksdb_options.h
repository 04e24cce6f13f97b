// How RocksDB is set up for a store, with the reasons.
//
// Internal to cache_store.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include <rocksdb/env.h>
#include <rocksdb/options.h>

namespace finchkv::cache_store {

inline constexpr char kBlocksFamily[] = "blocks";
/// Ingesting one file took 1.1 to 1.3 ms with 250 files in its family, and grows with them.
inline constexpr unsigned kTableFamilies = 16;
[[nodiscard]] std::string table_family_name(unsigned index);  // "tables-0" to "tables-f"

/// Bounds what an opening has to read again: 2 MiB of log took some ms, 14 MiB more than 100.
inline constexpr std::uint64_t kMostLogBytes = 2 << 20;
/// Every opening for writing starts a log, and it stays until its contents are in a table.
inline constexpr std::size_t kMostLogs = 8;

struct OpenKind {
  bool create = false;
  bool reader = false;
  bool flush_logs = false;
  std::shared_ptr<rocksdb::Env> env;
};

[[nodiscard]] rocksdb::DBOptions database_options(const OpenKind& kind);
[[nodiscard]] rocksdb::ColumnFamilyOptions heads_options();
[[nodiscard]] rocksdb::ColumnFamilyOptions blocks_options();
[[nodiscard]] rocksdb::ColumnFamilyOptions table_options();

}  // namespace finchkv::cache_store
