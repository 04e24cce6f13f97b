// gc and scrub: what a store's operator lets run now and then.

#include <memory>
#include <string>

#include <fmt/format.h>

#include "cli/output.h"
#include "cli/store_access.h"
#include "cli/units.h"
#include "cli/verbs.h"

namespace finchkv::cli {
namespace {

struct MaintenanceOptions {
  StoreOptions store;
  std::string rate;
  bool json = false;
};

Status run_gc(const MaintenanceOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_writing(o.store, /*create=*/false));
  FINCHKV_ASSIGN_OR_RETURN(const cache_store::GcReport report, open.host->gc());
  if (o.json) {
    print_json(
        {{"puts", report.puts}, {"blocks", report.blocks}, {"bytes", report.bytes}, {"expired", report.expired}});
  } else {
    print(fmt::format("{} removed: {}, {}\n{} removed\n", plural(report.puts, "abandoned put", "abandoned puts"),
                      plural(report.blocks, "block", "blocks"), format_bytes(report.bytes),
                      plural(report.expired, "expired entry", "expired entries")));
  }
  return Status::ok();
}

Status run_scrub(const MaintenanceOptions& o) {
  cache_store::ScrubOptions how;
  if (!o.rate.empty()) {
    FINCHKV_ASSIGN_OR_RETURN(how.bytes_per_s, parse_size(o.rate, "--rate"));
  }
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_writing(o.store, /*create=*/false));
  FINCHKV_ASSIGN_OR_RETURN(const cache_store::ScrubReport report, open.host->scrub(how));
  Json quarantined = Json::array();
  for (const auto& id : report.quarantined) quarantined.push_back(id.hex());
  if (o.json) {
    print_json({{"entries", report.entries}, {"bytes", report.bytes}, {"quarantined", quarantined}});
  } else {
    print(fmt::format("{} verified, {}; {} damaged\n", plural(report.entries, "entry", "entries"),
                      format_bytes(report.bytes), report.quarantined.size()));
    for (const auto& id : report.quarantined) print(fmt::format("quarantined {}\n", id.hex()));
  }
  if (report.quarantined.empty()) return Status::ok();
  return Status::corrupt(
      fmt::format("{} in quarantine: not served any more; `finchkv ask` reads such a document "
                  "again, `finchkv rm` removes the entry",
                  report.quarantined.size() == 1 ? std::string("1 entry is")
                                                 : fmt::format("{} entries are", report.quarantined.size())));
}

CLI::App* add_verb(CLI::App& app, Session& session, const std::shared_ptr<MaintenanceOptions>& options,
                   const char* name, const char* about, Status (*run)(const MaintenanceOptions&)) {
  CLI::App* verb = app.add_subcommand(name, about);
  add_store_options(*verb, options->store, /*writes=*/true);
  verb->add_flag("--json", options->json, "One JSON object on standard output");
  verb->callback([&session, options, run] { session.action = [options, run] { return run(*options); }; });
  return verb;
}

}  // namespace

void add_maintenance(CLI::App& app, Session& session) {
  add_verb(app, session, std::make_shared<MaintenanceOptions>(), "gc",
           "Remove what interrupted writes left behind, and what has expired", run_gc);
  auto options = std::make_shared<MaintenanceOptions>();
  CLI::App* verb = add_verb(app, session, options, "scrub",
                            "Verify the digests of all that is stored, of every tenant; needs no key", run_scrub);
  verb->add_option("--rate", options->rate, "Bytes per second at most, as 50M (default: as fast as it goes)")
      ->type_name("SIZE");
  verb->footer(
      "Example:\n  finchkv scrub --store ./kv --rate 50M\n\n"
      "What is damaged goes into quarantine: it is not served any more. Exit status 4 when something was.");
}

}  // namespace finchkv::cli
