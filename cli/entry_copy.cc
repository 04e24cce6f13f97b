#include "cli/entry_copy.h"

#include <utility>

#include <fmt/format.h>

#include "cli/output.h"

namespace finchkv::cli {

using cache_store::ArchivedEntry;
using cache_store::EntryInfo;
using cache_store::Sharing;

Result<ArchivedEntry> pack_entry(cache_store::Store& store, const EntryInfo& info) {
  ArchivedEntry out;
  FINCHKV_ASSIGN_OR_RETURN(out.packed, store.read_packed(info.id));
  out.label = info.label;
  out.expires_unix_ms = info.expires_unix_ms;
  out.pinned = info.pinned;
  out.sharing = info.sharing;
  return out;
}

Result<TakenEntry> take_entry(cache_store::Store& store, const ArchivedEntry& entry, cache_store::Provenance provenance,
                              Existing existing) {
  const bool shared = entry.sharing == Sharing::kShared;
  const cache_store::CacheId id =
      cache_store::cache_id(entry.packed.head.identity, shared ? cache_store::Tenant{} : store.tenant());
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
  cache_store::PutOptions put;
  put.provenance = provenance;
  put.label = entry.label;
  put.pinned = entry.pinned;
  put.sharing = entry.sharing;
  if (sound.code() == StatusCode::kCorrupt) {
    put.if_exists = cache_store::IfExists::kReplace;
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

void TakenCounts::add(const TakenEntry& entry) {
  switch (entry.how) {
    case Taken::kStored: ++stored; break;
    case Taken::kReplaced: ++replaced; break;
    case Taken::kAlreadyThere: ++already_there; break;
  }
  if (entry.how != Taken::kAlreadyThere) bytes += entry.info.stored_bytes;
  if (entry.unpinned) ++unpinned;
}

std::string TakenCounts::text(std::string_view done) const {
  std::string out = fmt::format("{} {} ({})", plural(stored + replaced, "entry", "entries"), done, format_bytes(bytes));
  if (replaced > 0) out += fmt::format(", {} in place of damaged ones", format_count(replaced));
  if (already_there > 0) {
    out += fmt::format(", {} {} already there", format_count(already_there), already_there == 1 ? "was" : "were");
  }
  if (unpinned > 0) out += fmt::format(", {} not pinned: too much is pinned", format_count(unpinned));
  return out;
}

}  // namespace finchkv::cli
