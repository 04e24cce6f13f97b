// stats: what a tenant has, and how the store under all tenants is doing.

#include <limits>
#include <memory>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "cli/entry_text.h"
#include "cli/output.h"
#include "cli/prometheus.h"
#include "cli/settings_text.h"
#include "cli/store_access.h"
#include "cli/units.h"
#include "cli/verbs.h"

namespace finchkv::cli {
namespace {

using cache_store::GroupStats;
using cache_store::StoreReport;
using cache_store::StoreStats;

struct StatsOptions {
  StoreOptions store;
  bool json = false;
  bool prometheus = false;
};

/// Of those that were counted; nullopt before the first.
std::optional<double> hit_rate(const StoreReport& r) {
  if (r.lookups == 0) return std::nullopt;
  return 1 - static_cast<double>(r.misses) / static_cast<double>(r.lookups);
}

/// Bytes written to files for each byte of an entry.
std::optional<double> write_amplification(const StoreReport& r) {
  if (r.put_bytes == 0) return std::nullopt;
  return static_cast<double>(r.written_bytes) / static_cast<double>(r.put_bytes);
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json group_json(const GroupStats& g) {
  return {{"entries", g.entries}, {"stored_bytes", g.stored_bytes}, {"raw_bytes", g.raw_bytes}, {"hits", g.hits}};
}

Json report_json(const StoreReport& r) {
  Json out;
  out["entries"] = r.total.entries;
  out["stored_bytes"] = r.total.stored_bytes;
  out["raw_bytes"] = r.total.raw_bytes;
  out["unreadable"] = r.total.unreadable;
  out["lookups"] = r.lookups;
  out["misses"] = r.misses;
  out["hit_rate"] = or_null(hit_rate(r));
  out["evictions"] = r.evictions;
  out["put_bytes"] = r.put_bytes;
  out["written_bytes"] = r.written_bytes;
  out["write_amplification"] = or_null(write_amplification(r));
  out["reserved_bytes"] = r.reserved_bytes;
  out["held_bytes"] = r.held_bytes;
  out["pinned_bytes"] = r.pinned_bytes;
  out["by_tenant"] = Json::object();
  for (const auto& [name, group] : r.by_tenant) out["by_tenant"][name] = group_json(group);
  out["by_model"] = Json::object();
  for (const auto& [name, group] : r.by_model) out["by_model"][name] = group_json(group);
  out["by_age"] = Json::array();
  for (const auto& [end_ms, group] : r.by_age) {
    Json age = group_json(group);
    const bool last = end_ms == std::numeric_limits<std::uint64_t>::max();
    age["up_to_ms"] = last ? Json(nullptr) : Json(end_ms);
    out["by_age"].push_back(std::move(age));
  }
  out["settings"] = settings_json(r.settings);
  return out;
}

Figures tenant_figures(const StoreStats& s) {
  return {{"entries", format_count(s.entries)},
          {"stored", format_bytes(s.stored_bytes)},
          {"decoded", format_bytes(s.raw_bytes)},
          {"hits", format_count(s.hits)},
          {"unreadable", format_count(s.unreadable)}};
}

std::string group_text(const GroupStats& g) {
  return fmt::format("{}, {}, {}", plural(g.entries, "entry", "entries"), format_bytes(g.stored_bytes),
                     plural(g.hits, "hit", "hits"));
}

std::string tenant_name(const std::string& name) {
  if (name.empty()) return "default tenant";
  return name == "*" ? "shared by all" : "tenant " + name;
}

std::string use_text(std::uint64_t used, std::uint64_t limit) {
  if (limit == 0) return fmt::format("{}, no limit", format_bytes(used));
  return fmt::format("{} of {} ({:.0f} %)", format_bytes(used), format_bytes(limit),
                     100 * static_cast<double>(used) / static_cast<double>(limit));
}

Figures report_figures(const StoreReport& r) {
  const auto rate = hit_rate(r);
  const auto amplification = write_amplification(r);
  Figures out = {
      {"all tenants", use_text(r.total.stored_bytes, r.settings.max_bytes)},
      {"look-ups", rate ? fmt::format("{}, {:.1f} % hits", format_count(r.lookups), 100 * *rate) : "none yet"},
      {"on disk", format_bytes(r.total.disk_bytes)},
      {"evictions", format_count(r.evictions)},
      {"written", amplification ? fmt::format("{} for {} put ({:.2f}x)", format_bytes(r.written_bytes),
                                              format_bytes(r.put_bytes), *amplification)
                                : format_bytes(r.written_bytes)},
  };
  if (r.pinned_bytes > 0) out.emplace_back("pinned", format_bytes(r.pinned_bytes));
  if (r.total.unreadable > 0) {
    out.emplace_back("unreadable", fmt::format("{}: `finchkv verify`", format_count(r.total.unreadable)));
  }
  for (const auto& [name, group] : r.by_tenant) out.emplace_back(tenant_name(name), group_text(group));
  for (const auto& [name, group] : r.by_model) out.emplace_back("model " + name.substr(0, 16), group_text(group));
  for (const auto& [end_ms, group] : r.by_age) {
    const bool last = end_ms == std::numeric_limits<std::uint64_t>::max();
    out.emplace_back(last ? std::string("older") : "up to " + duration_text(end_ms), group_text(group));
  }
  return out;
}

Status run_stats(const StatsOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(const OpenStore open, open_for_reading(o.store));
  FINCHKV_ASSIGN_OR_RETURN(const StoreReport report, open.host->report());
  if (o.prometheus) {
    print(prometheus_text(report, o.store.url));
    return Status::ok();
  }
  FINCHKV_ASSIGN_OR_RETURN(const StoreStats stats, open.store->stats());
  if (o.json) {
    print_json({{"entries", stats.entries},
                {"stored_bytes", stats.stored_bytes},
                {"raw_bytes", stats.raw_bytes},
                {"hits", stats.hits},
                {"unreadable", stats.unreadable},
                {"disk_bytes", report.total.disk_bytes},
                {"store", report_json(report)}});
    return Status::ok();
  }
  print_figures(tenant_figures(stats));
  print("\n");
  print_figures(report_figures(report));
  return Status::ok();
}

}  // namespace

void add_stats(CLI::App& app, Session& session) {
  auto options = std::make_shared<StatsOptions>();
  CLI::App* verb = app.add_subcommand("stats", "Counts, sizes and rates of a tenant and of the store under it");
  add_store_options(*verb, options->store, /*writes=*/false);
  auto* json = verb->add_flag("--json", options->json, "One JSON object on standard output");
  verb->add_flag("--prometheus", options->prometheus, "For Prometheus: text exposition format 0.0.4, all tenants")
      ->excludes(json);
  verb->footer(
      "Example, for the node exporter's textfile collector:\n"
      "  finchkv stats --store ./kv --prometheus > finchkv.prom.new && mv finchkv.prom.new finchkv.prom");
  verb->callback([&session, options] { session.action = [options] { return run_stats(*options); }; });
}

}  // namespace finchkv::cli
