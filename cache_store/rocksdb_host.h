// RocksDbHost: the opened database under a store's views, with its book of limits and leases.
//
// Internal to cache_store. Owns lock, database, ledger and upkeep. Thread-safe. Knows keys, records and blocks; what an
// entry is stands in rocksdb_view.cc.
// An entry's head and its place in the ledger change together, under entry_mutex(). Lock order: an entry's mutex, then
// the ledger's; never two entries' mutexes at once.
// A reader opens the database read-only and opens it again when the writer has changed it; it has no ledger, and its
// hits reach the writer through a file (hit_spool.h). RocksDB's secondary instances would follow the writer by
// themselves, but in 7.8 they read blob files through dangling references (ReactiveVersionSet hands temporaries to
// BlobSource; it crashed here). Whether an opening beside a writer saw one state is checked by looking at the files
// before and after.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <rocksdb/write_batch.h>

#include "cache_store/acknowledged.h"
#include "cache_store/direct_read.h"
#include "cache_store/read_pool.h"
#include "cache_store/rest_gate.h"
#include "cache_store/rocksdb_blocks.h"
#include "cache_store/rocksdb_database.h"
#include "cache_store/rocksdb_keys.h"
#include "cache_store/rocksdb_store.h"
#include "cache_store/store_limits.h"

namespace finchkv::cache_store {

class HeadIterator;

class RocksDbHost : public StoreHost, public std::enable_shared_from_this<RocksDbHost> {
 public:
  static Result<std::shared_ptr<StoreHost>> open(const std::string& directory, const RocksDbOptions& options);
  ~RocksDbHost() override;
  RocksDbHost(const RocksDbHost&) = delete;
  RocksDbHost& operator=(const RocksDbHost&) = delete;

  Result<std::unique_ptr<Store>> view(Tenant tenant, ViewOptions options) override;
  Result<GcReport> gc() override;
  Result<ScrubReport> scrub(const ScrubOptions& options) override;
  Result<BackupReport> back_up(const std::string& directory, std::uint32_t keep) override;
  Result<StoreReport> report() override;
  StoreSettings settings() const override { return limits_->settings(); }
  Status set_settings(const StoreSettings& settings) override;

  /// A put's or reader's claim on blocks: gc leaves them alone as long as it lives.
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

  /// Readers see what the writer has done up to here; nothing for the writer itself.
  /// True when there may be something new.
  [[nodiscard]] Result<bool> catch_up();
  /// permission_denied for a reader. After a failed write the database is opened again.
  [[nodiscard]] Status prepare_to_write();

  /// A small record of the default family; nullopt when there is none.
  [[nodiscard]] Result<std::optional<std::string>> read_record(const std::string& key);
  [[nodiscard]] Result<std::optional<AccessRecord>> read_access(std::string_view owner, const CacheId& id);
  /// An entry's head and access record as they were at one moment.
  struct EntryRecords {
    std::optional<std::string> head;
    std::optional<AccessRecord> access;
    /// The put under this id, whether or not it can be read; zeros where only damage is left of it.
    [[nodiscard]] std::optional<PutId> put_id() const;
  };
  [[nodiscard]] Result<EntryRecords> read_records(std::string_view owner, const CacheId& id);
  /// Over the default family's keys from `from` up to `end`.
  [[nodiscard]] HeadIterator iterate(const std::string& from, const std::string& end);
  /// Writes records; with `acknowledge` as durably as the settings promise of a put.
  [[nodiscard]] Status write(rocksdb::WriteBatch& batch, bool acknowledge, std::string_view doing);
  [[nodiscard]] Status write_access(std::string_view owner, const CacheId& id, const AccessRecord& access,
                                    bool acknowledge, std::string_view doing);
  /// Adds that both records of an entry go. `head` is what there is of its head.
  void add_removal(std::string_view owner, const CacheId& id, const std::optional<std::string>& head,
                   rocksdb::WriteBatch& batch);

  /// Makes a put's blocks durable as far as their head needs it.
  [[nodiscard]] Status write_put(const EncodedEntry& entry);
  /// Room for a put. resource_exhausted.
  [[nodiscard]] Result<Reservation> reserve(std::string_view owner, std::uint64_t bytes);
  /// A put on its way from its head to its place in the ledger.
  struct WrittenPut {
    std::string owner;
    CacheId id;
    AccessRecord access;
    std::optional<Removal> in_front;  ///< whose head went in the same write
    Reservation room;
  };
  /// Books an entry whose head has been written, under its lock: its access record as it stands then.
  [[nodiscard]] Result<AccessRecord> book(WrittenPut put);
  /// The same where the head could not be written, or so it seemed: it may be in the log all the same. Bytes stay
  /// reserved, and blocks where they are, until the database has been opened again and it is known.
  void keep_uncertain(WrittenPut put);
  /// Remembers how to delete blocks whose head goes, for when nobody reads them any more.
  void note_layout(const EntryHead& head);
  void note_layout_of(std::string_view head_record);  ///< if it can be read
  /// Deletes blocks that were released: removed, replaced or abandoned, and read by nobody. Best effort: what cannot be
  /// deleted now comes again.
  void delete_released();

