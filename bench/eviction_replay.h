// A made-up trace of look-ups, and what a ledger saves on it under an eviction policy: for bench_eviction and for the
// test that holds the chosen policy to what was measured.
//
// Popularity is Zipf's and shifts between phases. Sizes are log-uniform; costs follow the document's length, not the
// size, since ratio and dtype stand in between. With passages, some of the entries are short texts' full caches: all
// alike, and cheap. Only bits of the generator are used, so that a seed gives one trace everywhere.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "cache_store/ledger.h"

namespace finchkv::bench {

struct TraceOptions {
  double alpha = 1.0;  ///< of Zipf's law
  std::uint32_t entries = 20'000;
  std::uint32_t requests = 300'000;
  std::uint32_t phases = 5;
  double shift = 0.3;     ///< share of the ranks that are dealt again between phases
  double passages = 0.5;  ///< share of the entries
  std::uint64_t seed = 7;
};

struct Trace {
  struct Entry {
    std::uint64_t bytes = 0;
    std::uint64_t cost_ms = 0;
  };
  std::vector<Entry> entries;
  std::vector<std::uint32_t> requests;  ///< indices of entries

  [[nodiscard]] std::uint64_t bytes() const {
    return std::accumulate(entries.begin(), entries.end(), std::uint64_t{0},
                           [](std::uint64_t sum, const Entry& e) { return sum + e.bytes; });
  }
};

class TraceRandom {
 public:
  explicit TraceRandom(std::uint64_t seed) : bits_(seed) {}
  double uniform() { return static_cast<double>(bits_() >> 11) * 0x1p-53; }
  double log_uniform(double low, double high) { return low * std::exp(uniform() * std::log(high / low)); }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(uniform() * static_cast<double>(n)); }

 private:
  std::mt19937_64 bits_;
};

inline Trace make_trace(const TraceOptions& options) {
  TraceRandom random(options.seed);
  Trace trace;
  for (std::uint32_t i = 0; i < options.entries; ++i) {
    const bool passage = random.uniform() < options.passages;
    const double tokens = passage ? 400 + 400 * random.uniform() : random.log_uniform(500, 64'000);
    const double bytes = passage ? tokens * 12'288 : random.log_uniform(0x1p18, 0x1p28);
    const double ms_per_token = 0.5 * random.log_uniform(0.5, 2);
    trace.entries.push_back({static_cast<std::uint64_t>(bytes),
                             std::max<std::uint64_t>(1, static_cast<std::uint64_t>(tokens * ms_per_token))});
  }
  std::vector<double> cumulated;
  double sum = 0;
  for (std::uint32_t i = 0; i < options.entries; ++i) cumulated.push_back(sum += std::pow(i + 1, -options.alpha));
  std::vector<std::uint32_t> of_rank(options.entries);
  std::iota(of_rank.begin(), of_rank.end(), 0U);
  for (std::uint32_t r = 0; r < options.requests; ++r) {
    if (r % (options.requests / options.phases) == 0) {
      std::vector<std::size_t> dealt;
      for (std::size_t i = 0; i < of_rank.size(); ++i) {
        if (r == 0 || random.uniform() < options.shift) dealt.push_back(i);
      }
      for (std::size_t i = dealt.size(); i > 1; --i) std::swap(of_rank[dealt[i - 1]], of_rank[dealt[random.below(i)]]);
    }
    const auto rank = std::upper_bound(cumulated.begin(), cumulated.end(), random.uniform() * sum) - cumulated.begin();
    trace.requests.push_back(of_rank[std::min<std::size_t>(static_cast<std::size_t>(rank), of_rank.size() - 1)]);
  }
  return trace;
}

struct Saved {
  double hit_rate = 0;
  double byte_hit_rate = 0;
  double cost_rate = 0;  ///< share of all computing that hits have saved
  double seconds = 0;    ///< the same
};

/// A hit is a touch; a miss reserves, evicts and commits. A second passes between requests.
inline Saved replay(const Trace& trace, std::shared_ptr<const cache_store::EvictionPolicy> policy,
                    std::uint64_t limit) {
  cache_store::LedgerOptions options;
  options.limit = limit;
  options.policy = std::move(policy);
  const auto ledger = cache_store::Ledger::create(options);
  const cache_store::AccountId account = (*ledger)->account("");
  const cache_store::Remove remove = [](std::span<const cache_store::Removal>) { return Status::ok(); };
  std::uint64_t now_ms = 1'700'000'000'000, hits = 0, hit_bytes = 0, all_bytes = 0, saved_ms = 0, all_ms = 0;
  for (const std::uint32_t i : trace.requests) {
    const Trace::Entry& entry = trace.entries[i];
    cache_store::EntryRecord record;
    record.bytes = entry.bytes;
    record.cost_ms = entry.cost_ms;
    record.last_used_unix_ms = now_ms += 1000;
    const std::uint64_t spread = (i + 1) * 0x9E3779B97F4A7C15ULL;
    std::memcpy(record.id.bytes.data(), &spread, sizeof(spread));
    all_bytes += entry.bytes;
    all_ms += entry.cost_ms;
    if ((*ledger)->find(account, record.id)) {
      ++hits;
      hit_bytes += entry.bytes;
      saved_ms += entry.cost_ms;
      if ((*ledger)->touch(account, record.id, now_ms)) (void)(*ledger)->take_dirty(options.dirty_batch);
    } else if (auto room = (*ledger)->reserve(account, entry.bytes, now_ms, remove); room.is_ok()) {
      (void)room->commit(record).is_ok();
    }
  }
  const auto share = [](std::uint64_t part, std::uint64_t whole) {
    return static_cast<double>(part) / static_cast<double>(std::max<std::uint64_t>(whole, 1));
  };
  return {.hit_rate = share(hits, trace.requests.size()),
          .byte_hit_rate = share(hit_bytes, all_bytes),
          .cost_rate = share(saved_ms, all_ms),
          .seconds = static_cast<double>(saved_ms) / 1000};
}

}  // namespace finchkv::bench
