#include "cli/taken_counts.h"

#include <fmt/format.h>

#include "cli/output.h"

namespace finchkv::cli {

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
