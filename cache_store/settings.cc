#include "cache_store/settings.h"

#include <array>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace finchkv::cache_store {
namespace {

using Json = nlohmann::json;

constexpr std::array<std::string_view, 3> kDurabilities = {"sync", "interval", "none"};
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 62;
constexpr std::uint64_t kLongestMs = 1000ULL * 60 * 60 * 24 * 366 * 100;

// The numbers by name: one list for writing, reading and checking.
constexpr std::array<std::pair<const char*, std::uint64_t StoreSettings::*>, 7> kNumbers = {{
    {"max_bytes", &StoreSettings::max_bytes},
    {"tenant_max_bytes", &StoreSettings::tenant_max_bytes},
    {"shared_max_bytes", &StoreSettings::shared_max_bytes},
    {"default_ttl_ms", &StoreSettings::default_ttl_ms},
    {"sync_interval_ms", &StoreSettings::sync_interval_ms},
    {"lease_ms", &StoreSettings::lease_ms},
    {"scrub_bytes_per_s", &StoreSettings::scrub_bytes_per_s},
}};

Status set_one(StoreSettings& settings, const std::string& name, const Json& value) {
  for (const auto& [known, member] : kNumbers) {
    if (name == known) {
      settings.*member = value.get<std::uint64_t>();
      return Status::ok();
    }
  }
  if (name == "pinned_percent") {
    settings.pinned_percent = value.get<std::uint32_t>();
  } else if (name == "durability") {
    FINCHKV_ASSIGN_OR_RETURN(settings.durability, parse_durability(value.get<std::string>()));
  } else if (name == "tenant_quotas") {
    for (const auto& [tenant, bytes] : value.items()) settings.tenant_quotas[tenant] = bytes.get<std::uint64_t>();
  } else {
    return Status::unsupported(
        fmt::format("the store has the setting \"{}\", which this finchkv does not know: use a newer one", name));
  }
  return Status::ok();
}

}  // namespace

std::string_view durability_name(Durability durability) { return kDurabilities[static_cast<std::size_t>(durability)]; }

Result<Durability> parse_durability(std::string_view name) {
  for (std::size_t i = 0; i < kDurabilities.size(); ++i) {
    if (kDurabilities[i] == name) return static_cast<Durability>(i);
  }
  return Status::invalid_argument(fmt::format("there is no durability \"{}\": sync, interval or none", name));
}

Status StoreSettings::validate() const {
  for (const std::uint64_t bytes : {max_bytes, tenant_max_bytes, shared_max_bytes}) {
    if (bytes > kMostBytes) return Status::invalid_argument(fmt::format("a limit of {} bytes is past any disk", bytes));
  }
  for (const auto& [tenant, bytes] : tenant_quotas) {
    if (bytes > kMostBytes) {
      return Status::invalid_argument(fmt::format("tenant {}: a quota of {} bytes is past any disk", tenant, bytes));
    }
  }
  if (pinned_percent > 100) {
    return Status::invalid_argument(fmt::format("pinned_percent is 0 to 100, not {}", pinned_percent));
  }
  if (default_ttl_ms > kLongestMs) return Status::invalid_argument("default_ttl_ms is longer than a hundred years");
  if (sync_interval_ms < 1 || sync_interval_ms > 3'600'000) {
    return Status::invalid_argument(fmt::format("sync_interval_ms is 1 to 3600000, not {}", sync_interval_ms));
  }
  if (lease_ms < 100 || lease_ms > 86'400'000) {
    return Status::invalid_argument(fmt::format("lease_ms is 100 to 86400000, not {}", lease_ms));
  }
  return Status::ok();
}

std::string encode_settings(const StoreSettings& settings) {
  Json json;
  for (const auto& [name, member] : kNumbers) json[name] = settings.*member;
  json["pinned_percent"] = settings.pinned_percent;
  json["durability"] = durability_name(settings.durability);
  json["tenant_quotas"] = settings.tenant_quotas;
  return json.dump();
}

Result<StoreSettings> decode_settings(std::string_view text) {
  StoreSettings settings;
  try {
    const Json json = Json::parse(text);
    for (const auto& [name, value] : json.items()) FINCHKV_RETURN_IF_ERROR(set_one(settings, name, value));
  } catch (const Json::exception& e) {
    return Status::corrupt(fmt::format("the store's settings do not parse: {}", e.what()));
  }
  if (const Status valid = settings.validate(); !valid.is_ok()) return Status::corrupt(valid.message());
  return settings;
}

std::uint64_t quota_of(const StoreSettings& settings, const std::string& tenant) {
  const auto it = settings.tenant_quotas.find(tenant);
  return it == settings.tenant_quotas.end() ? settings.tenant_max_bytes : it->second;
}

}  // namespace finchkv::cache_store
