// For damage and interruptions see backup_fault_test.cc.
#include "cache_store/rocksdb_backup.h"

#include <chrono>
#include <filesystem>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <thread>

#include <gtest/gtest.h>
#include <rocksdb/env.h>

#include "cache_store/store_directory.h"
#include "tests/cache_store/backup_fixture.h"
#include "tests/cache_store/limited_fs.h"
#include "tests/cache_store/rocksdb_open.h"

namespace finchkv::cache_store {
namespace {

namespace fs = std::filesystem;
using testing::BackupFixture;
using testing::Contents;
using testing::Database;
using testing::LimitedFs;
using testing::read_file;
using testing::write_file;

class RocksDbBackup : public BackupFixture {};

TEST_F(RocksDbBackup, EachBackupComesBackAsItWas) {
  Database database(store_);
  fill(database);
  const Contents first = database.contents();
  auto live = database.live_bytes();
  ASSERT_GT(live[rocksdb::kBlobFile], 60000U);
  ASSERT_GT(live[rocksdb::kTableFile], 50000U);
  const BackupReport one = back_up_well(database);
  EXPECT_EQ(one.backup.id, 1U);
  EXPECT_EQ(one.copied_bytes, one.backup.bytes);
  EXPECT_EQ(one.copied_files, one.backup.files);
  EXPECT_GT(one.backup.bytes, 110000U);
  const auto now =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  EXPECT_LT(static_cast<std::uint64_t>(now) - one.backup.created_unix_ms, 60000U);

  database.remove("small 3");
  database.put_small("later");
  database.put_large("large 2");
  const Contents second = database.contents();
  ASSERT_NE(first, second);
  const BackupReport two = back_up_well(database);
  EXPECT_EQ(two.backup.id, 2U);
  // Blob file and first table are there already: the second table and what is in the log are all.
  EXPECT_GT(two.copied_bytes, 50000U);
  EXPECT_LT(two.copied_bytes, 80000U);
  EXPECT_EQ(two.backup.bytes, one.backup.bytes + two.copied_bytes -
                                  (one.copied_bytes - live[rocksdb::kBlobFile] - live[rocksdb::kTableFile]));

  EXPECT_TRUE(verify_backup(backups_).is_ok());
  const auto listed = list_backups(backups_);
  ASSERT_TRUE(listed.is_ok());
  ASSERT_EQ(listed->size(), 2U);
  for (const std::size_t i : {0U, 1U}) {
    const BackupRecord& made = (i == 0 ? one : two).backup;
    EXPECT_EQ((*listed)[i].id, made.id);
    EXPECT_EQ((*listed)[i].bytes, made.bytes);
    EXPECT_EQ((*listed)[i].files, made.files);
    EXPECT_EQ((*listed)[i].created_unix_ms, made.created_unix_ms);
    EXPECT_FALSE((*listed)[i].damaged);
  }
  EXPECT_EQ(restored({.id = 1}), first);
  EXPECT_EQ(restored({.id = 2}), second);
  EXPECT_EQ(restored(), second);
  EXPECT_EQ(restore(backups_, restored_, {.id = 3}).status().code(), StatusCode::kNotFound);
}

TEST_F(RocksDbBackup, ARestoredStoreGoesOnInTheSameBackups) {
  std::string identity;
  {
    Database database(store_);
    fill(database);
    back_up_well(database);
    ASSERT_TRUE((*database).GetDbIdentity(identity).ok());
  }
  fs::remove_all(store_);
  fs::create_directory(store_);  // empty will do
  ASSERT_TRUE(restore(backups_, store_).is_ok());
  Database again(store_);
  std::string same;
  ASSERT_TRUE((*again).GetDbIdentity(same).ok());
  EXPECT_EQ(same, identity);
  again.put_small("after the restore");
  const BackupReport report = back_up_well(again);
  EXPECT_EQ(report.backup.id, 2U);
  EXPECT_LT(report.copied_bytes, 40000U);
  EXPECT_EQ(restored(), again.contents());
}

TEST_F(RocksDbBackup, TheNewestAreKept) {
  Database database(store_);
  std::map<std::uint32_t, Contents> then;
  for (std::uint32_t i = 1; i <= 5; ++i) {
    database.put_large("large " + std::to_string(i));
    if (i == 3) database.remove("large 1");
    then[i] = database.contents();
    const BackupReport report = back_up_well(database, {.keep = 2});
    EXPECT_EQ(report.removed, i <= 2 ? std::vector<std::uint32_t>{} : std::vector<std::uint32_t>{i - 2});
  }
  const auto listed = list_backups(backups_);
  ASSERT_EQ(listed->size(), 2U);
  EXPECT_EQ(listed->front().id, 4U);
  EXPECT_EQ(restored({.id = 4}), then[4]);
  EXPECT_EQ(restored(), then[5]);
  std::uint64_t digests = 0;
  for (const fs::path& file : backup_files())
    digests += file.filename().string().rfind("finchkv.list.", 0) == 0 ? 1 : 0;
  EXPECT_EQ(digests, 2U);
}

TEST_F(RocksDbBackup, OtherDirectoriesAreRefused) {
  Database database(store_);
  fill(database);
  const auto refused = [&](const std::string& directory) {
    const Status status = back_up(*database, store_, directory).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << directory << ": " << status.message();
  };
  const std::string foreign = (scratch_.path() / "foreign").string();
  fs::create_directory(foreign);
  write_file(foreign + "/thesis.txt", "all I have");
  refused(foreign);
  EXPECT_EQ(std::distance(fs::directory_iterator(foreign), fs::directory_iterator()), 1);
  EXPECT_EQ(list_backups(foreign).status().code(), StatusCode::kInvalidArgument);
  refused(store_);
  refused(store_ + "/backups");
  refused(scratch_.path().string());
  EXPECT_FALSE(fs::exists(store_ + "/backups"));
  EXPECT_EQ(list_backups(backups_).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(restore(backups_, restored_).status().code(), StatusCode::kNotFound);
  EXPECT_FALSE(fs::exists(restored_));

  Database other((scratch_.path() / "other").string());
  other.put_small("hers");
  ASSERT_TRUE(back_up(*other, (scratch_.path() / "other").string(), backups_).is_ok());
  refused(backups_);
  EXPECT_EQ(list_backups(backups_)->size(), 1U);
}

TEST_F(RocksDbBackup, OnlyAnEmptyDirectoryBecomesAStore) {
  Database database(store_);
  fill(database);
  back_up_well(database);
  const auto refused = [&](const std::string& directory) {
    const Status status = restore(backups_, directory).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << directory << ": " << status.message();
  };
  fs::create_directory(restored_);
  write_file(restored_ + "/000001.log", "not a log");
  refused(restored_);
  EXPECT_EQ(read_file(restored_ + "/000001.log"), "not a log");
  write_file(restored_ + "/thesis.txt", "all I have");
  fs::create_directory(restored_ + "/finchkv.restoring");
  refused(restored_);
  EXPECT_TRUE(fs::exists(restored_ + "/000001.log"));
  refused(restored_ + "/thesis.txt");
  refused(backups_);
  refused(backups_ + "/store");
  const std::string full = (scratch_.path() / "full").string();
  ASSERT_TRUE(restore(backups_, full).is_ok());
  refused(full);
  EXPECT_EQ(Database(full).contents(), database.contents());
}

TEST_F(RocksDbBackup, OneAtATime) {
  Database database(store_);
  database.put_small("a");
  back_up_well(database);
  {
    const auto lock = WriterLock::acquire(backups_, std::chrono::milliseconds(0));
    ASSERT_TRUE(lock.is_ok());
    EXPECT_EQ(back_up(*database, store_, backups_).status().code(), StatusCode::kUnavailable);
    EXPECT_EQ(restore(backups_, restored_).status().code(), StatusCode::kUnavailable);
    EXPECT_EQ(list_backups(backups_)->size(), 1U);
  }
  EXPECT_EQ(back_up_well(database).backup.id, 2U);
}

// A head that comes between the two looks that the engine takes at the database must not be in the backup without its
// table, which came too late for the first.
TEST_F(RocksDbBackup, NoHeadComesWithoutItsBlocks) {
  const auto hooked = std::make_shared<LimitedFs>();
  const auto env = rocksdb::NewCompositeEnv(hooked);
  Database database(store_, env.get());
  fill(database);
  std::mutex heads;
  std::thread writer;
  int between = 0;
  hooked->on_listing(store_, [&] {  // the log's length is being taken
    if (++between != 1) return;
    database.ingest_block("between");
    writer = std::thread([&] {
      const std::lock_guard lock(heads);
      database.put_head("between");
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));  // time enough for the head, were it not held
  });
  BackupOptions options;
  options.while_heads_rest = [&](const std::function<void()>& list) {
    const std::lock_guard lock(heads);
    list();
  };
  back_up_well(database, options);
  ASSERT_GT(between, 0);
  writer.join();
  const Contents then = restored();
  EXPECT_FALSE(then.contains("default/between") && !then.contains("tables/between"));
  EXPECT_TRUE(then.contains("default/large 1"));
  EXPECT_TRUE(database.contents().contains("default/between"));
  back_up_well(database, options);
  EXPECT_EQ(restored(), database.contents());
}

}  // namespace
}  // namespace finchkv::cache_store
