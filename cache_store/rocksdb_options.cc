#include "cache_store/rocksdb_options.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdarg>

#include <fmt/format.h>
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

rocksdb::BlockBasedTableOptions common_table() {
  rocksdb::BlockBasedTableOptions table;
  table.format_version = 5;
  table.checksum = rocksdb::kXXH3;
  return table;
}

rocksdb::ColumnFamilyOptions common_options() {
  rocksdb::ColumnFamilyOptions options;
  // Floating-point KV hardly compresses; what does will be compressed before its digest is taken.
  options.compression = rocksdb::kNoCompression;
  rocksdb::BlockBasedTableOptions table = common_table();
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.block_cache = rocksdb::NewLRUCache(8 << 20);
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  // Keys are random and flushes small, because the log is (rocksdb_options.h): by levels, every few flushes would write
  // the whole first level again.
  options.compaction_style = rocksdb::kCompactionStyleUniversal;
  return options;
}

// A table that stays open costs a descriptor, and one that does not is opened when it is read.
int most_open_files() {
  constexpr rlim_t kOthers = 256;  // the process's own
  constexpr rlim_t kMost = 100'000;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kMost;
  return static_cast<int>(limit.rlim_cur > 2 * kOthers ? std::min(limit.rlim_cur - kOthers, kMost)
                                                       : limit.rlim_cur / 2);
}

}  // namespace

std::string table_family_name(unsigned index) { return fmt::format("tables-{:x}", index); }

rocksdb::DBOptions database_options(const OpenKind& kind) {
  rocksdb::DBOptions options;
  options.env = kind.env.get();
  options.create_if_missing = kind.create;
  // An opening that was killed between making the database and its second family left no entry behind: go on with it.
  options.create_missing_column_families = !kind.reader;
  options.paranoid_checks = true;
  // After a crash the log may end in the middle of a record, or in pages that came to the disk without those before
  // them: up to there it counts. That alone would pass silently over damage to what was acknowledged: the number of the
  // last acknowledged write is kept apart, and an opening that does not come so far fails (acknowledged.h).
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  // After an error the database is closed and opened again (RocksDbHost): going on by itself, RocksDB 7.8 appended to
  // a log whose last append had failed, which its assertions end the process for, and acknowledged a flush that had
  // not happened (power_loss_test).
  options.max_bgerror_resume_count = 0;
  // Opening makes no table of what the logs hold, unless they have become many or long: every opening reads them all.
  options.avoid_flush_during_recovery = !kind.flush_logs;
  options.skip_stats_update_on_db_open = true;
  options.max_open_files = most_open_files();
  options.advise_random_on_open = false;  // blocks are read from end to end
  options.bytes_per_sync = 2 << 20;       // writing out begins before the final sync
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
  // Heads of one model's entries have much in common.
  options.compression = rocksdb::kZSTD;
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
  options.enable_blob_garbage_collection = false;  // the host says when: it knows what has been deleted
  return options;
}

rocksdb::ColumnFamilyOptions table_options() {
  rocksdb::ColumnFamilyOptions options;
  options.compression = rocksdb::kNoCompression;
  options.write_buffer_size = 64 << 10;  // nothing is ever written but by ingestion
  options.disable_auto_compactions = true;
  rocksdb::BlockBasedTableOptions table = common_table();
  table.no_block_cache = true;  // values are read once, to where they are wanted
  // A value begins a table block of its own, however small the one before it was.
  table.block_size = 4096;
  table.block_size_deviation = 99;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

}  // namespace finchkv::cache_store
