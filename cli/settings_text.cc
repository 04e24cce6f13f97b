#include "cli/settings_text.h"

#include <fmt/format.h>

#include "cache_store/settings.h"
#include "cli/units.h"

namespace finchkv::cli {
namespace {

std::string limit_text(std::uint64_t bytes) { return bytes == 0 ? "none" : size_text(bytes); }

}  // namespace

Json settings_json(const cache_store::StoreSettings& s) {
  Json out;
  out["max_bytes"] = s.max_bytes;
  out["tenant_quotas"] = s.tenant_quotas;
  out["tenant_max_bytes"] = s.tenant_max_bytes;
  out["shared_max_bytes"] = s.shared_max_bytes;
  out["pinned_percent"] = s.pinned_percent;
  out["default_ttl_ms"] = s.default_ttl_ms;
  out["durability"] = cache_store::durability_name(s.durability);
  out["sync_interval_ms"] = s.sync_interval_ms;
  out["lease_ms"] = s.lease_ms;
  out["scrub_bytes_per_s"] = s.scrub_bytes_per_s;
  return out;
}

Figures settings_figures(const cache_store::StoreSettings& s) {
  Figures out = {{"max-bytes", limit_text(s.max_bytes)}};
  for (const auto& [tenant, bytes] : s.tenant_quotas) {
    out.emplace_back(fmt::format("tenant-quota {}", tenant.empty() ? "(default tenant)" : tenant), limit_text(bytes));
  }
  out.emplace_back("tenant-max-bytes", limit_text(s.tenant_max_bytes));
  out.emplace_back("shared-max-bytes", limit_text(s.shared_max_bytes));
  out.emplace_back("pinned-percent", std::to_string(s.pinned_percent));
  out.emplace_back("ttl", s.default_ttl_ms == 0 ? "never" : duration_text(s.default_ttl_ms));
  out.emplace_back("durability", std::string(cache_store::durability_name(s.durability)));
  out.emplace_back("sync-interval", duration_text(s.sync_interval_ms));
  out.emplace_back("lease", duration_text(s.lease_ms));
  out.emplace_back("scrub-rate", s.scrub_bytes_per_s == 0 ? "none" : size_text(s.scrub_bytes_per_s) + " per second");
  return out;
}

}  // namespace finchkv::cli
