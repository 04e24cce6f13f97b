// StoreHost::back_up beside puts: what a backup has is whole, and what was acknowledged before it began is in it.
#include <atomic>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cache_store/memory_store.h"
#include "cache_store/rocksdb_backup.h"
#include "tests/cache_store/rocksdb_open.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

using testing::make_put;
using testing::ScratchDirectory;

std::set<CacheId> ids_of(Store& store) {
  std::set<CacheId> ids;
  const auto page = store.list({}, 10000);
  EXPECT_TRUE(page.is_ok()) << page.status().message();
  if (!page.is_ok()) return ids;
  EXPECT_TRUE(page->unreadable.empty());
  for (const EntryInfo& entry : page->entries) ids.insert(entry.id);
  return ids;
}

TEST(HostBackup, BesidePutsEveryBackupIsWhole) {
  const ScratchDirectory scratch;
  const auto in = [&](const std::string& name) { return (scratch.path() / name).string(); };
  RocksDbOptions options;
  options.large_put_bytes = 4096;  // half of the puts get tables, whose heads must not be in a backup without them
  auto [host, store] = testing::open(in("store"), options);
  ASSERT_NE(store, nullptr);

  std::mutex mutex;
  std::set<CacheId> acknowledged;
  std::atomic<bool> ending = false;
  std::vector<std::thread> writers;
  for (std::uint32_t t = 0; t < 2; ++t) {
    writers.emplace_back([&, t] {
      for (std::uint32_t i = 0; !ending; ++i) {
        const std::uint32_t kept = i % 2 == 0 ? 3 : 36;
        const auto put = store->put(make_put({.kept = kept}, t * 100'000 + i));
        ASSERT_TRUE(put.is_ok()) << put.status().message();
        const std::lock_guard lock(mutex);
        acknowledged.insert(put->id);
      }
    });
  }
  constexpr std::uint32_t kBackups = 6;
  std::vector<std::set<CacheId>> before;
  for (std::uint32_t i = 0; i < kBackups; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    {
      const std::lock_guard lock(mutex);
      before.push_back(acknowledged);
    }
    const auto report = host->back_up(in("backups"), 0);
    EXPECT_TRUE(report.is_ok()) << report.status().message();
  }
  ending = true;
  for (std::thread& writer : writers) writer.join();
  EXPECT_FALSE(before.back().empty());

  for (std::uint32_t i = 0; i < kBackups; ++i) {
    SCOPED_TRACE(i + 1);
    const std::string back = in("back" + std::to_string(i));
    const auto restored = restore(in("backups"), back, {.id = i + 1});
    ASSERT_TRUE(restored.is_ok()) << restored.status().message();
    const auto opened = testing::open(back);
    ASSERT_NE(opened.store, nullptr);
    const std::set<CacheId> there = ids_of(*opened.store);
    EXPECT_TRUE(std::ranges::includes(there, before[i]));
    for (const CacheId& id : there) {
      const Status sound = opened.store->verify(id);
      EXPECT_TRUE(sound.is_ok()) << sound.message();
    }
  }
}

TEST(HostBackup, BackupsAreNotCountedAsWritesOfTheStore) {
  const ScratchDirectory scratch;
  const auto opened = testing::open((scratch.path() / "store").string());
  ASSERT_TRUE(opened.store->put(make_put({.kept = 36}, 1)).is_ok());
  const std::uint64_t before = opened.host->report()->written_bytes;
  const auto report = opened.host->back_up((scratch.path() / "backups").string(), 0);
  ASSERT_TRUE(report.is_ok()) << report.status().message();
  EXPECT_LT(opened.host->report()->written_bytes - before, report->copied_bytes / 2);
}

TEST(HostBackup, AReaderAndAMemoryStoreMakeNone) {
  const ScratchDirectory scratch;
  const std::string directory = (scratch.path() / "store").string();
  ASSERT_TRUE(testing::open(directory).store->put(make_put({}, 1)).is_ok());
  const std::string backups = (scratch.path() / "backups").string();
  EXPECT_EQ(testing::open_reader(directory).host->back_up(backups, 0).status().code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(make_memory_store()->back_up(backups, 0).status().code(), StatusCode::kUnsupported);
  EXPECT_FALSE(std::filesystem::exists(backups));
}

}  // namespace
}  // namespace finchkv::cache_store
