// RocksDbHost: the opened database under a store's views.
//
// Internal to cache_store. Owns lock and database. Thread-safe. Knows keys and bytes; what an entry is stands in
// rocksdb_view.cc.
// A reader opens the database read-only and opens it again when the writer has changed it. RocksDB's secondary
// instances would follow the writer by themselves, but in 7.8 they read blob files through dangling references
// (ReactiveVersionSet hands temporaries to BlobSource; it crashed here). Whether an opening beside a writer saw one
// state is checked by looking at the files before and after.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include "cache_store/codec.h"
#include "cache_store/rocksdb_store.h"
#include "cache_store/store_directory.h"

namespace finchkv::cache_store {

class HeadIterator;

class RocksDbHost : public StoreHost, public std::enable_shared_from_this<RocksDbHost> {
 public:
  static Result<std::shared_ptr<StoreHost>> open(const std::string& directory, const RocksDbOptions& options);
  RocksDbHost(const RocksDbHost&) = delete;
  RocksDbHost& operator=(const RocksDbHost&) = delete;

  Result<std::unique_ptr<Store>> view(Tenant tenant) override;
  Result<GcReport> gc() override;

  /// A put's claim on its blocks: gc leaves them alone as long as it lives.
  class Claim {
   public:
    Claim(RocksDbHost& host, const PutId& put_id);
    ~Claim();
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;

   private:
    RocksDbHost& host_;
    PutId put_id_;
  };

  /// An opened database; calls under way keep the one they started with.
  struct Database {
    std::unique_ptr<rocksdb::DB> db;
    rocksdb::ColumnFamilyHandle* heads = nullptr;
    rocksdb::ColumnFamilyHandle* blocks = nullptr;
    FilesSeen seen;  ///< by a reader
    Database() = default;
    ~Database();
    Database(const Database&) = delete;
    Database& operator=(const Database&) = delete;
  };

  /// Readers see what the writer has done up to here; nothing for the writer itself.
  /// True when there may be something new.
  [[nodiscard]] Result<bool> catch_up();
  /// permission_denied for a reader. After a full disk the database wants to be told that it may go on.
  [[nodiscard]] Status prepare_to_write();

  /// A small record of the default family; nullopt when there is none.
  [[nodiscard]] Result<std::optional<std::string>> read_record(const std::string& key);
  [[nodiscard]] BlockReader block_reader(const PutId& put_id);
  /// Over the default family's keys from `from` up to `end`.
  [[nodiscard]] HeadIterator iterate(const std::string& from, const std::string& end);

  /// Writes the blocks and makes them durable as far as their head needs it: through the log, which the head's sync
  /// carries along, or past it and flushed.
  [[nodiscard]] Status write_blocks(const PutId& put_id, const EncodedEntry& entry);
  [[nodiscard]] Status write(rocksdb::WriteBatch& batch, bool sync, std::string_view doing);
  void add_block_deletes(rocksdb::WriteBatch& batch, const PutId& put_id, std::uint32_t count);

  /// Serialises changes of one entry's head and access record.
  [[nodiscard]] std::mutex& entry_mutex(const CacheId& id) { return entry_mutexes_[id.bytes[0] % kStripes]; }

  void step(PutStep s) const {
    if (options_.on_put_step) options_.on_put_step(s);
  }
  [[nodiscard]] bool is_reader() const { return options_.mode == RocksDbOptions::Mode::kRead; }
  [[nodiscard]] const std::string& directory() const { return directory_; }

 private:
  RocksDbHost(std::string directory, RocksDbOptions options)
      : directory_(std::move(directory)), options_(std::move(options)) {}
  Status open_writer();
  Status open_reader();
  Status open_for_reading();
  [[nodiscard]] std::shared_ptr<Database> database();
  Result<std::set<PutId>> puts_with_blocks();
  Result<std::set<PutId>> puts_with_heads();
  Status remove_blocks(const PutId& put_id, GcReport& report);

  static constexpr std::size_t kStripes = 64;

  std::string directory_;
  RocksDbOptions options_;
  std::optional<WriterLock> lock_;
  std::mutex database_mutex_;
  std::mutex reopen_mutex_;  // one thread opens, the others find it done
  std::shared_ptr<Database> database_;
  std::atomic<bool> write_failed_{false};
  std::mutex claims_mutex_;
  std::set<PutId> claims_;
  std::array<std::mutex, kStripes> entry_mutexes_;
};

/// Iterator, bound and database live together: RocksDB only points to the latter two.
class HeadIterator {
 public:
  HeadIterator(std::shared_ptr<RocksDbHost::Database> database, const std::string& from, std::string end);
  rocksdb::Iterator* operator->() { return it_.get(); }

 private:
  std::shared_ptr<RocksDbHost::Database> database_;
  std::unique_ptr<std::string> end_;
  std::unique_ptr<rocksdb::Slice> end_slice_;
  std::unique_ptr<rocksdb::Iterator> it_;
};

/// One tenant's view (rocksdb_view.cc).
[[nodiscard]] std::unique_ptr<Store> make_rocksdb_view(std::shared_ptr<RocksDbHost> host, Tenant tenant);

}  // namespace finchkv::cache_store
