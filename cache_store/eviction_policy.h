// EvictionPolicy: which entry a full store gives up first. It turns what is known of an entry into a rank; the ledger
// evicts in ascending order of ranks.
//
// Immutable, thread-safe. Left out: limits, pins and leases, which are the ledger's.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

namespace finchkv::cache_store {

/// What a policy may look at.
struct EntryUse {
  std::uint64_t bytes = 0;
  std::uint64_t cost_ms = 0;  ///< to compute it again; 0: not known
  std::uint64_t hits = 0;
  std::uint64_t last_used_unix_ms = 0;
};

class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  [[nodiscard]] virtual std::string_view name() const = 0;
  /// `clock` is the highest rank that was evicted so far, 0 before the first. Called when an entry is put and at every
  /// hit. Ranks are kept across restarts, so what they mean must not depend on the process.
  [[nodiscard]] virtual std::uint64_t rank(const EntryUse& use, std::uint64_t clock) const = 0;
};

/// GreedyDual-Size with frequency: rank = clock + frequency * cost / bytes, where the clock is the rank of the last
/// victim: whatever nobody asks for is overtaken by it sooner or later, and something that is worth more per byte
/// later. GreedyDual-Size is P. Cao and S. Irani, "Cost-Aware WWW Proxy Caching Algorithms", USENIX Symposium on
/// Internet Technologies and Systems 1997, section 4; the frequency is L. Cherkasova, "Improving WWW Proxies
/// Performance with Greedy-Dual-Size-Frequency Caching Policy", HP Laboratories report HPL-98-69 (R.1), 1998.
/// Ours: the frequency counts up to a cap, so that yesterday's favourite goes in bounded time. bench_eviction measures
/// it beside LRU and both papers' forms (a cap of 1 is Cao and Irani's, no cap Cherkasova's).
///
/// Ranks are fixed-point numbers, not floating point: a clock that has run for years still tells cheap entries apart.
/// One unit is 2^-16 ms per MiB; what a single entry is worth ends at 2^40 units (4.6 hours per MiB), so it would take
/// 2^24 complete turnovers of a store full of such entries to reach the end of 64 bits, where ranks saturate.
struct GdsfOptions {
  std::uint64_t frequency_cap = 8;
  /// What an entry of unknown cost counts as, per MiB: roughly a small model on a processor at a ratio of 16.
  std::uint64_t assumed_ms_per_mib = 100;
  /// Smaller entries count as this big: their head, records and keys take room too.
  std::uint64_t least_bytes = 4096;
};
[[nodiscard]] std::shared_ptr<const EvictionPolicy> make_gdsf_policy(const GdsfOptions& options = {});

/// Least recently used: to compare with.
[[nodiscard]] std::shared_ptr<const EvictionPolicy> make_lru_policy();

}  // namespace finchkv::cache_store
