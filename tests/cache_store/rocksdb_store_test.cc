// What is particular to the RocksDB store: directories, locks, readers beside a writer, garbage.
#include "cache_store/rocksdb_store.h"

#include <sys/stat.h>

#include <atomic>
#include <thread>

#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include "cache_store/rocksdb_status.h"
#include "tests/cache_store/rocksdb_open.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

namespace fs = std::filesystem;
using testing::expect_same_set;
using testing::files_in;
using testing::make_put;
using testing::make_set;
using testing::open;
using testing::open_reader;
using testing::open_status;
using testing::Opened;
using testing::read_file;
using testing::ScratchDirectory;
using testing::write_file;

TEST(RocksDbDirectory, IsMadePrivate) {
  ScratchDirectory scratch;
  const std::string nested = scratch.store() + "/deeper/";
  { const Opened opened = open(nested); }
  struct stat info {};
  ASSERT_EQ(stat(nested.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0700U);
}

TEST(RocksDbDirectory, MissingIsNotFoundWhereNothingMayBeMade) {
  ScratchDirectory scratch;
  RocksDbOptions options;
  options.create_if_missing = false;
  EXPECT_EQ(open_status(scratch.store(), options).code(), StatusCode::kNotFound);
  options.mode = RocksDbOptions::Mode::kRead;
  EXPECT_EQ(open_status(scratch.store(), options).code(), StatusCode::kNotFound);
  EXPECT_FALSE(fs::exists(scratch.store()));
  fs::create_directory(scratch.store());
  EXPECT_EQ(open_status(scratch.store(), options).code(), StatusCode::kNotFound);
  EXPECT_TRUE(files_in(scratch.store()).empty());
}

TEST(RocksDbDirectory, WhatIsNotOursIsLeftAlone) {
  ScratchDirectory scratch;
  write_file(scratch.path() / "file", "text");
  EXPECT_EQ(open_status((scratch.path() / "file").string()).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(open_status("").code(), StatusCode::kInvalidArgument);

  fs::create_directory(scratch.path() / "home");
  write_file(scratch.path() / "home" / "letter.txt", "text");
  const Status other = open_status((scratch.path() / "home").string());
  EXPECT_EQ(other.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(other.message().find("letter.txt"), std::string::npos) << other.message();

  const std::string foreign = (scratch.path() / "foreign").string();
  {
    rocksdb::Options options;
    options.create_if_missing = true;
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(options, foreign, &db).ok());
    delete db;
  }
  const auto before = files_in(foreign);
  const Status database = open_status(foreign);
  EXPECT_EQ(database.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(database.message().find("another program's database"), std::string::npos) << database.message();
  EXPECT_EQ(files_in(foreign), before);
}

TEST(RocksDbDirectory, AnInterruptedRestoreIsCalledSo) {
  ScratchDirectory scratch;
  fs::create_directories(fs::path(scratch.store()) / "finchkv.restoring");
  write_file(fs::path(scratch.store()) / "000007.sst", "moved up already");
  for (const auto mode : {RocksDbOptions::Mode::kRead, RocksDbOptions::Mode::kWrite}) {
    RocksDbOptions options;
    options.mode = mode;
    const Status status = open_status(scratch.store(), options);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("a restore that was interrupted"), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("finchkv restore"), std::string::npos) << status.message();
  }
  // Restoring again would not do: it takes a directory with other files for somebody's.
  write_file(fs::path(scratch.store()) / "thesis.txt", "all I have");
  EXPECT_NE(open_status(scratch.store()).message().find("holds other files"), std::string::npos);
}

TEST(RocksDbDirectory, MarkersOfOtherFormats) {
  ScratchDirectory scratch;
  { const Opened opened = open(scratch.store()); }
  write_file(fs::path(scratch.store()) / "finchkv.store", "finchkv store\nformat 3\n");
  EXPECT_EQ(open_status(scratch.store()).code(), StatusCode::kUnsupported);
  write_file(fs::path(scratch.store()) / "finchkv.store", "garbage");
  EXPECT_EQ(open_status(scratch.store()).code(), StatusCode::kCorrupt);
  write_file(fs::path(scratch.store()) / "finchkv.store", "finchkv store\nformat 1\n");
  EXPECT_TRUE(open_status(scratch.store()).is_ok());
  // A writer has brought it to its own format, and says so.
  EXPECT_EQ(read_file(fs::path(scratch.store()) / "finchkv.store"), "finchkv store\nformat 2\n");
}

TEST(RocksDbDirectory, ALostCurrentIsNotANewStore) {
  ScratchDirectory scratch;
  const PutRequest request = make_put({}, 1);
  { ASSERT_TRUE(open(scratch.store()).store->put(request).is_ok()); }
  const std::string current = read_file(fs::path(scratch.store()) / "CURRENT");
  fs::remove(fs::path(scratch.store()) / "CURRENT");
  EXPECT_EQ(open_status(scratch.store()).code(), StatusCode::kCorrupt);
  write_file(fs::path(scratch.store()) / "CURRENT", current);
  EXPECT_TRUE(open(scratch.store()).store->get(cache_id(request.identity, {})).is_ok());
}

TEST(RocksDbDirectory, AnInterruptedFirstOpeningGoesOn) {
  ScratchDirectory scratch;
  fs::create_directory(scratch.store());
  write_file(fs::path(scratch.store()) / "finchkv.store", "finchkv store\nformat 1\n");
  RocksDbOptions reading;
  reading.mode = RocksDbOptions::Mode::kRead;
  EXPECT_EQ(open_status(scratch.store(), reading).code(), StatusCode::kNotFound);
  EXPECT_TRUE(open(scratch.store()).store->put(make_put({}, 1)).is_ok());
}

TEST(RocksDbDirectory, AnOpeningThatMadeOneFamilyGoesOn) {
  ScratchDirectory scratch;
  {
    rocksdb::Options options;
    options.create_if_missing = true;
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(options, scratch.store(), &db).ok());
    delete db;
  }
  write_file(fs::path(scratch.store()) / "finchkv.store", "finchkv store\nformat 1\n");
  RocksDbOptions reading;
  reading.mode = RocksDbOptions::Mode::kRead;
  EXPECT_EQ(open_status(scratch.store(), reading).code(), StatusCode::kNotFound);
  const PutRequest request = make_put({}, 1);
  { ASSERT_TRUE(open(scratch.store()).store->put(request).is_ok()); }
  expect_same_set(*open_reader(scratch.store()).store->get(cache_id(request.identity, {})), request.set);
}

TEST(RocksDbDirectory, OpeningsDoNotPileUpLogs) {
  ScratchDirectory scratch;
  const CacheId id = open(scratch.store()).store->put(make_put({}, 1))->id;
  for (int i = 0; i < 25; ++i) ASSERT_TRUE(open(scratch.store()).store->get(id).is_ok());
  const auto files = files_in(scratch.store());
  const auto logs = std::count_if(files.begin(), files.end(), [](const std::string& name) {
    return name.size() > 4 && name.compare(name.size() - 4, 4, ".log") == 0;
  });
  EXPECT_LE(logs, 10);
  EXPECT_EQ(open(scratch.store()).store->find(id)->hits, 25U);
}

TEST(RocksDbLock, TheSecondWriterIsToldWhoHasIt) {
  ScratchDirectory scratch;
  const Opened first = open(scratch.store());
  const Status second = open_status(scratch.store());
  EXPECT_EQ(second.code(), StatusCode::kUnavailable);
  EXPECT_NE(second.message().find("process " + std::to_string(getpid())), std::string::npos) << second.message();
  EXPECT_TRUE(first.store->put(make_put({}, 1)).is_ok());
}

TEST(RocksDbLock, OnlyRocksDbsOwnWordsMeanALock) {
  const auto told = [](const rocksdb::Status& status) { return from_rocksdb(status, "kv", "reading its blocks"); };
  const Status locked = told(rocksdb::Status::IOError("While lock file: kv/LOCK: Resource temporarily unavailable"));
  EXPECT_EQ(locked.code(), StatusCode::kUnavailable);
  EXPECT_NE(locked.message().find("another program"), std::string::npos) << locked.message();
  const Status refused = told(rocksdb::Status::IOError("While pread: /mnt/blocks/clock/000009.blob: EIO"));
  EXPECT_EQ(refused.message().find("another program"), std::string::npos) << refused.message();
  EXPECT_EQ(told(rocksdb::Status::PathNotFound("/mnt/blocks/000009.blob")).code(), StatusCode::kCorrupt);
}

TEST(RocksDbLock, AWriterWaits) {
  ScratchDirectory scratch;
  Opened first = open(scratch.store());
  std::thread closer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    first = {};
  });
  RocksDbOptions options;
  options.wait = std::chrono::seconds(20);
  EXPECT_TRUE(open_status(scratch.store(), options).is_ok());
  closer.join();
}

