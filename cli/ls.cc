// ls: a table of what a store holds.

#include <algorithm>
#include <array>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "cli/entry_text.h"
#include "cli/output.h"
#include "cli/store_access.h"
#include "cli/verbs.h"

namespace finchkv::cli {
namespace {

using cache_store::EntryInfo;

struct Column {
  std::string_view title;
  bool right;
};
constexpr std::array<Column, 11> kColumns = {{{"ID", false},
                                              {"POLICY", false},
                                              {"KEEP", true},
                                              {"TOKENS", true},
                                              {"RATIO", true},
                                              {"SIZE", true},
                                              {"AGE", true},
                                              {"HITS", true},
                                              {"EXPIRES", true},
                                              {"MARKS", false},
                                              {"LABEL", false}}};
constexpr std::size_t kMarks = 9;
using Row = std::array<std::string, kColumns.size()>;

Row make_row(const EntryInfo& e) {
  return {short_id(e.id.hex()),
          e.identity.policy,
          format_count(max_kept(e)),
          format_count(e.identity.doc_tokens),
          format_ratio(entry_ratio(e)),
          format_bytes(e.stored_bytes),
          format_age(e.created_unix_ms),
          format_count(e.hits),
          e.expires_unix_ms == 0 ? "" : format_until(e.expires_unix_ms),
          entry_marks(e),
          printable(e.label, /*one_line=*/true)};
}

/// Columns that say nothing of any entry are left out.
void print_table(const std::vector<Row>& rows) {
  std::array<std::size_t, kColumns.size()> widths{};
  for (std::size_t c = 0; c < kColumns.size(); ++c) {
    for (const Row& row : rows) widths[c] = std::max(widths[c], display_width(row[c]));
    if (widths[c] != 0) widths[c] = std::max(widths[c], kColumns[c].title.size());
  }
  const auto print_row = [&](const Row& row) {
    std::string line;
    for (std::size_t c = 0; c < kColumns.size(); ++c) {
      if (widths[c] == 0) continue;
      line += pad(row[c], widths[c], kColumns[c].right);
      line += "  ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    print(line + "\n");
  };
  Row titles;
  for (std::size_t c = 0; c < kColumns.size(); ++c) titles[c] = kColumns[c].title;
  print_row(titles);
  for (const Row& row : rows) print_row(row);
}

Status run_ls(const StoreOptions& options, bool json) {
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_reading(options));
  FINCHKV_ASSIGN_OR_RETURN(Listing listing, list_all(*open.store));
  FINCHKV_ASSIGN_OR_RETURN(Listing shared, list_all_shared(*open.store));
  std::move(shared.entries.begin(), shared.entries.end(), std::back_inserter(listing.entries));
  std::stable_sort(listing.entries.begin(), listing.entries.end(),
                   [](const EntryInfo& a, const EntryInfo& b) { return a.id < b.id; });
  if (json) {
    Json out;
    out["entries"] = Json::array();
    for (const EntryInfo& entry : listing.entries) out["entries"].push_back(entry_json(entry));
    out["unreadable"] = Json::array();
    for (const auto& id : listing.unreadable) out["unreadable"].push_back(id.hex());
    out["unreadable_shared"] = Json::array();
    for (const auto& id : shared.unreadable) out["unreadable_shared"].push_back(id.hex());
    print_json(out);
    return Status::ok();
  }
  if (listing.entries.empty() && listing.unreadable.empty() && shared.unreadable.empty()) {
    print_note(fmt::format("{} holds no entries", options.url));
    return Status::ok();
  }
  std::vector<Row> rows;
  for (const EntryInfo& entry : listing.entries) rows.push_back(make_row(entry));
  for (const auto& id : listing.unreadable) {
    Row row;
    row[0] = short_id(id.hex());
    row.back() = "unreadable: `finchkv verify` says what is wrong, `finchkv rm` removes it";
    rows.push_back(std::move(row));
  }
  for (const auto& id : shared.unreadable) {
    Row row;
    row[0] = short_id(id.hex());
    row[kMarks] = "S";
    row.back() = "unreadable: `finchkv scrub` checks it, `finchkv rm --publisher` removes it";
    rows.push_back(std::move(row));
  }
  print_table(rows);
  return Status::ok();
}

}  // namespace

void add_ls(CLI::App& app, Session& session) {
  struct Options {
    StoreOptions store;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand(
      "ls", "List what is stored: the tenant's own entries, and those that are shared with all tenants");
  add_store_options(*verb, options->store, /*writes=*/false);
  verb->add_flag("--json", options->json,
                 "One JSON object on standard output: {\"entries\": [...]}; \"shared\" says whose");
  verb->footer(
      "Marks: P pinned, E encrypted at rest, S shared with all tenants, I imported or put by a client.\n"
      "Example:\n  finchkv ls --store ./kv");
  verb->callback([&session, options] { session.action = [options] { return run_ls(options->store, options->json); }; });
}

}  // namespace finchkv::cli
