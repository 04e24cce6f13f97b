// Look-ups of readers beside a store's writer, in a file that the writer takes in.
//
// Internal to cache_store. A reader appends a record a look-up, if it may write to the directory; the writer renames
// the file, reads it and removes it. What is noted between the two is lost, which costs an entry some standing and
// nothing else. Records are checked one by one: what is damaged is skipped. Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "cache_store/identity.h"

namespace finchkv::cache_store {

struct SpooledLookup {
  std::string_view owner;
  CacheId id;
  std::uint64_t unix_ms = 0;
  bool hit = false;
};

/// Best effort, for a reader.
void spool_lookup(const std::string& directory, const SpooledLookup& lookup);

/// Calls `use` for every record and empties the spool: for the writer.
void take_spooled_lookups(const std::string& directory, const std::function<void(const SpooledLookup&)>& use);

}  // namespace finchkv::cache_store
