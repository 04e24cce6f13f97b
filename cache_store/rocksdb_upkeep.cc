// What a RocksDB store does by itself while a writer has it open, and what an operator asks of it: writing down hits,
// expiry, giving back space, scrubbing, the report.
#include <chrono>
#include <utility>

#include <fmt/format.h>

#include "base/memory_pool.h"
#include "cache_store/hit_spool.h"
#include "cache_store/rocksdb_backup.h"
#include "cache_store/rocksdb_host.h"
#include "cache_store/rocksdb_status.h"
#include "cache_store/scrub_pace.h"
#include "cache_store/settings.h"
#include "cache_store/store_common.h"

namespace finchkv::cache_store {
namespace {

using clock = std::chrono::steady_clock;

// Dead bytes of small puts that are worth a compaction while nobody asked for one: so many, and at once when they are
// this part of what is on the disk.
constexpr std::uint64_t kReclaimAt = 64 << 20;
constexpr std::uint64_t kReclaimPart = 4;

}  // namespace

void RocksDbHost::start_upkeep() {
  if (options_.upkeep_interval.count() <= 0) return;
  upkeep_ = std::thread([this] { run_upkeep(); });
}

void RocksDbHost::stop_upkeep() {
  {
    const std::lock_guard lock(upkeep_mutex_);
    upkeep_ending_ = true;
  }
  upkeep_wake_.notify_all();
  if (upkeep_.joinable()) upkeep_.join();
}

void RocksDbHost::run_upkeep() {
  auto next_upkeep = clock::now() + options_.upkeep_interval;
  auto next_scrub = clock::now() + options_.upkeep_interval;
  std::unique_lock lock(upkeep_mutex_);
  while (!upkeep_ending_) {
    const StoreSettings now = settings();
    auto wake = next_upkeep;
    if (now.durability == Durability::kInterval) {
      wake = std::min(wake, clock::now() + std::chrono::milliseconds(now.sync_interval_ms));
    }
    upkeep_wake_.wait_until(lock, wake, [this] { return upkeep_ending_ || reclaim_due(); });
    if (upkeep_ending_) return;
    lock.unlock();
    if (reclaim_due()) reclaim_small();
    if (now.durability == Durability::kInterval) (void)sync_log();
    if (clock::now() >= next_upkeep) {
      upkeep_once();
      next_upkeep = clock::now() + options_.upkeep_interval;
    }
    if (now.scrub_bytes_per_s != 0 && clock::now() >= next_scrub) {
      (void)scrub({.bytes_per_s = now.scrub_bytes_per_s,
                   .stop =
                       [this] {
                         const std::lock_guard ending(upkeep_mutex_);
                         return upkeep_ending_;
                       }})
          .is_ok();
      constexpr auto kBetweenRounds = std::chrono::minutes(10);
      next_scrub = clock::now() + kBetweenRounds;
    }
    lock.lock();
  }
}

// Best effort: what fails now (a full disk) is tried again the next time, and the next put says what is wrong.
void RocksDbHost::upkeep_once() {
  constexpr auto kIdle = std::chrono::seconds(10);
  MemoryPool::shared().release_idle(kIdle);
  if (write_failed_.load()) return;
  absorb_hits();
  write_dirty();
  write_counters();
  acknowledged_.sync();
  (void)remove_expired().is_ok();
  if (small_deleted_bytes_.load() >= kReclaimAt) reclaim_small();
}

bool RocksDbHost::reclaim_due() {
  const std::uint64_t dead = small_deleted_bytes_.load();
  return dead >= kReclaimAt && !write_failed_.load() && dead >= small_put_bytes(*database()) / kReclaimPart;
}

void RocksDbHost::reclaim_small() {
  small_deleted_bytes_.store(0);
  (void)reclaim(*database()).is_ok();
}

bool RocksDbHost::sync_log() {
  if (write_failed_.load()) return false;  // RocksDB's assertions end the process over a log whose last write failed
  const auto database = this->database();
  const std::uint64_t written = database->db->GetLatestSequenceNumber();
  if (!database->db->SyncWAL().ok()) {
    write_failed_.store(true);
    return false;
  }
  acknowledged_.note(written);
  return true;
}

void RocksDbHost::absorb_hits() {
  take_spooled_lookups(directory_, [this](const SpooledLookup& lookup) {
    note_lookup(lookup.hit);
    if (lookup.hit) ledger().touch(account(lookup.owner), lookup.id, lookup.unix_ms);
  });
}

void RocksDbHost::write_dirty() {
  constexpr std::size_t kAtOnce = 256;
  for (;;) {
    const auto records = ledger().take_dirty(kAtOnce);
    for (const EntryRecord& record : records) {
      const std::string owner = limits_->owner_of(record.account);
      const std::lock_guard lock(entry_mutex(record.id));
      auto access = read_access(owner, record.id);
      if (!access.is_ok() || !*access || (*access)->put_id != record.put_id) continue;
      AccessRecord changed = **std::move(access);
      changed.hits = record.hits;
      changed.last_used_unix_ms = record.last_used_unix_ms;
      changed.rank_in_account = record.ranks.in_account;
      changed.rank_in_store = record.ranks.in_store;
      (void)write_access(owner, record.id, changed, false, "noting hits").is_ok();
    }
    if (records.size() < kAtOnce) return;
  }
}

Counters RocksDbHost::counters_now() {
  Counters now = loaded_;
  now.lookups += lookups_.load();
  now.misses += misses_.load();
  now.evictions += evictions_.load();
  now.put_bytes += put_bytes_.load();
  now.written_bytes += written_->bytes.load();
  return now;
}

// Only what entries did is worth a record: an opening writes some bytes too, and would go on writing for ever.
void RocksDbHost::write_counters() {
  const Counters now = counters_now();
  Counters noted = noted_counters_;
  noted.written_bytes = now.written_bytes;
  if (now == noted) return;
  rocksdb::WriteBatch batch;
  batch.Put(std::string(kCountersKey), encode_counters(now)).PermitUncheckedError();
  if (write(batch, false, "noting its counters").is_ok()) noted_counters_ = now;
}

Result<ScrubReport> RocksDbHost::scrub(const ScrubOptions& options) {
  FINCHKV_RETURN_IF_ERROR(prepare_to_write());
  ScrubReport report;
  if (options.only) {
    FINCHKV_RETURN_IF_ERROR(scrub_some(options, report));
    return report;
  }
  const ScrubPace pace(options);
  std::string from(kAllHeads);
  const std::string end = prefix_end(from);
  for (;;) {
    // An iterator for each entry: a scrub takes hours, and an old iterator keeps deleted files on the disk.
    auto it = iterate(from, end);
    if (!it->Valid()) {
      FINCHKV_RETURN_IF_ERROR(from_rocksdb(it->status(), directory_, "scrubbing"));
      return report;
    }
    from = it->key().ToString() + '\0';
    if (const auto key = parse_entry_key(it->key().ToStringView())) {
      FINCHKV_RETURN_IF_ERROR(scrub_one(*key, it->value().ToStringView(), report));
    }
    if (!pace.keep(report.bytes)) return report;
  }
}

Status RocksDbHost::scrub_some(const ScrubOptions& options, ScrubReport& report) {
  const ScrubPace pace(options);
  for (const CacheId& id : *options.only) {
    EntryKey key{options.tenant, id};
    FINCHKV_ASSIGN_OR_RETURN(auto record, read_record(head_key(key.owner, id)));
    if (!record) {
      key.owner = kSharedOwner;
      FINCHKV_ASSIGN_OR_RETURN(record, read_record(head_key(key.owner, id)));
    }
    if (record) FINCHKV_RETURN_IF_ERROR(scrub_one(key, *record, report));
    if (!pace.keep(report.bytes)) break;
  }
  return Status::ok();
}

Status RocksDbHost::scrub_one(const EntryKey& key, std::string_view record, ScrubReport& report) {
  ++report.entries;
  auto head = decode_head_unbound(as_byte_span(record));
  Status found = head.status();
  PutId put_id;
  if (head.is_ok()) {
    put_id = head->put_id;
    report.bytes += head->stored_bytes;
    auto source = open_source(key.owner, key.id, *head);
    if (!source.is_ok()) return Status::ok();  // it went away, or is on its way
    const auto reader = EntryReader::open_sealed(*std::move(head), **source);
    found = reader.is_ok() ? reader->verify_digests(**source) : reader.status();
    // Missing under a lease: not there at all.
    if (found.code() == StatusCode::kNotFound) found = Status::corrupt(found.message());
  } else {
    FINCHKV_ASSIGN_OR_RETURN(const auto access, read_access(key.owner, key.id));
    if (!access) return Status::ok();
    put_id = access->put_id;
  }
  if (found.code() != StatusCode::kCorrupt) return Status::ok();
  FINCHKV_ASSIGN_OR_RETURN(const bool newly, quarantine(key.owner, key.id, put_id));
  if (newly) report.quarantined.push_back(key.id);
  return Status::ok();
}

// False when it is there already, or the entry has gone.
Result<bool> RocksDbHost::quarantine(std::string_view owner, const CacheId& id, const PutId& put_id) {
  const std::lock_guard lock(entry_mutex(id));
  FINCHKV_ASSIGN_OR_RETURN(auto access, read_access(owner, id));
  if (!access || access->put_id != put_id || access->quarantined) return false;
  access->quarantined = true;
  FINCHKV_RETURN_IF_ERROR(write_access(owner, id, *access, true, "putting an entry into quarantine"));
  return true;
}

Result<BackupReport> RocksDbHost::back_up(const std::string& directory, std::uint32_t keep) {
  FINCHKV_RETURN_IF_ERROR(prepare_to_write());
  BackupOptions options;
  options.keep = keep;
  // Not the database's own, which counts what is written to the store.
  options.env = options_.env != nullptr ? options_.env : rocksdb::Env::Default();
  options.while_heads_rest = [this](const std::function<void()>& call) { writes_.while_resting(call); };
  const auto database = this->database();
  return cache_store::back_up(*database->db, directory_, directory, options);
}

Result<StoreReport> RocksDbHost::report() {
  FINCHKV_RETURN_IF_ERROR(catch_up().status());
  StoreReport out;
  const std::uint64_t now = unix_ms_now();
  auto it = iterate(std::string(kAllHeads), prefix_end(std::string(kAllHeads)));
  for (; it->Valid(); it->Next()) {
    const auto key = parse_entry_key(it->key().ToStringView());
    if (!key) continue;
    const auto head = decode_head_unbound(as_byte_span(it->value().ToStringView()));
    FINCHKV_ASSIGN_OR_RETURN(auto access, read_access(key->owner, key->id));
    if (!head.is_ok() || (access && access->quarantined)) {
      ++out.total.unreadable;
      continue;
    }
    EntryInfo info = make_entry_info(key->id, *head);
    if (access) info.hits = access->hits;
    if (!is_reader()) {
      if (const auto live = ledger().find(account(key->owner), key->id)) info.hits = live->hits;
    }
    add_to_report(out, std::string(key->owner), info, now);
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(it->status(), directory_, "reading all heads"));
  out.total.disk_bytes = directory_bytes(directory_);
  Counters counters = counters_now();
  if (is_reader()) {
    FINCHKV_ASSIGN_OR_RETURN(const StoreSettings now_kept, kept_settings());
    FINCHKV_RETURN_IF_ERROR(limits_->set(now_kept));
    FINCHKV_ASSIGN_OR_RETURN(const auto record, read_record(std::string(kCountersKey)));
    if (record) counters = decode_counters(*record).value_or(Counters{});
  }
  out.lookups = counters.lookups;
  out.misses = counters.misses;
  out.evictions = counters.evictions;
  out.put_bytes = counters.put_bytes;
  out.written_bytes = counters.written_bytes;
  const Usage usage = ledger().usage();
  out.reserved_bytes = usage.reserved;
  out.held_bytes = usage.held;
  out.pinned_bytes = usage.pinned;
  out.settings = settings();
  return out;
}

}  // namespace finchkv::cache_store
