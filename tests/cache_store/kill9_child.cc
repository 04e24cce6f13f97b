#include "tests/cache_store/kill9_child.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <random>
#include <thread>

namespace finchkv::cache_store::testing {
namespace {

constexpr std::uint64_t kLarge = 32U << 10;   // puts from here on go past the log
constexpr unsigned kLongestSeconds = 300;     // of one child: then it hangs
constexpr std::uint32_t kWorkers = 2;         // each with names of its own
constexpr std::uint32_t kMostPauseUs = 5000;  // between two backups

SetSpec spec_of(std::uint32_t name) {
  if (name % 4 == 0) return {.layers = 3, .heads = 2, .dim = 64, .kept = 40, .doc_tokens = 100};
  if (name % 4 == 1) return {.layers = 2, .heads = 2, .dim = 16, .kept = 40, .doc_tokens = 60};
  return {.kept = 1 + name % 7};
}

[[noreturn]] void give_up(GaveUp why) { _exit(static_cast<int>(why)); }

void say(Said what, std::uint32_t name = 0, std::uint32_t version = 0) {
  char line[64];
  const int n = std::snprintf(line, sizeof(line), "%c %u %u\n", static_cast<char>(what), name, version);
  if (write(STDOUT_FILENO, line, static_cast<std::size_t>(n)) != n) give_up(GaveUp::kPipe);
}

class Worker {
 public:
  Worker(StoreHost& host, std::uint32_t which, std::uint32_t seed, std::atomic<std::uint32_t>& version)
      : host_(host), which_(which), random_(seed), version_(version) {
    auto store = host.view({});
    if (!store.is_ok()) give_up(GaveUp::kOpening);
    store_ = *std::move(store);
  }

  [[noreturn]] void run() {
    for (;;) {
      const std::uint32_t name = next_name();
      switch (random_() % 16) {
        case 0:
        case 1: remove(name); break;
        case 2: look(name); break;
        case 3:
          if (!host_.gc().is_ok()) give_up(GaveUp::kGc);
          break;
        case 4:
        case 5: check_limit(); break;
        default: put(name);
      }
    }
  }

 private:
  // Groups of four, so that each worker has names of every kind.
  std::uint32_t next_name() {
    const std::uint32_t group = random_() % (kKill9Names / 4 / kWorkers) * kWorkers + which_;
    return group * 4 + random_() % 4;
  }

  void put(std::uint32_t name) {
    const std::uint32_t version = version_++;
    PutRequest request = kill9_entries().request(name, version);
    request.pinned = is_pinned(name);
    request.compress_ms = std::uint64_t{1} << (random_() % 14);  // so that now the small ones go and now the large
    say(Said::kPutting, name, version);
    const auto info = store_->put(request);
    if (!info.is_ok()) {
      (void)std::fprintf(stderr, "put of name %u: %s\n", name, info.status().to_string().c_str());
      give_up(GaveUp::kOperation);
    }
    if (info->pinned != request.pinned) give_up(GaveUp::kPin);
    say(Said::kPut, name, version);
  }

  void remove(std::uint32_t name) {
    say(Said::kRemoving, name);
    const Status removed = store_->remove(kill9_entries().id(name));
    if (!removed.is_ok() && removed.code() != StatusCode::kNotFound) give_up(GaveUp::kOperation);
    say(Said::kRemoved, name);
  }

  // A lease in the way of removals and evictions by the other worker, and a hit to write down.
  void look(std::uint32_t name) {
    const auto set = store_->get(kill9_entries().id(name));
    if (!set.is_ok() && set.status().code() != StatusCode::kNotFound) give_up(GaveUp::kOperation);
  }

  void check_limit() {
    const auto report = host_.report();
    if (!report.is_ok()) give_up(GaveUp::kOperation);
    if (report->total.stored_bytes > kKill9Limit) give_up(GaveUp::kLimit);
    say(Said::kEvicted, static_cast<std::uint32_t>(report->evictions - evictions_at_start_));
  }

  StoreHost& host_;
  std::uint32_t which_;
  std::mt19937 random_;
  std::atomic<std::uint32_t>& version_;
  std::unique_ptr<Store> store_;
  std::uint64_t evictions_at_start_ = host_.report()->evictions;
};

[[noreturn]] void back_up_again_and_again(StoreHost& host, const std::string& directory, std::uint32_t seed) {
  std::mt19937 random(seed);
  for (;;) {
    usleep(static_cast<useconds_t>(random() % kMostPauseUs));
    say(Said::kBackingUp);
    const auto report = host.back_up(directory, kKill9Backups);
    if (!report.is_ok()) {
      (void)std::fprintf(stderr, "%s\n", report.status().to_string().c_str());
      give_up(GaveUp::kBackup);
    }
    say(Said::kBackedUp, report->backup.id);
  }
}

}  // namespace

const VersionedEntries& kill9_entries() {
  static const VersionedEntries entries(kKill9Names, spec_of);
  return entries;
}

bool is_pinned(std::uint32_t name) { return name < 4; }

RocksDbOptions kill9_options() {
  RocksDbOptions options;
  options.large_put_bytes = kLarge;
  options.settings.emplace().max_bytes = kKill9Limit;
  return options;
}

int work_until_killed(const std::string& store, const std::string& backups, std::uint32_t seed, std::uint32_t version) {
  alarm(kLongestSeconds);
  kill9_entries();
  const auto host = open_rocksdb_store(store, kill9_options());
  if (!host.is_ok()) {
    (void)std::fprintf(stderr, "%s\n", host.status().to_string().c_str());
    return static_cast<int>(GaveUp::kOpening);
  }
  std::atomic<std::uint32_t> next_version = version;
  Worker first(**host, 0, seed, next_version);
  say(Said::kOpened);
  std::thread([&] { Worker(**host, 1, seed + 1, next_version).run(); }).detach();
  std::thread([&] { back_up_again_and_again(**host, backups, seed + 2); }).detach();
  first.run();
}

int put_and_die(const std::string& store, PutStep step, std::uint32_t name, std::uint32_t version) {
  RocksDbOptions options = kill9_options();
  options.on_put_step = [step](PutStep at) {
    if (at == step) kill(getpid(), SIGKILL);
  };
  auto host = open_rocksdb_store(store, options);
  if (!host.is_ok()) return static_cast<int>(GaveUp::kOpening);
  auto view = (*host)->view({});
  const bool stored = view.is_ok() && (*view)->put(kill9_entries().request(name, version)).is_ok();
  return stored ? 0 : static_cast<int>(GaveUp::kOperation);
}

}  // namespace finchkv::cache_store::testing
