// How RocksDB is set up for a store, with the reasons.
//
// Internal to cache_store.
#pragma once

#include <rocksdb/options.h>

namespace finchkv::cache_store {

inline constexpr char kBlocksFamily[] = "blocks";

[[nodiscard]] rocksdb::DBOptions database_options(bool create, bool reader, rocksdb::Env* env);
[[nodiscard]] rocksdb::ColumnFamilyOptions heads_options();
[[nodiscard]] rocksdb::ColumnFamilyOptions blocks_options();

}  // namespace finchkv::cache_store