  /// A source of one thread, under its own lease and claim. not_found when the entry has gone.
  [[nodiscard]] Result<std::unique_ptr<BlockSource>> open_source(std::string_view owner, const CacheId& id,
                                                                 const EntryHead& head);
  void note_lookup(bool found);
  void note_put(std::uint64_t bytes) { put_bytes_ += bytes; }
  /// An engine asked for the entry: what hit rates and eviction go by.
  void note_use(std::string_view owner, const CacheId& id, bool hit);

  [[nodiscard]] AccountId account(std::string_view owner) { return limits_->account(owner); }
  [[nodiscard]] Ledger& ledger() { return limits_->ledger(); }
  [[nodiscard]] ReadPool& pool() { return pool_; }
  /// Serialises changes of one entry's head, access record and place in the ledger.
  [[nodiscard]] std::mutex& entry_mutex(const CacheId& id) { return entry_mutexes_[id.bytes[0] % kStripes]; }
  void step(PutStep s) const {
    if (options_.on_put_step) options_.on_put_step(s);
  }
  [[nodiscard]] const RocksDbOptions& options() const { return options_; }
  [[nodiscard]] bool is_reader() const { return options_.mode == RocksDbOptions::Mode::kRead; }
  [[nodiscard]] const std::string& directory() const { return directory_; }

 private:
  RocksDbHost(std::string directory, RocksDbOptions options);
  Status open_writer();
  Status open_reader();
  Status reopen_writer();
  [[nodiscard]] std::shared_ptr<Database> database();
  Status load_records(bool left_open);
  Result<StoreSettings> kept_settings();
  Result<std::vector<PutId>> load_ledger();
  Result<std::optional<AccessRecord>> upgrade_access(const EntryKey& key, std::string_view record);
  Remove remover();
  Status remove_entries(std::span<const Removal> removals);
  Result<bool> remove_head(const Removal& removal, std::string_view owner);

  // What no entry names (rocksdb_garbage.cc).
  Status count_abandoned(std::vector<PutId> known);
  void settle_uncertain();
  Result<std::set<PutId>> puts_with_heads();
  Result<std::uint64_t> remove_expired();

  // Upkeep (rocksdb_upkeep.cc).
  void start_upkeep();
  void stop_upkeep();
  void run_upkeep();
  void upkeep_once();
  void reclaim_small();
  [[nodiscard]] bool reclaim_due();  // removals have left enough behind to compact at once
  void write_dirty();
  void write_counters();
  bool sync_log();
  void absorb_hits();
  Counters counters_now();
  Status scrub_some(const ScrubOptions& options, ScrubReport& report);
  Status scrub_one(const EntryKey& key, std::string_view record, ScrubReport& report);
  Result<bool> quarantine(std::string_view owner, const CacheId& id, const PutId& put_id);

  static constexpr std::size_t kStripes = 64;

  std::string directory_;
  RocksDbOptions options_;
  std::shared_ptr<WriteCounter> written_;
  std::shared_ptr<rocksdb::Env> env_;
  std::optional<WriterLock> lock_;
  AcknowledgedFile acknowledged_;
  bool loaded_whole_ = false;  // by a writer

  std::mutex database_mutex_;
  std::mutex reopen_mutex_;  // one thread opens, the others find it done
  std::shared_ptr<Database> database_;
  std::atomic<bool> write_failed_{false};
  RestGate writes_;  // rests while a backup lists its files, and while the database is opened again

  std::unique_ptr<StoreLimits> limits_;  // a reader's ledger stays empty

  std::mutex claims_mutex_;
  std::multiset<PutId> claims_;
  std::map<PutId, WrittenPut> uncertain_;  // under claims_mutex_
  std::map<PutId, BlockLayout> layouts_;   // of puts without a head that are not deleted yet; under claims_mutex_
  std::array<std::mutex, kStripes> entry_mutexes_;

  Counters loaded_;          // as the store had them when it was opened
  Counters noted_counters_;  // as they were written last; upkeep's alone
  std::atomic<std::uint64_t> lookups_{0};
  std::atomic<std::uint64_t> misses_{0};
  std::atomic<std::uint64_t> evictions_{0};
  std::atomic<std::uint64_t> put_bytes_{0};
  std::atomic<std::uint64_t> small_deleted_bytes_{0};  // since the last reclaim()

  std::mutex upkeep_mutex_;
  std::condition_variable upkeep_wake_;
  bool upkeep_ending_ = false;
  std::thread upkeep_;
  ReadPool pool_;  // last: its threads use what is above
};

/// Iterator, bound and database live together: RocksDB only points to the latter two.
class HeadIterator {
 public:
  HeadIterator(std::shared_ptr<Database> database, const std::string& from, std::string end);
  rocksdb::Iterator* operator->() { return it_.get(); }

 private:
  std::shared_ptr<Database> database_;
  std::unique_ptr<std::string> end_;
  std::unique_ptr<rocksdb::Slice> end_slice_;
  std::unique_ptr<rocksdb::Iterator> it_;
};

/// One tenant's view (rocksdb_view.cc).
[[nodiscard]] std::unique_ptr<Store> make_rocksdb_view(std::shared_ptr<RocksDbHost> host, Tenant tenant,
                                                       ViewOptions options);

}  // namespace finchkv::cache_store
