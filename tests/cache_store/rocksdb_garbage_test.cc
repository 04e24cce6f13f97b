// Blocks that no entry names count against the limit for as long as they are there: after a head that could not be
// written, and after a writer that was killed.
#include <atomic>
#include <filesystem>

#include <gtest/gtest.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include "tests/cache_store/raw_store.h"
#include "tests/cache_store/rocksdb_open.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

namespace fs = std::filesystem;
using testing::expect_same_set;
using testing::make_put;
using testing::make_set;
using testing::open;
using testing::Opened;
using testing::RawStore;
using testing::ScratchDirectory;

constexpr testing::SetSpec kSpec{.layers = 2, .heads = 2, .dim = 64, .kept = 64, .doc_tokens = 200};

constexpr std::size_t kBlocksOfPut = 1 + 3 * kSpec.layers + 1;  // the table, layers, the document's tokens

/// A file system whose logs refuse to be written, or to be synced, on request.
class FailingLogs final : public rocksdb::FileSystemWrapper {
 public:
  FailingLogs() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "FailingLogs"; }

  enum class Refused : int { kNothing, kAppends, kSyncs };
  std::atomic<Refused> refused{Refused::kNothing};

  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    auto status = FileSystemWrapper::NewWritableFile(name, options, file, debug);
    if (status.ok() && fs::path(name).extension() == ".log") *file = std::make_unique<Log>(std::move(*file), *this);
    return status;
  }

 private:
  class Log final : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    Log(std::unique_ptr<rocksdb::FSWritableFile> file, FailingLogs& of)
        : FSWritableFileOwnerWrapper(std::move(file)), of_(of) {}
    using FSWritableFileOwnerWrapper::Append;
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* debug) override {
      if (of_.refused == Refused::kAppends) return rocksdb::IOStatus::IOError("no log is written now");
      return FSWritableFileOwnerWrapper::Append(data, options, debug);
    }
    rocksdb::IOStatus Sync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug) override {
      if (of_.refused == Refused::kSyncs) return rocksdb::IOStatus::IOError("no log is synced now");
      return FSWritableFileOwnerWrapper::Sync(options, debug);
    }
    rocksdb::IOStatus Fsync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug) override {
      if (of_.refused == Refused::kSyncs) return rocksdb::IOStatus::IOError("no log is synced now");
      return FSWritableFileOwnerWrapper::Fsync(options, debug);
    }

   private:
    FailingLogs& of_;
  };
};

using Refused = FailingLogs::Refused;

std::uint64_t counted(StoreHost& host) {
  const auto report = host.report();
  EXPECT_TRUE(report.is_ok());
  return report->total.stored_bytes + report->reserved_bytes + report->held_bytes;
}

std::uint64_t unnamed(StoreHost& host) {
  const auto report = host.report();
  EXPECT_TRUE(report.is_ok());
  return report->reserved_bytes + report->held_bytes;
}

std::size_t blocks_on_disk(const std::string& directory) { return RawStore(directory).all_blocks().size(); }

/// Small puts, and puts with a table of their own.
class RocksDbGarbage : public ::testing::TestWithParam<std::uint64_t> {
 protected:
  RocksDbOptions options() {
    RocksDbOptions options;
    options.large_put_bytes = GetParam();
    options.env = env_.get();
    options.upkeep_interval = std::chrono::milliseconds(0);
    return options;
  }
  /// A put's head is what fails, in this way.
  RocksDbOptions failing_heads(Refused how) {
    RocksDbOptions o = options();
    o.on_put_step = [this, how](PutStep step) {
      if (step == PutStep::kBlocksWritten && head_fails_) logs_->refused = how;
    };
    return o;
  }
  /// The store's files as a kill between a put's blocks and its head leaves them.
  void kill_in_second_put() {
    RocksDbOptions o = options();
    int puts = 0;
    o.on_put_step = [&](PutStep step) {
      if (step == PutStep::kBlocksWritten && ++puts == 2) {
        fs::copy(scratch_.store(), killed_, fs::copy_options::recursive);
      }
    };
    const Opened opened = open(scratch_.store(), o);
    stored_ = opened.store->put(make_put(kSpec, 1))->stored_bytes;
    ASSERT_TRUE(opened.store->put(make_put(kSpec, 2)).is_ok());
    ASSERT_EQ(puts, 2);
  }

