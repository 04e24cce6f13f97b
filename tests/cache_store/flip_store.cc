#include "tests/cache_store/flip_store.h"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>

#include "cache_store/codec.h"

namespace finchkv::cache_store::testing {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kLarge = 256U << 10;  // some large sets are above it in their storage dtype, some below
const Tenant kAlice{"alice", std::vector<std::byte>(32, std::byte{7})};

FlipEntry make_entry(std::uint32_t seed, const Tenant& tenant) {
  constexpr std::array kTypes = {DType::kF32, DType::kBF16, DType::kF16, DType::kQ8, DType::kQ4};
  const DType storage = kTypes[seed % kTypes.size()];
  const bool large = seed % 6 == 5;
  const SetSpec spec = large ? SetSpec{.layers = 3, .heads = 2, .dim = 64, .kept = 150, .doc_tokens = 400}
                             : SetSpec{.kept = 3 + seed, .doc_tokens = 80, .origins_per_head = seed % 2 == 0};
  FlipEntry entry{.request = make_put(spec, seed, tenant, storage), .stored = {}, .id = {}};
  entry.request.if_exists = IfExists::kReplace;
  entry.id = cache_id(entry.request.identity, tenant);
  return entry;
}

std::uint64_t log_bytes(const std::string& directory) {
  std::uint64_t total = 0;
  for (const auto& file : fs::directory_iterator(directory)) {
    if (file.path().extension() == ".log") total += file.file_size();
  }
  return total;
}

void put_all(const std::string& directory, const FlipPlan::Puts& entries, const FlipPlan& plan, bool killed) {
  auto host = open_rocksdb_store(directory, flip_options(RocksDbOptions::Mode::kWrite));
  if (!host.is_ok()) _exit(2);
  for (const auto& [tenant, entry] : entries) {
    auto store = (*host)->view(plan.contents[tenant].tenant);
    if (!store.is_ok() || !(*store)->put(entry.request).is_ok()) _exit(3);
  }
  for (const FlipContents& contents : plan.contents) {
    auto store = (*host)->view(contents.tenant);
    for (const CacheId& id : contents.gone) {
      const Status removed = (*store)->remove(id);
      if (!removed.is_ok() && removed.code() != StatusCode::kNotFound) _exit(4);
    }
  }
  if (killed) _exit(0);
}

// Openings flush the logs when there are many.
void flush(const std::string& directory) {
  for (int i = 0; i < 64 && log_bytes(directory) > 0; ++i) {
    (void)open_rocksdb_store(directory, flip_options(RocksDbOptions::Mode::kWrite)).is_ok();
  }
}

}  // namespace

FlipPlan::Puts FlipPlan::late_ones(bool large) const {
  Puts some;
  for (const auto& put : late) {
    if ((put.second.request.set.tensor_bytes() >= kLarge) == large) some.push_back(put);
  }
  return some;
}

FlipPlan make_flip_plan() {
  FlipPlan plan;
  plan.contents = {{{}, {}, {}}, {kAlice, {}, {}}};
  for (std::uint32_t seed = 0; seed < 36; ++seed) {
    const std::size_t tenant = seed % 4 == 3 ? 1 : 0;
    FlipEntry entry = make_entry(seed, plan.contents[tenant].tenant);
    if (seed % 9 == 4) {
      (seed < 18 ? plan.early : plan.late).emplace_back(tenant, entry);
      plan.contents[tenant].gone.push_back(entry.id);
      continue;
    }
    (seed < 18 ? plan.early : plan.late).emplace_back(tenant, entry);
    if (seed % 7 == 3) {  // replaced, later
      entry.request.set =
          make_set({.kept = 2, .doc_tokens = static_cast<std::uint32_t>(entry.request.set.doc_tokens)}, seed + 1000);
      entry.request.label = "replaced";
      plan.late.emplace_back(tenant, entry);
    }
    auto stored = as_stored(entry.request.set, entry.request.identity.storage);
    EXPECT_TRUE(stored.is_ok()) << stored.status().message();
    entry.stored = *std::move(stored);
    plan.contents[tenant].there.push_back(std::move(entry));
  }
  return plan;
}

RocksDbOptions flip_options(RocksDbOptions::Mode mode) {
  RocksDbOptions options;
  options.mode = mode;
  options.large_put_bytes = kLarge;
  return options;
}

void build_store(const std::string& directory, const FlipPlan& plan, Ending ending) {
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    put_all(directory, plan.early, plan, false);
    flush(directory);
    if (ending == Ending::kKilled) {
      FlipPlan::Puts late = plan.late_ones(false);
      for (auto& put : plan.late_ones(true)) late.push_back(std::move(put));
      put_all(directory, late, plan, true);
    }
    put_all(directory, plan.late_ones(true), plan, false);
    put_all(directory, plan.late_ones(false), plan, false);
    if (ending == Ending::kFlushed) flush(directory);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "building the store failed with " << status;
}

}  // namespace finchkv::cache_store::testing
