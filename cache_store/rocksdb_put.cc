// Putting an entry: room, blocks, and last the head.
#include <utility>

#include "cache_store/label.h"
#include "cache_store/rocksdb_view.h"

namespace finchkv::cache_store {

Result<std::optional<EntryInfo>> RocksDbView::existing(const std::string& owner, const CacheId& id) {
  auto found = look_up_under(owner, id);
  if (found.is_ok()) return std::optional(std::move(found->info));
  const StatusCode code = found.status().code();
  // One of a newer version is not ours to touch.
  if (code != StatusCode::kCorrupt && code != StatusCode::kNotFound) return found.status();
  return std::optional<EntryInfo>();
}

Result<EntryInfo> RocksDbView::store(const PackedEntry& packed, const PutOptions& options) {
  for (;;) {
    auto stored = try_store(packed, options);
    // Another put of this id was faster, and its entry has gone again: then it is this one's turn.
    if (stored.status().code() != StatusCode::kNotFound) return stored;
  }
}

Result<EntryInfo> RocksDbView::try_store(const PackedEntry& packed, const PutOptions& options) {
  const std::string owner = as_.owner_for(options.sharing);
  const CacheId id = cache_id(packed.head.identity, as_.ids_of(owner));
  FINCHKV_ASSIGN_OR_RETURN(const RocksDbHost::EntryRecords before, host_->read_records(owner, id));
  if (options.if_exists == IfExists::kKeep) {
    FINCHKV_ASSIGN_OR_RETURN(auto there, existing(owner, id));
    if (there) return *std::move(there);
  }
  const KeyRing* const keys = as_.keys_of(owner);
  auto reservation = host_->reserve(owner, finished_bytes(packed, keys != nullptr));
  if (!reservation.is_ok()) return about_entry(id, reservation.status());
  const FinishOptions how{.put_id = PutId::random(),
                          .now_unix_ms = unix_ms_now(),
                          .provenance = options.provenance,
                          .tenant = as_.tenant().name,
                          .keys = keys,
                          .own_table_bytes = host_->options().large_put_bytes};
  auto encoded = finish_entry(packed, how);
  if (!encoded.is_ok()) return about_entry(id, encoded.status());
  const RocksDbHost::Claim claim(*host_, how.put_id);
  host_->step(PutStep::kClaimed);
  if (const Status written = host_->write_put(*encoded); !written.is_ok()) {
    host_->note_layout(encoded->head);
    reservation->abandon(how.put_id);
    host_->delete_released();
    return about_entry(id, written);
  }
  host_->step(PutStep::kBlocksWritten);
  return commit(id, options, *encoded, before.put_id(), *std::move(reservation));
}

Result<AccessRecord> RocksDbView::first_access(const PutOptions& options, const EncodedEntry& entry) const {
  const std::uint64_t now = unix_ms_now();
  AccessRecord access;
  access.put_id = entry.head.put_id;
  access.bytes = entry.block_bytes;
  access.cost_ms = entry.head.compress_ms;
  access.created_unix_ms = entry.head.created_unix_ms;
  access.last_used_unix_ms = now;
  access.expires_unix_ms = expiry_of(options, host_->settings(), now);
  access.pinned = options.pinned;
  access.sealed_label = entry.head.sealed;
  access.label = options.label;
  if (access.sealed_label) {
    FINCHKV_ASSIGN_OR_RETURN(access.label,
                             seal_label(options.label, entry.head, as_.tenant().name, as_.options().keys.get()));
  }
  return access;
}

// A named tenant's first entry says under which key it is.
Status RocksDbView::check_tenant(std::string_view owner, rocksdb::WriteBatch& batch) {
  if (owner.empty() || owner == kSharedOwner) return Status::ok();
  const std::string key = tenant_key(as_.tenant());
  FINCHKV_ASSIGN_OR_RETURN(const Record check, host_->read_record(key));
  if (check && *check != tenant_check(as_.tenant())) return wrong_tenant_key(as_.tenant());
  batch.Put(key, tenant_check(as_.tenant())).PermitUncheckedError();
  return Status::ok();
}

// The default tenant's own entry would hide the shared one that is to take its place: it goes with the same write.
Result<std::optional<Removal>> RocksDbView::add_removal_in_front(const std::string& owner, const CacheId& id,
                                                                 const PutOptions& options,
                                                                 rocksdb::WriteBatch& batch) {
  const std::string& own = as_.tenant().name;
  if (owner != kSharedOwner || options.if_exists != IfExists::kReplace) return std::optional<Removal>();
  FINCHKV_ASSIGN_OR_RETURN(const bool may_own, may_look_under(own));
  FINCHKV_ASSIGN_OR_RETURN(const RocksDbHost::EntryRecords there, host_->read_records(own, id));
  if (!may_own || !there.head) return std::optional<Removal>();
  host_->add_removal(own, id, there.head, batch);
  return std::optional(Removal{.account = host_->account(own), .id = id, .put_id = *there.put_id()});
}

// Writes head and access record and books the entry, all under the entry's lock; nullopt when another put of the same
// id was faster. What does not come to its head is abandoned.
Result<std::optional<AccessRecord>> RocksDbView::write_head(const std::string& owner, const CacheId& id,
                                                            const PutOptions& options, const EncodedEntry& entry,
                                                            const std::optional<PutId>& before,
                                                            Reservation& reservation) {
  rocksdb::WriteBatch batch;
  const std::lock_guard lock(host_->entry_mutex(id));
  auto access = first_access(options, entry);
  // Put ids, not whole heads: rewrapping a key changes a head, and is no other put.
  const auto now = host_->read_records(owner, id);
  const auto in_front = add_removal_in_front(owner, id, options, batch);
  Status ready = access.status();
  if (ready.is_ok()) ready = now.status();
  if (ready.is_ok()) ready = in_front.status();
  if (ready.is_ok()) ready = check_tenant(owner, batch);
  const bool faster = ready.is_ok() && now->head && now->put_id() != before;
  if (!ready.is_ok() || faster) {
    host_->note_layout(entry.head);
    reservation.abandon(entry.head.put_id);
  }
  FINCHKV_RETURN_IF_ERROR(ready);
  if (faster) return std::optional<AccessRecord>();  // the same inputs, so as good

  batch.Put(access_key(owner, id), encode_access(*access)).PermitUncheckedError();
  batch.Put(head_key(owner, id), as_text(entry.head_record)).PermitUncheckedError();
  RocksDbHost::WrittenPut put{owner, id, *std::move(access), *in_front, std::move(reservation)};
  if (const Status written = host_->write(batch, true, "writing an entry's head"); !written.is_ok()) {
    host_->note_layout(entry.head);
    host_->keep_uncertain(std::move(put));
    return written;
  }
  if (now->head) host_->note_layout_of(*now->head);
  FINCHKV_ASSIGN_OR_RETURN(AccessRecord booked, host_->book(std::move(put)));
  return std::optional(std::move(booked));
}

Result<EntryInfo> RocksDbView::commit(const CacheId& id, const PutOptions& options, const EncodedEntry& entry,
                                      const std::optional<PutId>& before, Reservation reservation) {
  const std::string owner = as_.owner_for(options.sharing);
  auto access = write_head(owner, id, options, entry, before, reservation);
  if (access.is_ok() && *access) host_->step(PutStep::kHeadWritten);
  host_->delete_released();
  if (!access.is_ok()) return about_entry(id, access.status());
  if (!*access) {
    FINCHKV_ASSIGN_OR_RETURN(Found theirs, look_up_under(owner, id));
    return std::move(theirs.info);
  }
  host_->note_put(entry.block_bytes);
  host_->step(PutStep::kOldBlocksRemoved);
  AccessRecord shown = **std::move(access);
  shown.sealed_label = false;
  shown.label = options.label;
  return info_of(owner, id, entry.head, shown);
}

}  // namespace finchkv::cache_store
