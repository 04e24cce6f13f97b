// A store with many entries: rates from the first put to the last, opening, listing, looking for what is not there.
//
// usage: bench_store_many DIR [ENTRIES=100000] [KIB=16]      prints a table
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "bench/store_sets.h"
#include "cache_store/rocksdb_store.h"

namespace {

using finchkv::cache_store::CacheId;
using finchkv::cache_store::RocksDbOptions;

double ms(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

void require(const finchkv::Status& status) {
  if (status.is_ok()) return;
  std::fprintf(stderr, "bench_store_many: %s\n", status.message().c_str());
  std::exit(1);
}

double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<std::size_t>(static_cast<double>(values.size()) * share))];
}

struct Opened {
  std::shared_ptr<finchkv::cache_store::StoreHost> host;
  std::unique_ptr<finchkv::cache_store::Store> store;
};

Opened open(const std::string& directory, RocksDbOptions::Mode mode) {
  RocksDbOptions options;
  options.mode = mode;
  auto host = finchkv::cache_store::open_rocksdb_store(directory, options);
  require(host.status());
  auto store = (*host)->view({});
  require(store.status());
  return {*host, *std::move(store)};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_store_many DIR [ENTRIES] [KIB]\n");
    return 2;
  }
  const std::string directory = std::string(argv[1]) + "/bench_store_many";
  const std::size_t entries = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 100'000;
  const std::uint64_t bytes = (argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 16) << 10;
  std::filesystem::remove_all(directory);
  constexpr std::size_t kTenths = 10;

  std::vector<CacheId> ids;
  std::vector<double> put_ms, get_ms;
  {
    const Opened opened = open(directory, RocksDbOptions::Mode::kWrite);
    finchkv::cache_store::StoreSettings settings;
    settings.durability = finchkv::cache_store::Durability::kInterval;  // the disk's sync is not what is asked here
    require(opened.host->set_settings(settings));
    auto entry = finchkv::bench::make_entry(bytes, 1);
    for (std::size_t i = 0; i < entries; ++i) {
      for (std::size_t b = 0; b < 8; ++b) {
        entry.identity.document_hash[b] = static_cast<std::uint8_t>(i >> (8 * b));
      }
      put_ms.push_back(ms([&] {
        const auto put = opened.store->put(entry);
        require(put.status());
        ids.push_back(put->id);
      }));
      if (i % 10 == 9) {  // one that is neither the newest nor the oldest
        const CacheId& id = ids[(i * 7919) % ids.size()];
        get_ms.push_back(ms([&] { require(opened.store->get(id).status()); }));
      }
    }
  }
  const auto tenth = [](const std::vector<double>& all, std::size_t which) {
    const std::size_t each = all.size() / kTenths;
    const auto from = all.begin() + static_cast<std::ptrdiff_t>(which * each);
    return percentile({from, from + static_cast<std::ptrdiff_t>(each)}, 0.5);
  };
  std::printf("%zu entries of %llu KiB\n", entries, static_cast<unsigned long long>(bytes >> 10));
  std::printf("put, median of the first tenth %.3f ms, of the last %.3f\n", tenth(put_ms, 0),
              tenth(put_ms, kTenths - 1));
  std::printf("get, median of the first tenth %.3f ms, of the last %.3f\n", tenth(get_ms, 0),
              tenth(get_ms, kTenths - 1));
  for (const auto mode : {RocksDbOptions::Mode::kWrite, RocksDbOptions::Mode::kRead}) {
    const char* name = mode == RocksDbOptions::Mode::kWrite ? "writer" : "reader";
    Opened opened;
    std::printf("%s: open %.0f ms", name, ms([&] { opened = open(directory, mode); }));
    std::printf(", first page of 100 %.2f ms", ms([&] { require(opened.store->list({}, 100).status()); }));
    std::vector<double> absent;
    CacheId id = ids[0];
    for (std::size_t i = 0; i < 20'000; ++i) {
      for (std::size_t b = 0; b < 8; ++b)
        id.bytes[b] = static_cast<std::uint8_t>((i * 0x9E3779B97F4A7C15ULL) >> (8 * b));
      absent.push_back(1000 * ms([&] { (void)opened.store->find(id).is_ok(); }));
    }
    std::printf(", absent id %.1f us at the median, %.1f at the 99th percentile\n", percentile(absent, 0.5),
                percentile(absent, 0.99));
  }
  std::filesystem::remove_all(directory);
  return 0;
}
