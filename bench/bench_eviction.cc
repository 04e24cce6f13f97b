// What a full store saves under each eviction policy, on made-up traces (eviction_replay.h), and what the ledger itself
// costs: opening with many entries, and a put that evicts.
//
// usage: bench_eviction [REQUESTS=300000] [ENTRIES=100000]
// The table's figures are, per cache size (share of all entries' bytes): hit rate / byte hit rate / share of the
// recomputing that was saved, in percent; the last column is the hours saved at the largest size.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "bench/eviction_replay.h"

namespace {

using finchkv::cache_store::EntryRecord;
using finchkv::cache_store::GdsfOptions;
using finchkv::cache_store::Ledger;

struct Contender {
  std::string name;
  std::shared_ptr<const finchkv::cache_store::EvictionPolicy> policy;
};

std::vector<Contender> contenders() {
  std::vector<Contender> all{{"lru", finchkv::cache_store::make_lru_policy()}};
  for (const std::uint64_t cap : {1, 4, 8, 16, 32}) {
    GdsfOptions options;
    options.frequency_cap = cap;
    all.push_back({cap == 1 ? "gds (cap 1)" : "gdsf, cap " + std::to_string(cap),
                   finchkv::cache_store::make_gdsf_policy(options)});
  }
  GdsfOptions uncapped;
  uncapped.frequency_cap = ~std::uint64_t{0};
  all.push_back({"gdsf, no cap", finchkv::cache_store::make_gdsf_policy(uncapped)});
  return all;
}

void compare_policies(std::uint32_t requests) {
  const std::vector<double> shares{0.01, 0.03, 0.1, 0.3};
  for (const double passages : {0.0, 0.5}) {
    for (const double alpha : {0.8, 0.95, 1.1}) {
      for (const double shift : {0.3, 1.0}) {
        finchkv::bench::TraceOptions options;
        options.alpha = alpha;
        options.shift = shift;
        options.passages = passages;
        options.requests = requests;
        const finchkv::bench::Trace trace = finchkv::bench::make_trace(options);
        std::printf("\nzipf %.2f, %.0f %% of the ranks shift, %.0f %% passages\n%-14s", alpha, 100 * shift,
                    100 * passages, "");
        for (const double share : shares) std::printf("  %16.0f %%", 100 * share);
        std::printf("\n");
        for (const Contender& contender : contenders()) {
          std::printf("%-14s", contender.name.c_str());
          finchkv::bench::Saved saved;
          for (const double share : shares) {
            const auto limit = static_cast<std::uint64_t>(static_cast<double>(trace.bytes()) * share);
            saved = finchkv::bench::replay(trace, contender.policy, limit);
            std::printf("  %5.1f %5.1f %5.1f", 100 * saved.hit_rate, 100 * saved.byte_hit_rate, 100 * saved.cost_rate);
            std::fflush(stdout);
          }
          std::printf("  %8.1f h\n", saved.seconds / 3600);
        }
      }
    }
  }
}

double memory_mb() {
  long pages = 0;
  if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%*d %ld", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  return static_cast<double>(pages) * 4096 / 1e6;
}

void time_ledger(std::uint32_t entries) {
  // Of the processor's time: on a shared machine the clock on the wall measures the neighbours.
  const auto ms_since = [](std::clock_t start) {
    return static_cast<double>(std::clock() - start) * 1000 / CLOCKS_PER_SEC;
  };
  std::vector<EntryRecord> records(entries);
  std::mt19937_64 random(1);
  for (EntryRecord& r : records) {
    for (std::size_t i = 0; i < r.id.bytes.size(); i += 8) {
      const std::uint64_t bits = random();
      std::memcpy(r.id.bytes.data() + i, &bits, sizeof(bits));
    }
    r.bytes = 1 + random() % 1'000'000;
    r.cost_ms = random() % 10'000;
    r.ranks = {random() >> 20, random() >> 20};
  }
  const double before_mb = memory_mb();
  const auto opening = std::clock();
  const auto made = Ledger::create();
  Ledger& ledger = **made;
  const auto account = ledger.account("");
  for (EntryRecord& r : records) {
    r.account = account;
    (void)ledger.add(r).is_ok();
  }
  const double open_ms = ms_since(opening);
  const double after_mb = memory_mb();
  const auto touching = std::clock();
  for (const EntryRecord& r : records) (void)ledger.touch(account, r.id, 1);
  const double touch_ms = ms_since(touching);
  const auto leasing = std::clock();
  for (const EntryRecord& r : records) (void)ledger.lease(account, r.id, r.put_id, 1).is_ok();
  const double lease_ms = ms_since(leasing);
  ledger.set_limit(ledger.usage().used());
  const auto putting = std::clock();
  for (EntryRecord& r : records) {
    r.id.bytes[31] ^= 1;
    auto room = ledger.reserve(account, r.bytes, 1, [](auto) { return finchkv::Status::ok(); });
    if (room.is_ok()) (void)room->commit(r).is_ok();
  }
  const double put_ms = ms_since(putting);
  const auto us = [&](double ms) { return ms * 1000 / entries; };
  std::printf(
      "ledger of %u entries: opened in %.1f ms of processor time (%.2f us each, %.0f bytes each); touch %.2f us, lease "
      "%.2f us, "
      "reserve with eviction and commit %.2f us\n",
      entries, open_ms, us(open_ms), (after_mb - before_mb) * 1e6 / entries, us(touch_ms), us(lease_ms), us(put_ms));
}

}  // namespace

int main(int argc, char** argv) {
  const auto number = [&](int i, std::uint32_t otherwise) {
    return argc > i ? static_cast<std::uint32_t>(std::strtoul(argv[i], nullptr, 10)) : otherwise;
  };
  time_ledger(std::max(number(2, 100'000), 1U));
  compare_policies(std::max(number(1, 300'000), 10U));
  return 0;
}
