// What is said of a stored entry, in JSON and for people.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "cache_store/store.h"
#include "cli/output.h"

namespace finchkv::cli {

[[nodiscard]] std::uint32_t max_kept(const cache_store::EntryInfo& entry);  ///< the largest count of its layers
[[nodiscard]] double entry_ratio(const cache_store::EntryInfo& entry);

[[nodiscard]] Json entry_json(const cache_store::EntryInfo& entry);

/// Names and values, in the order to print: what was read, how, what was kept, who made it.
using Figures = std::vector<std::pair<std::string, std::string>>;
void print_figures(const Figures& figures);
[[nodiscard]] Figures entry_figures(const cache_store::EntryInfo& entry);

/// P pinned, E encrypted at rest, S shared, I imported or put by a client; empty for none of them.
[[nodiscard]] std::string entry_marks(const cache_store::EntryInfo& entry);

struct Listing {
  std::vector<cache_store::EntryInfo> entries;
  std::vector<cache_store::CacheId> unreadable;
};
/// All pages of a tenant's own entries.
[[nodiscard]] Result<Listing> list_all(cache_store::Store& store);
/// All pages of what is shared with all tenants.
[[nodiscard]] Result<Listing> list_all_shared(cache_store::Store& store);

}  // namespace finchkv::cli
