// config: what a store may hold, for how long, and how durably; shown, or changed.

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "cache_store/settings.h"
#include "cli/entry_text.h"
#include "cli/output.h"
#include "cli/settings_text.h"
#include "cli/store_access.h"
#include "cli/units.h"
#include "cli/verbs.h"

namespace finchkv::cli {
namespace {

using cache_store::StoreSettings;

struct ConfigOptions {
  StoreOptions store;
  std::optional<std::string> max_bytes, tenant_max_bytes, shared_max_bytes, ttl, durability, sync_interval, lease,
      scrub_rate;
  std::optional<std::uint32_t> pinned_percent;
  std::vector<std::string> tenant_quotas;
  bool json = false;

  [[nodiscard]] bool changes() const {
    return max_bytes || tenant_max_bytes || shared_max_bytes || ttl || durability || sync_interval || lease ||
           scrub_rate || pinned_percent || !tenant_quotas.empty();
  }
};

Status set_size(const std::optional<std::string>& text, std::string_view option, std::uint64_t& setting) {
  if (!text) return Status::ok();
  FINCHKV_ASSIGN_OR_RETURN(setting, parse_size(*text, option));
  return Status::ok();
}

Status set_duration(const std::optional<std::string>& text, std::string_view option, std::uint64_t& setting) {
  if (!text) return Status::ok();
  FINCHKV_ASSIGN_OR_RETURN(setting, parse_duration_ms(*text, option));
  return Status::ok();
}

Status set_quota(const std::string& text, StoreSettings& settings) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos) {
    return Status::invalid_argument(
        fmt::format("--tenant-quota {}: write NAME=10G, or =10G for the default tenant", text));
  }
  const std::string name = text.substr(0, equals);
  const std::string value = text.substr(equals + 1);
  if (!name.empty()) {
    // The name alone is checked here: this verb needs no tenant's key.
    const cache_store::Tenant tenant{name, std::vector<std::byte>(32, std::byte{1})};
    if (const Status valid = tenant.validate(); !valid.is_ok()) {
      return Status::invalid_argument(fmt::format("--tenant-quota {}: {}", text, valid.message()));
    }
  }
  if (value == "default") {
    settings.tenant_quotas.erase(name);
    return Status::ok();
  }
  FINCHKV_ASSIGN_OR_RETURN(settings.tenant_quotas[name], parse_size(value, "--tenant-quota " + name + "="));
  return Status::ok();
}

Result<StoreSettings> changed(const ConfigOptions& o, StoreSettings settings) {
  FINCHKV_RETURN_IF_ERROR(set_size(o.max_bytes, "--max-bytes", settings.max_bytes));
  FINCHKV_RETURN_IF_ERROR(set_size(o.tenant_max_bytes, "--tenant-max-bytes", settings.tenant_max_bytes));
  FINCHKV_RETURN_IF_ERROR(set_size(o.shared_max_bytes, "--shared-max-bytes", settings.shared_max_bytes));
  FINCHKV_RETURN_IF_ERROR(set_size(o.scrub_rate, "--scrub-rate", settings.scrub_bytes_per_s));
  FINCHKV_RETURN_IF_ERROR(set_duration(o.ttl, "--ttl", settings.default_ttl_ms));
  FINCHKV_RETURN_IF_ERROR(set_duration(o.sync_interval, "--sync-interval", settings.sync_interval_ms));
  FINCHKV_RETURN_IF_ERROR(set_duration(o.lease, "--lease", settings.lease_ms));
  for (const std::string& quota : o.tenant_quotas) FINCHKV_RETURN_IF_ERROR(set_quota(quota, settings));
  if (o.pinned_percent) settings.pinned_percent = *o.pinned_percent;
  if (o.durability) {
    FINCHKV_ASSIGN_OR_RETURN(settings.durability, cache_store::parse_durability(*o.durability));
  }
  FINCHKV_RETURN_IF_ERROR(settings.validate());
  return settings;
}

