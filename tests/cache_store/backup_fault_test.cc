// Damage to backups, full disks under them, and processes that die while they are made or restored.
#include <algorithm>
#include <filesystem>

#include <gtest/gtest.h>
#include <rocksdb/env.h>

#include "cache_store/rocksdb_backup.h"
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

class BackupFault : public BackupFixture {};

TEST_F(BackupFault, EveryDamagedFileIsNoticed) {
  Database database(store_);
  fill(database);
  back_up_well(database);
  const Contents contents = database.contents();
  const auto quick = rocksdb::NewCompositeEnv(std::make_shared<LimitedFs>());
  const auto refused = [&](const std::string& what, bool restoring) {
    const Status verified = verify_backup(backups_);
    ASSERT_FALSE(verified.is_ok()) << what;
    const bool marker = what.find("finchkv.backup") != std::string::npos;
    if (!marker) {
      ASSERT_EQ(verified.code(), StatusCode::kCorrupt) << what << ": " << verified.message();
    }
    if (!restoring) return;
    const auto restored = restore(backups_, restored_, {.env = quick.get()});
    EXPECT_EQ(restored.status().code(), verified.code()) << what << ": " << restored.status().message();
    const auto state = inspect_directory(restored_);
    ASSERT_TRUE(state.is_ok()) << what << ": " << state.status().message();
    EXPECT_TRUE(*state == DirectoryState::kEmpty || *state == DirectoryState::kMissing) << what;
  };
  const auto files = backup_files();
  ASSERT_GT(files.size(), 8U);  // marker, digest, list, CURRENT, manifest, options, log, tables, blob file
  for (const fs::path& file : files) {
    const std::string good = read_file(file);
    const std::size_t step = good.size() / 60 + 1;
    for (std::size_t at = 0; at < good.size(); at += step) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << (at % 8)));
      write_file(file, bad);
      refused(file.string() + " at " + std::to_string(at), at == 0);
    }
    write_file(file, good.substr(0, good.size() / 2));
    refused("half of " + file.string(), true);
    // Without its digest a backup was never finished, without its marker the directory is another's.
    if (file.filename().string().rfind("finchkv.", 0) != 0 && file.parent_path().filename() != "meta") {
      fs::remove(file);
      refused("without " + file.string(), true);
    }
    write_file(file, good);
  }
  EXPECT_TRUE(verify_backup(backups_).is_ok());
  EXPECT_EQ(restored(), contents);
}

TEST_F(BackupFault, ADamagedBackupLeavesOthersUsable) {
  Database database(store_);
  fill(database);
  back_up_well(database);
  const Contents first = database.contents();
  database.put_small("later");
  back_up_well(database);
  // A digit of a file's digest that the first backup's list has too: RocksDB has an assertion against that.
  const fs::path list = backups_ + "/meta/2";
  std::string text = read_file(list);
  char& digit = text.at(text.find("crc32 ", text.find("shared_checksum")) + 6);
  digit = digit == '1' ? '2' : '1';
  write_file(list, text);

  EXPECT_EQ(verify_backup(backups_).code(), StatusCode::kCorrupt);
  EXPECT_TRUE(verify_backup(backups_, 1).is_ok());
  EXPECT_EQ(restore(backups_, restored_).status().code(), StatusCode::kCorrupt) << "the newest is meant";
  EXPECT_EQ(restored({.id = 1}), first);
  const auto listed = list_backups(backups_);
  ASSERT_EQ(listed->size(), 2U);
  EXPECT_FALSE((*listed)[0].damaged);
  EXPECT_TRUE((*listed)[1].damaged);
  // Its files could still be told by hand: nothing is written here before somebody has decided.
  const Status status = back_up(*database, store_, backups_).status();
  EXPECT_EQ(status.code(), StatusCode::kCorrupt);
  EXPECT_NE(status.message().find("meta/2"), std::string::npos) << status.message();
  EXPECT_TRUE(fs::exists(list));
  fs::remove(list);
  EXPECT_EQ(back_up_well(database).backup.id, 2U);
  EXPECT_EQ(restored(), database.contents());
}

TEST_F(BackupFault, ADamagedSharedFileIsFoundByTheNextBackup) {
  Database database(store_);
  fill(database);
  back_up_well(database);
  for (const fs::path& file : backup_files()) {
    if (file.extension() != ".blob") continue;
    std::string bytes = read_file(file);
    bytes[100] = static_cast<char>(bytes[100] ^ 1);
    write_file(file, bytes);
  }
  const Status status = back_up(*database, store_, backups_).status();
  EXPECT_EQ(status.code(), StatusCode::kCorrupt) << status.message();
  EXPECT_NE(status.message().find("another directory"), std::string::npos) << status.message();
  EXPECT_EQ(list_backups(backups_)->size(), 1U);
}

