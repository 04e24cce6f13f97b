#include "cache_store/eviction_policy.h"

#include <algorithm>
#include <limits>

namespace finchkv::cache_store {
namespace {

constexpr double kMib = 1048576.0;
constexpr double kUnitsPerMsPerMib = 65536.0;
constexpr std::uint64_t kHighestWorth = std::uint64_t{1} << 40;

class GdsfPolicy : public EvictionPolicy {
 public:
  explicit GdsfPolicy(const GdsfOptions& options) : options_(options) {}

  std::string_view name() const override { return "gdsf"; }

  std::uint64_t rank(const EntryUse& use, std::uint64_t clock) const override {
    // Being put counts as the first use.
    const std::uint64_t uses = use.hits == std::numeric_limits<std::uint64_t>::max() ? use.hits : use.hits + 1;
    const auto frequency =
        static_cast<double>(std::clamp<std::uint64_t>(uses, 1, std::max(options_.frequency_cap, kOne)));
    const double mib = static_cast<double>(std::max({use.bytes, options_.least_bytes, kOne})) / kMib;
    const double ms_per_mib =
        use.cost_ms == 0 ? static_cast<double>(options_.assumed_ms_per_mib) : static_cast<double>(use.cost_ms) / mib;
    const double units = frequency * ms_per_mib * kUnitsPerMsPerMib;
    const std::uint64_t worth =
        units >= static_cast<double>(kHighestWorth) ? kHighestWorth : std::max(kOne, static_cast<std::uint64_t>(units));
    return clock > std::numeric_limits<std::uint64_t>::max() - worth ? std::numeric_limits<std::uint64_t>::max()
                                                                     : clock + worth;
  }

 private:
  static constexpr std::uint64_t kOne = 1;
  GdsfOptions options_;
};

class LruPolicy : public EvictionPolicy {
 public:
  std::string_view name() const override { return "lru"; }
  std::uint64_t rank(const EntryUse& use, std::uint64_t) const override { return use.last_used_unix_ms; }
};

}  // namespace

std::shared_ptr<const EvictionPolicy> make_gdsf_policy(const GdsfOptions& options) {
  return std::make_shared<GdsfPolicy>(options);
}

std::shared_ptr<const EvictionPolicy> make_lru_policy() { return std::make_shared<LruPolicy>(); }

}  // namespace finchkv::cache_store
