// Write amplification from put to eviction: entries go into a store with a limit until what was put is several times
// the limit, so that all but the last have been evicted and what they took has been freed.
//
// usage: bench_store_churn DIR [KIB=256] [LIMIT_MIB=512] [TIMES=4]      prints one line
// Bytes put are stored bytes of blocks and heads; bytes written are all that went into files, logs included.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "bench/store_sets.h"
#include "cache_store/rocksdb_store.h"

namespace {

void require(const finchkv::Status& status) {
  if (status.is_ok()) return;
  std::fprintf(stderr, "bench_store_churn: %s\n", status.message().c_str());
  std::exit(1);
}

double ratio(std::uint64_t a, std::uint64_t b) { return static_cast<double>(a) / static_cast<double>(b); }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_store_churn DIR [KIB] [LIMIT_MIB] [TIMES]\n");
    return 2;
  }
  const auto number = [&](int at, std::uint64_t otherwise) {
    return argc > at ? std::strtoull(argv[at], nullptr, 10) : otherwise;
  };
  const std::string directory = std::string(argv[1]) + "/bench_store_churn";
  const std::uint64_t bytes = number(2, 256) << 10;
  const std::uint64_t limit = number(3, 512) << 20;
  const std::uint64_t in_all = limit * number(4, 4);
  std::filesystem::remove_all(directory);
  auto host = finchkv::cache_store::open_rocksdb_store(directory, {});
  require(host.status());
  finchkv::cache_store::StoreSettings settings;
  settings.max_bytes = limit;
  settings.durability = finchkv::cache_store::Durability::kInterval;
  require((*host)->set_settings(settings));
  auto store = (*host)->view({});
  require(store.status());

  auto entry = finchkv::bench::make_entry(bytes, 1);
  std::uint64_t puts = 0;
  for (std::uint64_t put = 0; put < in_all; ++puts) {
    for (std::size_t b = 0; b < 8; ++b) entry.identity.document_hash[b] = static_cast<std::uint8_t>(puts >> (8 * b));
    auto info = (*store)->put(entry);
    require(info.status());
    put += info->stored_bytes;
  }
  const auto report = (*host)->report();
  require(report.status());
  std::printf("%llu KiB: %llu puts, %llu evicted, write amplification %.2f, on disk %.2f of the limit\n",
              static_cast<unsigned long long>(bytes >> 10), static_cast<unsigned long long>(puts),
              static_cast<unsigned long long>(report->evictions), ratio(report->written_bytes, report->put_bytes),
              ratio(report->total.disk_bytes, limit));
  *store = nullptr;
  *host = nullptr;
  std::filesystem::remove_all(directory);
  return 0;
}
