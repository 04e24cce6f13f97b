// Taking an entry from outside into a store, with what its old store kept about it.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "cache_store/archive.h"
#include "cache_store/store.h"

namespace finchkv::cli {

/// An entry with everything that goes along when it moves: label, pin, expiry, who may see it.
[[nodiscard]] Result<cache_store::ArchivedEntry> pack_entry(cache_store::Store& store,
                                                            const cache_store::EntryInfo& info);

enum class Taken : std::uint8_t { kStored, kReplaced, kAlreadyThere };

struct TakenEntry {
  cache_store::EntryInfo info;
  Taken how = Taken::kStored;
  bool unpinned = false;  ///< it was pinned, and the store takes no more pins
};
/// What is there already: believed unless the store itself knows better, or read whole first.
enum class Existing : std::uint8_t { kBelieve, kVerify };
/// An entry that is there already stays as it is; a damaged one is replaced.
[[nodiscard]] Result<TakenEntry> take_entry(cache_store::Store& store, const cache_store::ArchivedEntry& entry,
                                            cache_store::Provenance provenance, Existing existing);

/// How many came, and how.
struct TakenCounts {
  std::uint64_t stored = 0, replaced = 0, already_there = 0, unpinned = 0;
  std::uint64_t bytes = 0;  ///< as stored

  void add(const TakenEntry& entry);
  /// "3 entries copied (12 MB), 1 was already there"
  [[nodiscard]] std::string text(std::string_view done) const;
};

}  // namespace finchkv::cli