TEST_F(BackupFault, AFullDiskLeavesStoreAndBackupsAsTheyWere) {
  Database database(store_);
  fill(database);
  back_up_well(database);
  database.put_large("large 2");
  const auto limited = std::make_shared<LimitedFs>();
  const auto env = rocksdb::NewCompositeEnv(limited);
  for (const std::uint64_t room : {0U, 100U, 3000U, 40000U, 51000U, 60000U}) {
    limited->leave_bytes(room);
    const auto report = back_up(*database, store_, backups_, {.env = env.get()});
    if (report.is_ok()) {
      EXPECT_GE(room, 51000U);
      break;
    }
    EXPECT_EQ(report.status().code(), StatusCode::kResourceExhausted) << report.status().message();
    database.put_small("while full " + std::to_string(room));
    EXPECT_EQ(list_backups(backups_)->size(), 1U);
    EXPECT_TRUE(verify_backup(backups_).is_ok());
    limited->leave_bytes(room);
    const Status restored = restore(backups_, restored_, {.env = env.get()}).status();
    EXPECT_EQ(restored.code(), StatusCode::kResourceExhausted) << restored.message();
    EXPECT_EQ(*inspect_directory(restored_), DirectoryState::kEmpty);
  }
  limited->leave_bytes(std::nullopt);
  EXPECT_GT(limited->refused(), 0U);
  back_up_well(database, {.env = env.get()});
  EXPECT_EQ(restored({.env = env.get()}), database.contents());
}

TEST_F(BackupFault, AnInterruptedBackupNeverCounts) {
  Database database(store_);
  fill(database);
  back_up_well(database);
  const Contents first = database.contents();
  database.put_large("large 2");
  const Contents second = database.contents();
  std::uint64_t interrupted = 0;
  for (std::uint64_t changes = 0;; ++changes) {
    const auto limited = std::make_shared<LimitedFs>();
    const auto env = rocksdb::NewCompositeEnv(limited);
    limited->die_after(changes);
    const auto report = back_up(*database, store_, backups_, {.env = env.get()});
    if (report.is_ok()) break;
    ++interrupted;
    ASSERT_TRUE(verify_backup(backups_).is_ok()) << changes;
    const auto listed = list_backups(backups_);
    ASSERT_TRUE(listed.is_ok()) << listed.status().message();
    // It may have got as far as to count, and died in what comes after.
    ASSERT_LE(listed->size(), 2U);
    if (listed->size() == 2) break;
  }
  EXPECT_GT(interrupted, 20U);
  EXPECT_EQ(restored({.id = 1}), first);
  const BackupReport last = back_up_well(database);
  EXPECT_EQ(restored({.id = last.backup.id}), second);
  EXPECT_EQ(restored({.id = 2}), second);
}

// A backup that failed may have left its digest, and the next one takes its number. Should that die before it counts,
// it was never finished, and is not damaged.
TEST_F(BackupFault, AnInterruptedBackupAfterAFailedOneIsNotDamage) {
  Database database(store_);
  database.put_small("a");
  back_up_well(database);
  database.put_small("b");
  const auto a_digest_is_left = [&] {
    return std::ranges::any_of(backup_files(), [&](const fs::path& file) {
      const std::string name = file.filename().string();
      const std::string start = "finchkv.list.";
      return name.rfind(start, 0) == 0 && !fs::exists(fs::path(backups_) / "meta" / name.substr(start.size()));
    });
  };
  std::uint64_t left_digests = 0;
  for (std::uint64_t changes = 0;; ++changes) {
    const auto failing = std::make_shared<LimitedFs>();
    const auto env = rocksdb::NewCompositeEnv(failing);
    failing->fail_once_after(changes);
    const auto report = back_up(*database, store_, backups_, {.env = env.get()});
    if (changes >= failing->changes()) break;
    if (report.is_ok() || !a_digest_is_left()) continue;
    ++left_digests;
    database.put_small("after " + std::to_string(changes));  // so that the next list is another
    for (std::uint64_t lived = 1;; ++lived) {
      const auto dying = std::make_shared<LimitedFs>();
      const auto dying_env = rocksdb::NewCompositeEnv(dying);
      dying->die_after(lived);
      if (back_up(*database, store_, backups_, {.env = dying_env.get()}).is_ok()) break;
      const Status sound = verify_backup(backups_);
      ASSERT_TRUE(sound.is_ok()) << "failed at " << changes << ", died at " << lived << ": " << sound.message();
    }
  }
  EXPECT_GT(left_digests, 0U);
  EXPECT_EQ(restored({.id = back_up_well(database).backup.id}), database.contents());
}

TEST_F(BackupFault, AnInterruptedRestoreIsNoStoreAndTheNextOneClearsIt) {
  Database database(store_);
  fill(database);
  back_up_well(database);
  std::uint64_t interrupted = 0;
  for (std::uint64_t changes = 0;; ++changes) {
    const auto limited = std::make_shared<LimitedFs>();
    const auto env = rocksdb::NewCompositeEnv(limited);
    limited->die_after(changes);
    const auto record = restore(backups_, restored_, {.env = env.get()});
    const auto state = inspect_directory(restored_);
    if (state.is_ok() && *state == DirectoryState::kStore) {
      EXPECT_EQ(Database(restored_).contents(), database.contents()) << changes;
      if (record.is_ok() && !limited->died()) break;
      fs::remove_all(restored_);
      continue;
    }
    ASSERT_FALSE(record.is_ok()) << changes;
    ++interrupted;
    if (changes % 3 == 0) continue;  // the next one dies elsewhere, over these leftovers
    ASSERT_EQ(restored(), database.contents()) << changes;
  }
  EXPECT_GT(interrupted, 20U);
}

}  // namespace
}  // namespace finchkv::cache_store