Result<OpenStore> open_to_change(const ConfigOptions& o) {
  auto open = open_for_writing(o.store, /*create=*/false);
  if (open.status().code() != StatusCode::kNotFound) return open;
  // Limits are best set before the first entry.
  FINCHKV_ASSIGN_OR_RETURN(open, open_for_writing(o.store, /*create=*/true));
  print_note(fmt::format("{} is a new store", o.store.url));
  return open;
}

Status run_config(const ConfigOptions& o) {
  StoreSettings settings;
  if (o.changes()) {
    FINCHKV_RETURN_IF_ERROR(changed(o, {}).status());  // a typing error leaves no new store behind
    FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_to_change(o));
    FINCHKV_ASSIGN_OR_RETURN(settings, changed(o, open.host->settings()));
    FINCHKV_RETURN_IF_ERROR(open.host->set_settings(settings));
  } else {
    FINCHKV_ASSIGN_OR_RETURN(const OpenStore open, open_for_reading(o.store));
    settings = open.host->settings();
  }
  if (o.json) {
    print_json(settings_json(settings));
  } else {
    print_figures(settings_figures(settings));
  }
  return Status::ok();
}

void add_setting(CLI::App& verb, const char* name, std::optional<std::string>& value, const char* type,
                 const char* about) {
  verb.add_option(name, value, about)->type_name(type)->group("Settings");
}

}  // namespace

void add_config(CLI::App& app, Session& session) {
  auto options = std::make_shared<ConfigOptions>();
  ConfigOptions& o = *options;
  CLI::App* verb = app.add_subcommand("config", "Show or change a store's limits and how it keeps what it has");
  add_store_options(*verb, o.store, /*writes=*/true);
  add_setting(*verb, "--max-bytes", o.max_bytes, "SIZE", "Of all entries; beyond it others are evicted (0: no limit)");
  verb->add_option("--tenant-quota", o.tenant_quotas,
                   "NAME=SIZE for one tenant, =SIZE for the default one, NAME=default takes it back; may repeat")
      ->type_name("NAME=SIZE")
      ->allow_extra_args(false)
      ->group("Settings");
  add_setting(*verb, "--tenant-max-bytes", o.tenant_max_bytes, "SIZE", "Of each tenant without a quota of its own");
  add_setting(*verb, "--shared-max-bytes", o.shared_max_bytes, "SIZE", "Of the entries that all tenants share");
  verb->add_option("--pinned-percent", o.pinned_percent, "How much of each limit may be pinned")
      ->type_name("N")
      ->group("Settings");
  add_setting(*verb, "--ttl", o.ttl, "TIME", "How long new entries live (0: for ever)");
  add_setting(*verb, "--durability", o.durability, "NAME",
              "When a put is on the disk: sync (before it returns), interval, or none");
  add_setting(*verb, "--sync-interval", o.sync_interval, "TIME", "With interval: at most so much later");
  add_setting(*verb, "--lease", o.lease, "TIME", "A reader without progress for so long loses its entry's protection");
  add_setting(*verb, "--scrub-rate", o.scrub_rate, "SIZE",
              "Bytes per second that a long-running writer verifies (0: none)");
  verb->add_flag("--json", o.json, "One JSON object on standard output");
  verb->footer(
      "Examples:\n"
      "  finchkv config --store ./kv                      what is set\n"
      "  finchkv config --store ./kv --max-bytes 50G --ttl 30d\n"
      "  finchkv config --store ./kv --tenant-quota acme=10G --tenant-quota =5G\n\n"
      "Sizes: 500M, 50G, 1.5T, in 1024s. Times: 100ms, 30s, 15m, 12h, 30d. The settings are kept in the store and hold "
      "for whoever opens it; entries beyond a new limit are evicted at once.");
  verb->callback([&session, options] { session.action = [options] { return run_config(*options); }; });
}

}  // namespace finchkv::cli
