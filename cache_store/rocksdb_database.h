// An opened RocksDB database with the families of a store.
//
// "default" holds heads and small records, "blocks" the blocks of small puts, and the table families the blocks of
// large puts, a table each: written once, ingested at the bottom level, never compacted, deleted as a file. Every
// change of a family costs time in proportion to its files, so they are spread over several. Internal to cache_store.
// Thread-safe once opened; calls under way keep the Database that they started with.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include <rocksdb/db.h>
#include <rocksdb/wal_filter.h>

#include "base/status.h"
#include "cache_store/put_id.h"
#include "cache_store/rocksdb_options.h"
#include "cache_store/store_directory.h"

namespace finchkv::cache_store {

struct Database {
  std::string directory;
  std::shared_ptr<rocksdb::Env> env;
  std::unique_ptr<rocksdb::WalFilter> log_check;  ///< where the opening needed one: RocksDB keeps a pointer to it
  std::unique_ptr<rocksdb::DB> db;
  rocksdb::ColumnFamilyHandle* heads = nullptr;
  rocksdb::ColumnFamilyHandle* blocks = nullptr;
  std::array<rocksdb::ColumnFamilyHandle*, kTableFamilies> tables{};  ///< null in a reader of format 1
  FilesSeen seen;                                                     ///< by a reader

  Database() = default;
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  [[nodiscard]] rocksdb::ColumnFamilyHandle* table_family(const PutId& put_id) const {
    return tables[put_id.bytes[0] % kTableFamilies];
  }
};

[[nodiscard]] Result<std::shared_ptr<Database>> open_for_writing(const std::string& directory, OpenKind kind);
/// Sees one state of the files: `seen` holds it. unavailable when they change too fast.
[[nodiscard]] Result<std::shared_ptr<Database>> open_for_reading(const std::string& directory, OpenKind kind);

/// not_found, in the words of every opening.
[[nodiscard]] Status no_store(const std::string& directory);

}  // namespace finchkv::cache_store
