// The blocks of puts in a RocksDB database: writing, reading, listing, deleting. Knows put ids and ordinals, not
// entries.
//
// Internal to cache_store. Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>

#include "base/status.h"
#include "cache_store/codec.h"
#include "cache_store/entry_reader.h"
#include "cache_store/rocksdb_database.h"

namespace finchkv::cache_store {

/// How the blocks of a put lie, for whoever deletes them.
struct BlockLayout {
  std::uint32_t count = 0;  ///< ordinals 0 to count - 1; 0: not known
  bool own_table = false;   ///< meaningless when the count is not known
};

/// A folder of the store in which tables are written before they become part of the database. Emptied by an opening.
[[nodiscard]] std::string incoming_directory(const std::string& directory);
[[nodiscard]] Status prepare_incoming(rocksdb::Env& env, const std::string& directory);

/// Writes a put's blocks: into the log, whose next sync makes them durable, or as a durable table of their own.
[[nodiscard]] Status write_blocks(Database& database, const EncodedEntry& entry);

/// Deletes them; what is gone already is no error. Tables are gone from the disk when this returns.
struct BlocksToDelete {
  PutId put_id;
  BlockLayout layout;
};
[[nodiscard]] Status delete_blocks(Database& database, std::span<const BlocksToDelete> puts);

[[nodiscard]] Result<std::set<PutId>> puts_with_blocks(Database& database);
/// What a put's blocks take, and how many there are: by reading them all.
struct BlockSum {
  std::uint64_t blocks = 0;
  std::uint64_t bytes = 0;
};
[[nodiscard]] Result<BlockSum> sum_blocks(Database& database, const PutId& put_id);

/// Reads blocks of one put. `before_use` is asked after each block was read and before it counts (a lease's progress).
/// A missing block is not_found, also where a reader's writer has taken its file away.
struct SourceOptions {
  PutId put_id;
  bool own_table = false;
  std::function<Status()> before_use = nullptr;
};
[[nodiscard]] std::unique_ptr<BlockSource> open_block_source(std::shared_ptr<Database> database, SourceOptions options);

/// Frees what deleted blocks of small puts still take. Deletion there only marks; files are rewritten without what is
/// dead once that is more than a third of them, the older half first unless most of it is.
[[nodiscard]] Status reclaim(Database& database);
/// Bytes on disk of small puts, dead ones too.
[[nodiscard]] std::uint64_t small_put_bytes(Database& database);

}  // namespace finchkv::cache_store
