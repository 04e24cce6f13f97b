#include "cli/prometheus.h"

#include <array>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "cli/output.h"

namespace finchkv::cli {
namespace {

using cache_store::GroupStats;
using cache_store::StoreReport;

using Labels = std::vector<std::pair<std::string_view, std::string>>;

class Exposition {
 public:
  explicit Exposition(std::string_view store) : store_(store) {}

  void begin(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    text_ += fmt::format("# HELP finchkv_store_{0} {1}\n# TYPE finchkv_store_{0} {2}\n", name, help, type);
  }
  void sample(std::uint64_t value, const Labels& labels = {}) {
    text_ += fmt::format("finchkv_store_{}{{store=\"{}\"", name_, prometheus_escape(store_));
    for (const auto& [label, of] : labels) text_ += fmt::format(",{}=\"{}\"", label, prometheus_escape(of));
    text_ += fmt::format("}} {}\n", value);
  }
  void single(std::string_view name, std::string_view type, std::string_view help, std::uint64_t value) {
    begin(name, type, help);
    sample(value);
  }
  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  std::string_view store_;
  std::string name_;
  std::string text_;
};

struct GroupMetric {
  std::string_view name;
  std::string_view help;
  std::uint64_t GroupStats::*value;
};
constexpr std::array<GroupMetric, 4> kGroupMetrics = {
    {{"entries", "Entries stored.", &GroupStats::entries},
     {"stored_bytes", "Bytes of entries as they are stored.", &GroupStats::stored_bytes},
     {"raw_bytes", "Bytes of entries once they are decoded.", &GroupStats::raw_bytes},
     {"entry_hits", "Hits of the entries that are there now.", &GroupStats::hits}}};

void add_groups(Exposition& out, std::string_view by, const std::map<std::string, GroupStats>& groups) {
  for (const GroupMetric& metric : kGroupMetrics) {
    out.begin(fmt::format("{}_{}", by, metric.name), "gauge", fmt::format("{} By {}.", metric.help, by));
    for (const auto& [name, sums] : groups) out.sample(sums.*metric.value, {{by, name}});
  }
}

// Not a histogram, whose _sum would have to be told too: the entries of each stretch of ages.
void add_ages(Exposition& out, const std::map<std::uint64_t, GroupStats>& by_age) {
  out.begin("age_entries", "gauge", "Entries by age: between the next smaller up_to_seconds and this one.");
  for (const auto& [end_ms, sums] : by_age) {
    const bool last = end_ms == std::numeric_limits<std::uint64_t>::max();
    out.sample(sums.entries, {{"up_to_seconds", last ? "+Inf" : std::to_string(end_ms / 1000)}});
  }
}

void add_limits(Exposition& out, const cache_store::StoreSettings& settings) {
  out.single("max_bytes", "gauge", "The limit of all entries; 0: none.", settings.max_bytes);
  out.single("tenant_max_bytes", "gauge", "The limit of a tenant without one of its own; 0: none.",
             settings.tenant_max_bytes);
  out.single("shared_max_bytes", "gauge", "The limit of shared entries; 0: none.", settings.shared_max_bytes);
  out.begin("tenant_quota_bytes", "gauge", "The limits of tenants with one of their own; 0: none.");
  for (const auto& [tenant, bytes] : settings.tenant_quotas) out.sample(bytes, {{"tenant", tenant}});
}

}  // namespace

std::string prometheus_escape(std::string_view value) {
  std::string out;
  for (const char c : printable(value)) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return out;
}

std::string prometheus_text(const StoreReport& r, std::string_view store) {
  Exposition out(store);
  out.single("entries", "gauge", "Entries stored.", r.total.entries);
  out.single("stored_bytes", "gauge", "Bytes of all entries as they are stored.", r.total.stored_bytes);
  out.single("raw_bytes", "gauge", "Bytes of all entries once they are decoded.", r.total.raw_bytes);
  out.single("disk_bytes", "gauge", "Bytes of all the storage's files.", r.total.disk_bytes);
  out.single("unreadable_entries", "gauge", "Entries with a damaged head or in quarantine.", r.total.unreadable);
  out.single("reserved_bytes", "gauge", "Bytes claimed by puts under way.", r.reserved_bytes);
  out.single("held_bytes", "gauge", "Bytes of removed entries that are still being read.", r.held_bytes);
  out.single("pinned_bytes", "gauge", "Bytes of pinned entries.", r.pinned_bytes);
  out.single("lookups_total", "counter", "Look-ups since the store was made.", r.lookups);
  out.single("misses_total", "counter", "Look-ups that found nothing.", r.misses);
  out.single("evictions_total", "counter", "Entries evicted to make room.", r.evictions);
  out.single("put_bytes_total", "counter", "Bytes of all puts as they were stored.", r.put_bytes);
  out.single("written_bytes_total", "counter", "Bytes written to files.", r.written_bytes);
  add_limits(out, r.settings);
  add_groups(out, "tenant", r.by_tenant);
  add_groups(out, "model", r.by_model);
  add_ages(out, r.by_age);
  return out.take();
}

}  // namespace finchkv::cli