  ScratchDirectory scratch_;
  const std::string killed_ = (scratch_.path() / "killed").string();
  const std::shared_ptr<FailingLogs> logs_ = std::make_shared<FailingLogs>();
  const std::unique_ptr<rocksdb::Env> env_ = rocksdb::NewCompositeEnv(logs_);
  bool head_fails_ = false;
  std::uint64_t stored_ = 0;
};

TEST_P(RocksDbGarbage, AHeadThatWasNotWrittenLeavesItsBlocksCounted) {
  {
    const Opened opened = open(scratch_.store(), failing_heads(Refused::kAppends));
    const EntryInfo before = *opened.store->put(make_put(kSpec, 1));
    head_fails_ = true;
    EXPECT_FALSE(opened.store->put(make_put(kSpec, 2)).is_ok());
    EXPECT_GT(unnamed(*opened.host), before.stored_bytes / 2);
    head_fails_ = false;
    logs_->refused = Refused::kNothing;
    // The next write opens the database again, and then it is known that there is no head.
    const EntryInfo after = *opened.store->put(make_put(kSpec, 3));
    EXPECT_EQ(unnamed(*opened.host), 0U);
    EXPECT_EQ(counted(*opened.host), before.stored_bytes + after.stored_bytes);
    EXPECT_EQ(opened.host->gc()->puts, 0U);
    EXPECT_TRUE(opened.store->verify(before.id).is_ok());
    EXPECT_TRUE(opened.store->verify(after.id).is_ok());
  }
  EXPECT_EQ(blocks_on_disk(scratch_.store()), 2 * kBlocksOfPut);
}

TEST_P(RocksDbGarbage, AHeadThatWasWrittenAfterAllIsAnEntry) {
  PutRequest failing = make_put(kSpec, 2);
  {
    const Opened opened = open(scratch_.store(), failing_heads(Refused::kSyncs));
    const EntryInfo before = *opened.store->put(make_put(kSpec, 1));
    // It was to replace this one.
    const CacheId id = opened.store->put(failing)->id;
    failing.set = make_set(kSpec, 77);
    failing.if_exists = IfExists::kReplace;
    head_fails_ = true;
    EXPECT_FALSE(opened.store->put(failing).is_ok());
    EXPECT_GT(counted(*opened.host), 2 * before.stored_bytes + before.stored_bytes / 2);
    head_fails_ = false;
    logs_->refused = Refused::kNothing;
    ASSERT_TRUE(opened.store->set_label(before.id, "opened again").is_ok());
    const auto set = opened.store->get(id);
    ASSERT_TRUE(set.is_ok()) << set.status().to_string();
    expect_same_set(*set, failing.set);
    ASSERT_TRUE(opened.host->gc().is_ok());
    EXPECT_EQ(unnamed(*opened.host), 0U);
    EXPECT_TRUE(opened.store->verify(id).is_ok());
  }
  EXPECT_EQ(blocks_on_disk(scratch_.store()), 2 * kBlocksOfPut);
}

TEST_P(RocksDbGarbage, WhatAKilledWriterLeftIsGoneOnceItIsOpen) {
  kill_in_second_put();
  {
    const Opened opened = open(killed_, options());
    EXPECT_EQ(unnamed(*opened.host), 0U);
    EXPECT_EQ(counted(*opened.host), stored_);
    EXPECT_EQ(opened.host->gc()->puts, 0U);
  }
  EXPECT_EQ(blocks_on_disk(killed_), kBlocksOfPut);
}

TEST_P(RocksDbGarbage, WhatCannotBeRemovedYetIsCounted) {
  kill_in_second_put();
  // Not a table's: those go as files.
  const bool goes = GetParam() == 0;
  {
    logs_->refused = Refused::kAppends;
    const Opened opened = open(killed_, options());
    EXPECT_EQ(unnamed(*opened.host) > stored_ / 2, !goes);
    EXPECT_TRUE(opened.store->list({}, 10).is_ok());
  }
  logs_->refused = Refused::kNothing;  // and it was not forgotten
  const Opened opened = open(killed_, options());
  EXPECT_EQ(unnamed(*opened.host), 0U);
  EXPECT_EQ(opened.host->gc()->puts, 0U);
}

INSTANTIATE_TEST_SUITE_P(Puts, RocksDbGarbage, ::testing::Values(std::uint64_t{1} << 30, std::uint64_t{0}),
                         [](const auto& large) { return large.param == 0 ? "tables" : "small"; });

}  // namespace
}  // namespace finchkv::cache_store
