// verify: reads entries whole and checks every digest.

#include <memory>
#include <vector>

#include <fmt/format.h>

#include "cli/entry_text.h"
#include "cli/output.h"
#include "cli/store_access.h"
#include "cli/verbs.h"

namespace finchkv::cli {
namespace {

using cache_store::CacheId;

struct VerifyOptions {
  StoreOptions store;
  std::string id;
  bool quarantine = false;
  bool json = false;
};

struct Finding {
  CacheId id;
  std::string reason;
};

Json findings_json(const std::vector<Finding>& findings) {
  Json out = Json::array();
  for (const Finding& f : findings) out.push_back({{"id", f.id.hex()}, {"reason", f.reason}});
  return out;
}

Result<std::vector<CacheId>> ids_to_check(const VerifyOptions& o, cache_store::Store& store) {
  std::vector<CacheId> ids;
  if (!o.id.empty()) {
    FINCHKV_ASSIGN_OR_RETURN(const CacheId id, resolve_id(store, o.id));
    ids.push_back(id);
    return ids;
  }
  FINCHKV_ASSIGN_OR_RETURN(const Listing listing, list_all(store));
  for (const auto& entry : listing.entries) ids.push_back(entry.id);
  ids.insert(ids.end(), listing.unreadable.begin(), listing.unreadable.end());
  return ids;
}

Status run_verify(const VerifyOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open,
                           o.quarantine ? open_for_writing(o.store, /*create=*/false) : open_for_reading(o.store));
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<CacheId> ids, ids_to_check(o, *open.store));
  std::vector<Finding> damaged;
  // Neither sound nor damaged as far as this program can tell: a newer one's entry, or a disk that refuses.
  std::vector<Finding> unread;
  std::size_t sound = 0;
  for (const CacheId& id : ids) {
    const Status status = open.store->verify(id);
    if (status.is_ok()) {
      ++sound;
    } else if (status.code() == StatusCode::kCorrupt) {
      damaged.push_back({id, status.message()});
    } else if (status.code() != StatusCode::kNotFound) {
      unread.push_back({id, status.message()});
    } else if (!o.id.empty()) {
      return status;  // in a whole store, one that another process removed meanwhile is no concern
    }
  }
  Json quarantined = Json::array();
  if (o.quarantine && !damaged.empty()) {
    // A store takes what its own scrub finds, which needs no tenant's word for it.
    cache_store::ScrubOptions these;
    these.tenant = open.store->tenant().name;
    these.only.emplace();
    for (const Finding& f : damaged) these.only->push_back(f.id);
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::ScrubReport report, open.host->scrub(these));
    for (const CacheId& id : report.quarantined) quarantined.push_back(id.hex());
  }
  if (o.json) {
    Json out;
    out["checked"] = sound + damaged.size();
    out["corrupt"] = findings_json(damaged);
    out["unread"] = findings_json(unread);
    if (o.quarantine) out["quarantined"] = quarantined;
    print_json(out);
  } else {
    print(fmt::format("{} {} checked, {} damaged\n", sound + damaged.size(),
                      sound + damaged.size() == 1 ? "entry" : "entries", damaged.size()));
    if (!unread.empty()) print(fmt::format("{} could not be checked\n", unread.size()));
    for (const auto& id : quarantined) print(fmt::format("quarantined {}\n", id.get<std::string>()));
  }
  for (const Finding& f : damaged) print_error(f.reason);
  for (const Finding& f : unread) print_error(f.reason);
  // Told above, one line each.
  if (!damaged.empty()) return Status::corrupt("");
  return unread.empty() ? Status::ok() : Status::unavailable("");
}

}  // namespace

void add_verify(CLI::App& app, Session& session) {
  auto options = std::make_shared<VerifyOptions>();
  CLI::App* verb = app.add_subcommand("verify", "Check every stored byte of one entry, or of all");
  verb->add_option("id", options->id, "The entry's id, or enough of its first digits (all entries unless given)")
      ->type_name("ID");
  add_store_options(*verb, options->store, /*writes=*/true);
  verb->add_flag("--quarantine", options->quarantine,
                 "Take what is found damaged out of service (see `finchkv scrub`)");
  verb->add_flag("--json", options->json, "One JSON object on standard output");
  verb->footer(
      "Exit status 4 when something is damaged, 1 when something could not be checked. `finchkv ask` reads a damaged "
      "entry's document again.");
  verb->callback([&session, options] { session.action = [options] { return run_verify(*options); }; });
}

}  // namespace finchkv::cli
