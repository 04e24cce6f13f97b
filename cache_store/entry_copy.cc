#include "cache_store/entry_copy.h"

#include <utility>

namespace finchkv::cache_store {

Result<ArchivedEntry> pack_entry(Store& store, const EntryInfo& info) {
  ArchivedEntry out;
  FINCHKV_ASSIGN_OR_RETURN(out.packed, store.read_packed(info.id));
  out.label = info.label;
  out.expires_unix_ms = info.expires_unix_ms;
  out.pinned = info.pinned;
  out.sharing = info.sharing;
  return out;
}

Result<TakenEntry> take_entry(Store& store, const ArchivedEntry& entry, Provenance provenance, Existing existing) {
  const bool shared = entry.sharing == Sharing::kShared;
  const CacheId id = cache_id(entry.packed.head.identity, shared ? Tenant{} : store.tenant());
  TakenEntry out;
  auto there = store.find(id);
  Status sound = there.status();
  const bool same = sound.is_ok() && there->sharing == entry.sharing;
  if (same && existing == Existing::kVerify) sound = store.verify(id);
  if (same && sound.is_ok()) {
    out.info = *std::move(there);
    out.how = Taken::kAlreadyThere;
    return out;
  }
  if (!sound.is_ok() && sound.code() != StatusCode::kNotFound && sound.code() != StatusCode::kCorrupt) return sound;
  PutOptions put;
  put.provenance = provenance;
  put.label = entry.label;
  put.pinned = entry.pinned;
  put.sharing = entry.sharing;
  if (sound.code() == StatusCode::kCorrupt) {
    put.if_exists = IfExists::kReplace;
    out.how = Taken::kReplaced;
  }
  FINCHKV_ASSIGN_OR_RETURN(out.info, store.put_packed(entry.packed, put));
  out.unpinned = entry.pinned && !out.info.pinned;
  // The time it goes is kept, not how long it lives; what never goes does not begin to.
  if (out.info.expires_unix_ms != entry.expires_unix_ms) {
    FINCHKV_RETURN_IF_ERROR(store.set_expiry(id, entry.expires_unix_ms));
    out.info.expires_unix_ms = entry.expires_unix_ms;
  }
  return out;
}

}  // namespace finchkv::cache_store
