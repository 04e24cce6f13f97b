// Entries for tests that lose a process or a disk in the middle of puts: name i always has the same identity, and its
// version says which bytes are stored under it, so that whoever opens the store afterwards can tell which put it sees.
//
// Immutable, thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "cache_store/store.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store::testing {

constexpr std::uint32_t kAbsent = 0;  ///< as a version: the name has no entry

class VersionedEntries {
 public:
  using SpecOf = SetSpec (*)(std::uint32_t name);
  VersionedEntries(std::uint32_t names, SpecOf spec_of);

  [[nodiscard]] std::uint32_t names() const { return static_cast<std::uint32_t>(first_.size()); }
  [[nodiscard]] const CacheId& id(std::uint32_t name) const { return ids_[name]; }
  /// Replaces what is there; the label is the version.
  [[nodiscard]] PutRequest request(std::uint32_t name, std::uint32_t version) const;
  [[nodiscard]] bool holds(const KvSet& set, std::uint32_t name, std::uint32_t version) const;

 private:
  [[nodiscard]] KvSet set_of(std::uint32_t name, std::uint32_t version) const;

  SpecOf spec_of_;
  std::vector<PutRequest> first_;
  std::vector<CacheId> ids_;
};

}  // namespace finchkv::cache_store::testing
