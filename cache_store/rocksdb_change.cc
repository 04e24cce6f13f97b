// What changes an entry that is there: removal, label, pin, expiry, the wrapping of its key.
#include <utility>

#include "cache_store/head_codec.h"
#include "cache_store/key_ring.h"
#include "cache_store/label.h"
#include "cache_store/rocksdb_view.h"

namespace finchkv::cache_store {

Status RocksDbView::remove(const CacheId& id) {
  FINCHKV_RETURN_IF_ERROR(host_->prepare_to_write());
  {
    const std::lock_guard lock(host_->entry_mutex(id));
    std::string owner = as_.tenant().name;
    FINCHKV_ASSIGN_OR_RETURN(const bool may_own, may_look_under(owner));
    FINCHKV_ASSIGN_OR_RETURN(RocksDbHost::EntryRecords there, host_->read_records(owner, id));
    if (!there.head || !may_own) {
      owner = kSharedOwner;
      FINCHKV_ASSIGN_OR_RETURN(there, host_->read_records(owner, id));
    }
    if (!there.head) return no_such_entry(id);
    FINCHKV_RETURN_IF_ERROR(about_entry(id, as_.may_change(owner)));
    rocksdb::WriteBatch batch;
    host_->add_removal(owner, id, there.head, batch);
    FINCHKV_RETURN_IF_ERROR(about_entry(id, host_->write(batch, true, "removing an entry")));
    // Not in the ledger when it was being evicted at this moment.
    if (there.access) (void)host_->ledger().erase(host_->account(owner), id, there.access->put_id).is_ok();
  }
  host_->delete_released();
  return Status::ok();
}

Status RocksDbView::change_access(const CacheId& id, std::string_view doing,
                                  const std::function<Status(const std::string& owner, AccessRecord&)>& change) {
  FINCHKV_RETURN_IF_ERROR(host_->prepare_to_write());
  const std::lock_guard lock(host_->entry_mutex(id));
  FINCHKV_ASSIGN_OR_RETURN(const Found found, look_up(id, Which::kFirst));
  FINCHKV_RETURN_IF_ERROR(about_entry(id, as_.may_change(found.owner)));
  FINCHKV_ASSIGN_OR_RETURN(auto access, host_->read_access(found.owner, id));
  if (!access) return no_such_entry(id);
  FINCHKV_RETURN_IF_ERROR(about_entry(id, change(found.owner, *access)));
  return about_entry(id, host_->write_access(found.owner, id, *access, true, doing));
}

Status RocksDbView::set_label(const CacheId& id, const std::string& label) {
  FINCHKV_RETURN_IF_ERROR(check_label(label));
  return change_access(id, "changing a label", [&](const std::string& owner, AccessRecord& access) -> Status {
    access.label = label;
    if (!access.sealed_label) return Status::ok();
    FINCHKV_ASSIGN_OR_RETURN(const Found found, look_up_under(owner, id));
    FINCHKV_ASSIGN_OR_RETURN(access.label, seal_label(label, found.head, as_.tenant().name, as_.keys_of(owner)));
    return Status::ok();
  });
}

Status RocksDbView::set_pinned(const CacheId& id, bool pinned) {
  return change_access(id, "changing a pin", [&](const std::string& owner, AccessRecord& access) {
    access.pinned = pinned;
    return host_->ledger().set_pinned(host_->account(owner), id, pinned);
  });
}

Status RocksDbView::set_expiry(const CacheId& id, std::uint64_t unix_ms) {
  return change_access(id, "changing an expiry", [&](const std::string& owner, AccessRecord& access) {
    access.expires_unix_ms = unix_ms;
    return host_->ledger().set_expiry(host_->account(owner), id, unix_ms);
  });
}

Result<std::uint64_t> RocksDbView::rewrap_keys() {
  FINCHKV_RETURN_IF_ERROR(host_->prepare_to_write());
  if (!as_.options().keys)
    return Status::invalid_argument("there is no key to wrap with: give the tenant's encryption keys");
  std::uint64_t changed = 0;
  std::optional<CacheId> after;
  do {
    FINCHKV_ASSIGN_OR_RETURN(const EntryPage page, list(after, kMaxPage));
    for (const EntryInfo& entry : page.entries) {
      if (!entry.sealed) continue;
      const std::lock_guard lock(host_->entry_mutex(entry.id));
      auto found = look_up_under(as_.tenant().name, entry.id);
      if (!found.is_ok()) continue;  // it went away meanwhile
      auto renewed = rewrapped(found->head, as_.tenant().name, *as_.options().keys);
      if (!renewed.is_ok()) return about_entry(entry.id, renewed.status());
      if (!*renewed) continue;
      const auto record = replace_wrapped_key(as_byte_span(*found->record), (*renewed)->wrapped_key);
      rocksdb::WriteBatch batch;
      batch.Put(head_key(as_.tenant().name, entry.id), as_text(record)).PermitUncheckedError();
      FINCHKV_RETURN_IF_ERROR(about_entry(entry.id, host_->write(batch, true, "rewrapping a key")));
      ++changed;
    }
    after = page.next;
  } while (after);
  return changed;
}

}  // namespace finchkv::cache_store
