#include "cache_store/rocksdb_options.h"

#include <cstdarg>

#include <rocksdb/cache.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>

namespace finchkv::cache_store {
namespace {

// RocksDB's log of its own doings, left out: a reader leaves nothing behind, and a writer on a full disk must not end
// in it (Debian's RocksDB has assertions, and the second line after a failed one is an abort).
class NoLog : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char* /*format*/, std::va_list /*arguments*/) override {}
};

rocksdb::ColumnFamilyOptions common_options() {
  rocksdb::ColumnFamilyOptions options;
  // Floating-point KV hardly compresses; what does will be compressed before its digest is taken.
  options.compression = rocksdb::kNoCompression;
  rocksdb::BlockBasedTableOptions table;
  table.format_version = 5;
  table.checksum = rocksdb::kXXH3;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.block_cache = rocksdb::NewLRUCache(8 << 20);
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

}  // namespace

rocksdb::DBOptions database_options(const OpenKind& kind) {
  rocksdb::DBOptions options;
  if (kind.env != nullptr) options.env = kind.env;
  options.create_if_missing = kind.create;
  // An opening that was killed between making the database and its second family left no entry behind: go on with it.
  options.create_missing_column_families = !kind.reader;
  options.paranoid_checks = true;
  // After a kill the log ends in the middle of a record, and that is fine: the put was not acknowledged. Damage before
  // the end must not pass silently, which rules out RocksDB's default (it would drop what follows the damage).
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  // Opening makes no table of what the logs hold, unless they have become many or long: every opening reads them all.
  options.avoid_flush_during_recovery = !kind.flush_logs;
  options.skip_stats_update_on_db_open = true;
  options.max_open_files = -1;  // a reader keeps its tables when the writer removes them; nobody waits for an opening
  options.max_file_opening_threads = 2;
  options.max_total_wal_size = kMostLogBytes;
  options.max_background_jobs = 2;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.info_log = std::make_shared<NoLog>();
  return options;
}

rocksdb::ColumnFamilyOptions heads_options() {
  rocksdb::ColumnFamilyOptions options = common_options();
  options.write_buffer_size = 8 << 20;
  return options;
}

rocksdb::ColumnFamilyOptions blocks_options() {
  rocksdb::ColumnFamilyOptions options = common_options();
  options.write_buffer_size = 64 << 20;
  options.max_write_buffer_number = 3;
  // Values that are written once and never merged: compactions move their references only.
  options.enable_blob_files = true;
  options.min_blob_size = 4096;
  options.blob_file_size = 256U << 20;
  options.enable_blob_garbage_collection = true;
  options.blob_garbage_collection_age_cutoff = 0.25;
  options.blob_garbage_collection_force_threshold = 0.5;
  return options;
}

}  // namespace finchkv::cache_store
