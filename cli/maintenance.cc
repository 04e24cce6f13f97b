// rm, gc and stats.

#include <algorithm>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "cli/output.h"
#include "cli/store_access.h"
#include "cli/verbs.h"

namespace finchkv::cli {
namespace {

struct MaintenanceOptions {
  StoreOptions store;
  std::vector<std::string> ids;
  bool json = false;
};

Status run_rm(const MaintenanceOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_writing(o.store, /*create=*/false));
  // All ids are looked up before any is removed: a slip of the pen removes nothing.
  std::vector<cache_store::CacheId> ids;
  for (const std::string& prefix : o.ids) {
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::CacheId id, open.store->resolve_prefix(prefix));
    ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());  // two prefixes may name one entry
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  Json removed = Json::array();
  for (const cache_store::CacheId& id : ids) {
    FINCHKV_RETURN_IF_ERROR(open.store->remove(id));
    removed.push_back(id.hex());
    if (!o.json) print(fmt::format("removed {}\n", id.hex()));
  }
  if (o.json) print_json({{"removed", removed}});
  return Status::ok();
}

Status run_gc(const MaintenanceOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_writing(o.store, /*create=*/false));
  FINCHKV_ASSIGN_OR_RETURN(const cache_store::GcReport report, open.host->gc());
  if (o.json) {
    print_json({{"puts", report.puts}, {"blocks", report.blocks}, {"bytes", report.bytes}});
  } else {
    print(fmt::format("{} abandoned puts removed: {} blocks, {}\n", report.puts, report.blocks,
                      format_bytes(report.bytes)));
  }
  return Status::ok();
}

Status run_stats(const MaintenanceOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_reading(o.store));
  FINCHKV_ASSIGN_OR_RETURN(const cache_store::StoreStats stats, open.store->stats());
  if (o.json) {
    print_json({{"entries", stats.entries},
                {"stored_bytes", stats.stored_bytes},
                {"raw_bytes", stats.raw_bytes},
                {"hits", stats.hits},
                {"unreadable", stats.unreadable},
                {"disk_bytes", stats.disk_bytes}});
    return Status::ok();
  }
  print(fmt::format("entries     {}\nstored      {}\ndecoded     {}\nhits        {}\nunreadable  {}\non disk     {}\n",
                    format_count(stats.entries), format_bytes(stats.stored_bytes), format_bytes(stats.raw_bytes),
                    format_count(stats.hits), format_count(stats.unreadable), format_bytes(stats.disk_bytes)));
  return Status::ok();
}

using Run = Status (*)(const MaintenanceOptions&);

CLI::App* add_verb(CLI::App& app, Session& session, const std::shared_ptr<MaintenanceOptions>& options,
                   const char* name, const char* about, bool writes, Run run) {
  CLI::App* verb = app.add_subcommand(name, about);
  add_store_options(*verb, options->store, writes);
  verb->add_flag("--json", options->json, "One JSON object on standard output");
  verb->callback([&session, options, run] { session.action = [options, run] { return run(*options); }; });
  return verb;
}

}  // namespace

void add_maintenance(CLI::App& app, Session& session) {
  auto rm = std::make_shared<MaintenanceOptions>();
  add_verb(app, session, rm, "rm", "Remove entries", /*writes=*/true, run_rm)
      ->add_option("id", rm->ids, "Ids, or enough of their first digits")
      ->type_name("ID")
      ->required();
  add_verb(app, session, std::make_shared<MaintenanceOptions>(), "gc", "Remove what interrupted writes left behind",
           /*writes=*/true, run_gc);
  add_verb(app, session, std::make_shared<MaintenanceOptions>(), "stats", "Counts and sizes of a store",
           /*writes=*/false, run_stats);
}

}  // namespace finchkv::cli
