// What no entry names: blocks of puts that came to nothing, and entries past their time. While a store is open its
// ledger counts all of it.
#include <algorithm>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "cache_store/rocksdb_host.h"
#include "cache_store/rocksdb_status.h"
#include "cache_store/store_common.h"

namespace finchkv::cache_store {
namespace {

// What the tables of puts take on the disk, without reading them.
std::map<PutId, std::uint64_t> table_bytes(Database& database) {
  std::map<PutId, std::uint64_t> bytes;
  for (rocksdb::ColumnFamilyHandle* family : database.tables) {
    rocksdb::ColumnFamilyMetaData meta;
    database.db->GetColumnFamilyMetaData(family, &meta);
    for (const auto& level : meta.levels) {
      for (const auto& file : level.files) {
        if (const auto put_id = put_id_of_block_key(file.smallestkey)) bytes[*put_id] += file.size;
      }
    }
  }
  return bytes;
}

}  // namespace

// What a writer that was killed left: unfinished puts, and blocks that it deleted in a part of the log that was lost.
// Counted here, deleted by the next trim(), and counted for as long as that fails. `known` are the puts of all entries.
Status RocksDbHost::count_abandoned(std::vector<PutId> known) {
  const auto database = this->database();
  FINCHKV_ASSIGN_OR_RETURN(const std::set<PutId> with_blocks, puts_with_blocks(*database));
  std::ranges::sort(known);
  std::vector<PutId> unknown;
  std::ranges::set_difference(with_blocks, known, std::back_inserter(unknown));
  if (unknown.empty()) return Status::ok();
  // Heads have the last word, as in gc(): where one cannot be read here, nothing is taken for abandoned.
  FINCHKV_ASSIGN_OR_RETURN(const std::set<PutId> with_heads, puts_with_heads());
  const auto tables = table_bytes(*database);
  for (const PutId& put_id : unknown) {
    if (with_heads.contains(put_id)) continue;
    std::uint64_t bytes = 0;
    if (const auto table = tables.find(put_id); table != tables.end()) {
      bytes = table->second;
    } else {
      FINCHKV_ASSIGN_OR_RETURN(const BlockSum sum, sum_blocks(*database, put_id));
      bytes = sum.bytes;
    }
    FINCHKV_RETURN_IF_ERROR(ledger().add_abandoned(account(kNobodysOwner), put_id, bytes));
  }
  return Status::ok();
}

void RocksDbHost::keep_uncertain(WrittenPut put) {
  const std::lock_guard lock(claims_mutex_);
  const PutId put_id = put.access.put_id;
  uncertain_.insert_or_assign(put_id, std::move(put));
}

// A database that was opened again says what became of heads whose writing failed: they are there, and their puts are
// entries after all, or they are not, and never will be.
void RocksDbHost::settle_uncertain() {
  std::map<PutId, WrittenPut> puts;
  {
    const std::lock_guard lock(claims_mutex_);
    puts.swap(uncertain_);
  }
  for (auto& [put_id, put] : puts) {
    const std::lock_guard lock(entry_mutex(put.id));
    const auto now = read_access(put.owner, put.id);
    if (!now.is_ok()) {
      keep_uncertain(std::move(put));
    } else if (*now && (*now)->put_id == put_id) {
      (void)book(std::move(put)).is_ok();  // fails only to note a pin
    } else {
      put.room.abandon(put_id);
    }
  }
}

Result<AccessRecord> RocksDbHost::book(WrittenPut put) {
  // Not in the ledger when it was being evicted at this moment.
  if (put.in_front) (void)ledger().erase(put.in_front->account, put.in_front->id, put.in_front->put_id).is_ok();
  FINCHKV_ASSIGN_OR_RETURN(const EntryRecord booked,
                           put.room.commit(ledger_record(account(put.owner), put.id, put.access)));
  if (booked.pinned != put.access.pinned) {  // the cap on pins, or the pin of the one it replaces
    put.access.pinned = booked.pinned;
    FINCHKV_RETURN_IF_ERROR(write_access(put.owner, put.id, put.access, true, "noting a pin"));
  }
  return std::move(put.access);
}

Result<GcReport> RocksDbHost::gc() {
  FINCHKV_RETURN_IF_ERROR(prepare_to_write());
  GcReport report;
  FINCHKV_ASSIGN_OR_RETURN(report.expired, remove_expired());
  delete_released();
  const auto database = this->database();
  // In this order: a put whose blocks are seen is still claimed at the next step, or its head is written by the last.
  FINCHKV_ASSIGN_OR_RETURN(const std::set<PutId> with_blocks, puts_with_blocks(*database));
  std::multiset<PutId> claimed;
  {
    const std::lock_guard lock(claims_mutex_);
    claimed = claims_;
    for (const auto& [put_id, put] : uncertain_) claimed.insert(put_id);
  }
  FINCHKV_ASSIGN_OR_RETURN(const std::set<PutId> with_heads, puts_with_heads());
  for (const PutId& put_id : with_blocks) {
    if (claimed.contains(put_id) || with_heads.contains(put_id)) continue;
    FINCHKV_ASSIGN_OR_RETURN(const BlockSum sum, sum_blocks(*database, put_id));
    const BlocksToDelete abandoned{put_id, {}};
    FINCHKV_RETURN_IF_ERROR(delete_blocks(*database, {&abandoned, 1}));
    ++report.puts;
    report.blocks += sum.blocks;
    report.bytes += sum.bytes;
    small_deleted_bytes_ += sum.bytes;
  }
  if (report.puts != 0) {
    rocksdb::WriteBatch nothing;  // a synced write carries along the deletes before it
    nothing.Put(std::string(kCountersKey), encode_counters(counters_now())).PermitUncheckedError();
    FINCHKV_RETURN_IF_ERROR(write(nothing, true, "removing abandoned blocks"));
  }
  if (small_deleted_bytes_.exchange(0) != 0) FINCHKV_RETURN_IF_ERROR(reclaim(*database));
  return report;
}

Result<std::set<PutId>> RocksDbHost::puts_with_heads() {
  std::set<PutId> found;
  auto it = iterate(std::string(kAllHeads), prefix_end(std::string(kAllHeads)));
  for (; it->Valid(); it->Next()) {
    const std::string_view record = it->value().ToStringView();
    const auto head = decode_head_unbound(as_byte_span(record));
    if (head.is_ok()) {
      found.insert(head->put_id);
      continue;
    }
    if (head_is_as_written(as_byte_span(record))) {
      // A newer head names blocks that this program cannot see: removing anything would be a guess.
      return Status(head.status().code(),
                    fmt::format("nothing was removed from the store {}: a head in it is whole but cannot be read here, "
                                "and its blocks would look abandoned: {}",
                                directory_, head.status().message()));
    }
    // A damaged head's blocks are found through its access record, and stay until the entry is removed.
    if (const auto key = parse_entry_key(it->key().ToStringView())) {
      FINCHKV_ASSIGN_OR_RETURN(const auto access, read_access(key->owner, key->id));
      if (access) found.insert(access->put_id);
    }
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(it->status(), directory_, "reading all heads"));
  return found;
}

Result<std::uint64_t> RocksDbHost::remove_expired() {
  constexpr std::size_t kAtOnce = 256;
  std::uint64_t removed = 0;
  for (;;) {
    const auto expired = ledger().expired(unix_ms_now(), kAtOnce);
    for (const EntryRecord& record : expired) {
      const Removal removal{record.account, record.id, record.put_id, record.bytes};
      FINCHKV_RETURN_IF_ERROR(remove_head(removal, limits_->owner_of(record.account)).status());
      // Found again only if a put was faster, and then it is another put's.
      if (ledger().erase(record.account, record.id, record.put_id).is_ok()) ++removed;
    }
    if (expired.size() < kAtOnce) break;
  }
  delete_released();
  return removed;
}

}  // namespace finchkv::cache_store
