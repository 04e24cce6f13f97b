// rm: removes entries by id or by what they were made from.

#include <memory>
#include <vector>

#include <fmt/format.h>

#include "cli/output.h"
#include "cli/selection.h"
#include "cli/store_access.h"
#include "cli/verbs.h"

namespace finchkv::cli {
namespace {

constexpr char kAllFlag[] = "--all-of-tenant";

struct RmOptions {
  StoreOptions store;
  Selection selection;
  bool dry_run = false;
  bool json = false;
};

struct Leaving {
  cache_store::CacheId id;
  std::uint64_t bytes = 0;
  std::string label;
};

std::vector<Leaving> leaving(const Selected& selected) {
  std::vector<Leaving> out;
  for (const auto& entry : selected.entries) out.push_back({entry.id, entry.stored_bytes, entry.label});
  for (const auto& id : selected.unreadable) out.push_back({id, 0, "unreadable"});
  return out;
}

void tell_plan(const std::vector<Leaving>& entries, bool json) {
  std::uint64_t bytes = 0;
  for (const Leaving& entry : entries) bytes += entry.bytes;
  if (json) {
    Json list = Json::array();
    for (const Leaving& e : entries) list.push_back({{"id", e.id.hex()}, {"bytes", e.bytes}, {"label", e.label}});
    print_json({{"would_remove", list}, {"bytes", bytes}});
    return;
  }
  for (const Leaving& e : entries) {
    print(fmt::format("would remove {}  {}  {}\n", e.id.hex(), pad(format_bytes(e.bytes), 7, true),
                      printable(e.label, /*one_line=*/true)));
  }
  print_note(fmt::format("{} would go, {}", plural(entries.size(), "entry", "entries"), format_bytes(bytes)));
}

Status run_rm(const RmOptions& o) {
  FINCHKV_RETURN_IF_ERROR(check_selection(o.selection, kAllFlag));
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open,
                           o.dry_run ? open_for_reading(o.store) : open_for_writing(o.store, /*create=*/false));
  // Everything is looked up before anything is removed: a slip of the pen removes nothing.
  FINCHKV_ASSIGN_OR_RETURN(const Selected selected, select_entries(o.selection, *open.store));
  const std::vector<Leaving> entries = leaving(selected);
  if (o.dry_run) {
    tell_plan(entries, o.json);
    return Status::ok();
  }
  Json removed = Json::array();
  std::uint64_t bytes = 0;
  for (const Leaving& entry : entries) {
    const Status status = open.store->remove(entry.id);
    if (status.code() == StatusCode::kNotFound) continue;  // it expired or was evicted meanwhile
    FINCHKV_RETURN_IF_ERROR(status);
    bytes += entry.bytes;
    removed.push_back(entry.id.hex());
    if (!o.json) print(fmt::format("removed {}\n", entry.id.hex()));
  }
  if (o.json) {
    print_json({{"removed", removed}, {"bytes", bytes}});
  } else if (removed.empty()) {
    print_note("nothing matches: nothing was removed");
  } else if (removed.size() > 1) {
    print_note(fmt::format("{} entries, {}", removed.size(), format_bytes(bytes)));
  }
  return Status::ok();
}

}  // namespace

void add_rm(CLI::App& app, Session& session) {
  auto options = std::make_shared<RmOptions>();
  CLI::App* verb = app.add_subcommand("rm", "Remove entries");
  verb->add_option("id", options->selection.ids, "Ids, or enough of their first digits")->type_name("ID");
  add_selection_options(*verb, options->selection, kAllFlag);
  add_store_options(*verb, options->store, /*writes=*/true);
  add_publisher_option(*verb, options->store);
  verb->add_flag("--dry-run", options->dry_run, "Only say what would go, and how big it is");
  verb->add_flag("--json", options->json, "One JSON object on standard output");
  verb->footer(
      "Examples:\n"
      "  finchkv rm 3fa9 71c2 --store ./kv\n"
      "  finchkv rm --label 'report-2023*' --store ./kv --dry-run\n"
      "  finchkv rm --model old.gguf --store ./kv          everything that this model read\n"
      "  finchkv rm --model m.gguf --doc book.txt --store ./kv\n\n"
      "Conditions narrow: an entry goes when all of them hold. Nothing is asked: try --dry-run first. --doc finds the "
      "entries that were read with the instruction, system message and template given here (by default the same as "
      "`finchkv ask`'s).");
  verb->callback([&session, options] { session.action = [options] { return run_rm(*options); }; });
}

}  // namespace finchkv::cli
