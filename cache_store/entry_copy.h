// Taking an entry from one store into another, with what the old one kept about it apart from its content.
//
// Functions without state; thread-safe as the stores are. Left out: how entries travel (archive.h, or directly).
#pragma once

#include <cstdint>

#include "base/status.h"
#include "cache_store/archive.h"
#include "cache_store/store.h"

namespace finchkv::cache_store {

/// An entry with everything that goes along when it moves: label, pin, expiry, who may see it.
[[nodiscard]] Result<ArchivedEntry> pack_entry(Store& store, const EntryInfo& info);

enum class Taken : std::uint8_t { kStored, kReplaced, kAlreadyThere };

struct TakenEntry {
  EntryInfo info;
  Taken how = Taken::kStored;
  bool unpinned = false;  ///< it was pinned, and the store takes no more pins
};
/// What is there already: believed unless the store itself knows better, or read whole first.
enum class Existing : std::uint8_t { kBelieve, kVerify };
/// An entry that is there already stays as it is; a damaged one is replaced.
[[nodiscard]] Result<TakenEntry> take_entry(Store& store, const ArchivedEntry& entry, Provenance provenance,
                                            Existing existing);

}  // namespace finchkv::cache_store
