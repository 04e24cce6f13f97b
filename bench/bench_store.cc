// The store beside the file system under it, in one run: get against read() of the same bytes into one reused buffer,
// warm and cold, and put against write() and fsync() into a new file.
//
// usage: bench_store DIR [MIB=64] [ROUNDS=5]      prints a table; GB = 10^9 bytes; medians over the rounds
// DIR must be on the disk that is to be measured and is emptied at the end. Cold means: dropped from the page cache,
// checked with mincore.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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

namespace fs = std::filesystem;
using finchkv::cache_store::Store;
using finchkv::cache_store::StoreHost;

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void require(bool ok, const std::string& what) {
  if (ok) return;
  std::fprintf(stderr, "bench_store: %s\n", what.c_str());
  std::exit(1);
}

// Share of a file's pages that are in the page cache.
double cached_share(const fs::path& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat info {};
  if (fd < 0 || fstat(fd, &info) != 0 || info.st_size == 0) return 0;
  const auto bytes = static_cast<std::size_t>(info.st_size);
  void* const map = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  std::vector<unsigned char> pages((bytes + 4095) / 4096);
  const bool ok = mincore(map, bytes, pages.data()) == 0;
  munmap(map, bytes);
  const auto in = std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return (p & 1U) != 0; });
  return ok ? static_cast<double>(in) / static_cast<double>(pages.size()) : 1;
}

void drop_from_cache(const fs::path& directory) {
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (!entry.is_regular_file()) continue;
    const int fd = open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    fdatasync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    if (entry.file_size() > (1U << 20)) {
      require(cached_share(entry.path()) < 0.01, "a file would not leave the page cache: " + entry.path().string());
    }
  }
}

void write_raw(const fs::path& path, const finchkv::KvSet& set) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  for (const auto& layer : set.layers) {
    for (const auto bytes : {layer.keys, layer.values}) {
      std::size_t done = 0;
      while (done < bytes.size()) {
        const auto n = write(fd, bytes.data() + done, bytes.size() - done);
        require(n > 0, "write failed");
        done += static_cast<std::size_t>(n);
      }
    }
  }
  require(fsync(fd) == 0, "fsync failed");
  close(fd);
}

void read_raw(const fs::path& path, std::vector<std::byte>& buffer) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  std::size_t done = 0;
  while (done < buffer.size()) {
    const auto n = pread(fd, buffer.data() + done, buffer.size() - done, static_cast<off_t>(done));
    require(n > 0, "read failed");
    done += static_cast<std::size_t>(n);
  }
  close(fd);
}

struct Opened {
  std::shared_ptr<StoreHost> host;
  std::unique_ptr<Store> store;
};

Opened open_store(const fs::path& directory, std::size_t helpers) {
  finchkv::cache_store::RocksDbOptions options;
  options.read_threads = helpers;
  auto host = finchkv::cache_store::open_rocksdb_store(directory.string(), options);
  require(host.is_ok(), host.status().message());
  auto store = (*host)->view({});
  require(store.is_ok(), store.status().message());
  return {*host, *std::move(store)};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_store DIR [MIB] [ROUNDS]\n");
    return 2;
  }
  const fs::path base = fs::path(argv[1]) / "bench_store";
  const std::uint64_t mib = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 64;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 5;
  fs::remove_all(base);
  fs::create_directories(base / "raw");

  std::vector<double> raw_put, our_put;
  std::vector<finchkv::cache_store::CacheId> ids;
  std::uint64_t bytes = 0;
  {
    const Opened writer = open_store(base / "store", 0);
    for (int i = 0; i < rounds; ++i) {
      const auto entry = finchkv::bench::make_entry(mib << 20, static_cast<std::uint64_t>(i));
      bytes = entry.set.tensor_bytes();
      raw_put.push_back(seconds([&] { write_raw(base / "raw" / std::to_string(i), entry.set); }));
      our_put.push_back(seconds([&] {
        const auto put = writer.store->put(entry);
        require(put.is_ok(), put.status().message());
        ids.push_back(put->id);
      }));
    }
    const auto report = writer.host->report();
    std::printf("write amplification %.3f\n",
                static_cast<double>(report->written_bytes) / static_cast<double>(report->put_bytes));
  }
  const double gb = static_cast<double>(bytes) / 1e9;
  std::printf("%llu MiB  put        %6.2f GB/s   write+fsync %6.2f   ratio %.2f\n",
              static_cast<unsigned long long>(mib), gb / median(our_put), gb / median(raw_put),
              median(raw_put) / median(our_put));

  std::vector<std::byte> buffer(bytes);
  for (const bool cold : {false, true}) {
    std::vector<double> raw, one, two;
    const Opened alone = open_store(base / "store", 0);
    for (int round = 0; round < rounds + 1; ++round) {
      const auto which = static_cast<std::size_t>(round % rounds);
      const auto get = [&](Store& store) {
        const auto set = store.get(ids[which]);
        require(set.is_ok(), set.status().message());
      };
      if (cold) drop_from_cache(base);
      const double r = seconds([&] { read_raw(base / "raw" / std::to_string(which), buffer); });
      if (cold) drop_from_cache(base);
      const double a = seconds([&] { get(*alone.store); });
      if (round == 0) continue;  // memory is touched, tables are opened
      raw.push_back(r);
      one.push_back(a);
    }
    finchkv::cache_store::RocksDbOptions reader;
    reader.mode = finchkv::cache_store::RocksDbOptions::Mode::kRead;
    reader.read_threads = 1;
    auto host = finchkv::cache_store::open_rocksdb_store((base / "store").string(), reader);
    require(host.is_ok(), host.status().message());
    auto helped = (*host)->view({});
    for (int round = 0; round < rounds + 1; ++round) {
      const auto which = static_cast<std::size_t>(round % rounds);
      if (cold) drop_from_cache(base);
      const double t = seconds([&] { require((*helped)->get(ids[which]).is_ok(), "get failed"); });
      if (round != 0) two.push_back(t);
    }
    std::printf("%llu MiB  get %s   %6.2f GB/s with one thread, %6.2f with two   read() %6.2f   ratios %.2f, %.2f\n",
                static_cast<unsigned long long>(mib), cold ? "cold" : "warm", gb / median(one), gb / median(two),
                gb / median(raw), median(raw) / median(one), median(raw) / median(two));
  }
  fs::remove_all(base);
  return 0;
}