TEST(RocksDbReader, SeesWhatTheWriterDoes) {
  ScratchDirectory scratch;
  RocksDbOptions options;
  options.large_put_bytes = 0;  // every put makes files
  const Opened writer = open(scratch.store(), options);
  const PutRequest first = make_put({.dim = 64, .kept = 30}, 1);
  const CacheId id = writer.store->put(first)->id;
  const auto before = files_in(scratch.store());
  {
    const Opened reader = open_reader(scratch.store());
    expect_same_set(*reader.store->get(id), first.set);
    EXPECT_TRUE(reader.store->verify(id).is_ok());
    EXPECT_EQ(reader.store->list({}, 10)->entries.size(), 1U);
    EXPECT_EQ(reader.store->put(first).status().code(), StatusCode::kPermissionDenied);
    EXPECT_EQ(reader.store->remove(id).code(), StatusCode::kPermissionDenied);
    EXPECT_EQ(reader.host->gc().status().code(), StatusCode::kPermissionDenied);

    for (std::uint32_t i = 2; i < 20; ++i) {
      const PutRequest next = make_put({.dim = 64, .kept = 30}, i);
      const CacheId next_id = writer.store->put(next)->id;
      auto seen = reader.store->get(next_id);
      ASSERT_TRUE(seen.is_ok()) << seen.status().message();
      expect_same_set(*seen, next.set);
    }
    PutRequest replacing = first;
    replacing.set = make_set({.dim = 64, .kept = 30}, 1000);
    replacing.if_exists = IfExists::kReplace;
    ASSERT_TRUE(writer.store->put(replacing).is_ok());
    expect_same_set(*reader.store->get(id), replacing.set);
    ASSERT_TRUE(writer.store->remove(id).is_ok());
    EXPECT_EQ(reader.store->get(id).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(reader.store->resolve_prefix(id.hex()).status().code(), StatusCode::kNotFound);
  }
  { const Opened again = open_reader(scratch.store()); }
  for (const std::string& name : files_in(scratch.store())) {
    EXPECT_EQ(name.find("LOG.old"), std::string::npos) << "the reader left " << name;
  }
  EXPECT_FALSE(before.empty());
}

// But for the hits that the next writer takes in.
TEST(RocksDbReader, LeavesAClosedStoreByteForByte) {
  ScratchDirectory scratch;
  const CacheId id = open(scratch.store()).store->put(make_put({}, 1))->id;
  const auto before = files_in(scratch.store());
  ASSERT_TRUE(open_reader(scratch.store()).store->get(id).is_ok());
  EXPECT_TRUE(fs::remove(fs::path(scratch.store()) / "finchkv.hits"));
  EXPECT_EQ(files_in(scratch.store()), before);
}

TEST(RocksDbReader, HitsReachTheWriter) {
  ScratchDirectory scratch;
  const CacheId id = open(scratch.store()).store->put(make_put({}, 1))->id;
  {
    const Opened reader = open_reader(scratch.store());
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(reader.store->get(id).is_ok());
  }
  EXPECT_EQ(open(scratch.store()).store->find(id)->hits, 3U);
  EXPECT_EQ(open(scratch.store()).store->find(id)->hits, 3U);  // once
}

TEST(RocksDbLog, ALostEndIsNoticed) {
  ScratchDirectory scratch;
  const CacheId first = open(scratch.store()).store->put(make_put({}, 1))->id;
  { ASSERT_TRUE(open(scratch.store()).store->put(make_put({}, 2)).is_ok()); }
  std::string newest;
  for (const std::string& name : files_in(scratch.store())) {
    if (name.size() > 4 && name.compare(name.size() - 4, 4, ".log") == 0) newest = name;
  }
  const fs::path log = fs::path(scratch.store()) / newest;
  const std::string whole = read_file(log);
  ASSERT_GT(whole.size(), 100U);
  write_file(log, whole.substr(0, whole.size() / 2));  // as a crash in the middle of a put would leave it
  const Status lost = open_status(scratch.store());
  EXPECT_EQ(lost.code(), StatusCode::kCorrupt);
  EXPECT_NE(lost.message().find("lost acknowledged writes"), std::string::npos) << lost.message();
  fs::remove(fs::path(scratch.store()) / "finchkv.acknowledged");
  EXPECT_TRUE(open(scratch.store()).store->get(first).is_ok());
}

TEST(RocksDbReader, ReadsWhileTheWriterReplacesAndCompacts) {
  ScratchDirectory scratch;
  RocksDbOptions options;
  options.large_put_bytes = 0;
  const Opened writer = open(scratch.store(), options);
  PutRequest request = make_put({.dim = 64, .kept = 30}, 1);
  request.if_exists = IfExists::kReplace;
  const CacheId id = writer.store->put(request)->id;
  std::atomic<bool> stop{false};
  std::thread replacing([&] {
    for (int i = 0; i < 150; ++i) EXPECT_TRUE(writer.store->put(request).is_ok());
    stop = true;
  });
  const Opened reader = open_reader(scratch.store());
  int reads = 0;
  for (; !stop || reads < 10; ++reads) {
    auto set = reader.store->get(id);
    ASSERT_TRUE(set.is_ok()) << set.status().message();
    expect_same_set(*set, request.set);
    auto same = writer.store->get(id);
    ASSERT_TRUE(same.is_ok()) << same.status().message();
  }
  replacing.join();
  EXPECT_EQ(writer.host->gc()->blocks, 0U);
}

TEST(RocksDbGc, LeavesOpenPutsAlone) {
  ScratchDirectory scratch;
  StoreHost* host = nullptr;
  RocksDbOptions options;
  int collected = 0;
  options.on_put_step = [&](PutStep) {
    auto report = host->gc();
    ASSERT_TRUE(report.is_ok());
    EXPECT_EQ(report->blocks, 0U);
    ++collected;
  };
  const Opened opened = open(scratch.store(), options);
  host = opened.host.get();
  const PutRequest request = make_put({}, 1);
  const CacheId id = opened.store->put(request)->id;
  EXPECT_EQ(collected, 4);
  EXPECT_TRUE(opened.store->verify(id).is_ok());
}

}  // namespace
}  // namespace finchkv::cache_store
