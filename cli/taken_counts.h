// What a verb that takes entries into a store says of them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cache_store/entry_copy.h"

namespace finchkv::cli {

using cache_store::Existing;
using cache_store::pack_entry;
using cache_store::take_entry;
using cache_store::Taken;
using cache_store::TakenEntry;

/// How many came, and how.
struct TakenCounts {
  std::uint64_t stored = 0, replaced = 0, already_there = 0, unpinned = 0;
  std::uint64_t bytes = 0;  ///< as stored

  void add(const TakenEntry& entry);
  /// "3 entries copied (12 MB), 1 was already there"
  [[nodiscard]] std::string text(std::string_view done) const;
};

}  // namespace finchkv::cli
