#include "cache_store/rocksdb_backup.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/sst_file_writer.h>

#include "cache_store/rocksdb_options.h"
#include "cache_store/store_directory.h"
#include "tests/cache_store/limited_fs.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

namespace fs = std::filesystem;
using testing::LimitedFs;
using testing::ScratchDirectory;
using Contents = std::map<std::string, std::string>;  // family and key -> value

std::string bytes_for(const std::string& key, std::size_t size) {
  std::mt19937 random(static_cast<std::uint32_t>(std::hash<std::string>()(key)));
  std::string value(size, '\0');
  for (char& c : value) c = static_cast<char>(random());
  return value;
}

// A database built like a store's: heads in "default", blocks in blob files or in tables of their own.
class Database {
 public:
  explicit Database(std::string directory, rocksdb::Env* env = rocksdb::Env::Default())
      : directory_(std::move(directory)) {
    rocksdb::DBOptions options = database_options({});
    options.env = env;
    options.create_if_missing = options.create_missing_column_families = true;
    rocksdb::ColumnFamilyOptions blobs;
    blobs.enable_blob_files = true;
    blobs.min_blob_size = 1000;
    rocksdb::DB* db = nullptr;
    const auto status =
        rocksdb::DB::Open(options, directory_, {{"default", {}}, {"blocks", blobs}, {"tables", {}}}, &families_, &db);
    if (!status.ok()) throw std::runtime_error(status.ToString());
    db_.reset(db);
  }
  ~Database() {
    for (auto* family : families_) db_->DestroyColumnFamilyHandle(family).PermitUncheckedError();
  }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  rocksdb::DB& operator*() { return *db_; }

  void put_head(const std::string& key) { EXPECT_TRUE(db_->Put({}, families_[0], key, "head of " + key).ok()); }
  // Through the log, for small entries.
  void put_small(const std::string& key) {
    EXPECT_TRUE(db_->Put({}, families_[1], key, bytes_for(key, 3000)).ok());
    put_head(key);
  }
  // Past the log, as a table of its own.
  void ingest_block(const std::string& key) {
    const std::string file = directory_ + "-ingest";
    const rocksdb::Options options;
    rocksdb::SstFileWriter writer(rocksdb::EnvOptions{}, options);
    ASSERT_TRUE(writer.Open(file).ok());
    ASSERT_TRUE(writer.Put(key, bytes_for(key, 50000)).ok());
    ASSERT_TRUE(writer.Finish().ok());
    rocksdb::IngestExternalFileOptions move;
    move.move_files = true;
    const auto status = db_->IngestExternalFile(families_[2], {file}, move);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  void put_large(const std::string& key) {
    ingest_block(key);
    put_head(key);
  }
  void remove(const std::string& key) {
    for (auto* family : families_) EXPECT_TRUE(db_->Delete({}, family, key).ok());
  }
  void flush() { EXPECT_TRUE(db_->Flush({}, families_).ok()); }

  [[nodiscard]] Contents contents() {
    Contents out;
    for (auto* family : families_) {
      const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator({}, family));
      for (it->SeekToFirst(); it->Valid(); it->Next()) {
        out[family->GetName() + "/" + it->key().ToString()] = it->value().ToString();
      }
      EXPECT_TRUE(it->status().ok()) << it->status().ToString();
    }
    return out;
  }
  [[nodiscard]] std::map<rocksdb::FileType, std::uint64_t> live_bytes() {
    std::vector<rocksdb::LiveFileStorageInfo> files;
    EXPECT_TRUE(db_->GetLiveFilesStorageInfo({}, &files).ok());
    std::map<rocksdb::FileType, std::uint64_t> bytes;
    for (const auto& file : files) bytes[file.file_type] += file.size;
    return bytes;
  }

 private:
  std::string directory_;
  std::vector<rocksdb::ColumnFamilyHandle*> families_;
  std::unique_ptr<rocksdb::DB> db_;
};

class RocksDbBackup : public ::testing::Test {
 protected:
  ScratchDirectory scratch_;
  const std::string store_ = scratch_.store();
  const std::string backups_ = (scratch_.path() / "backups").string();
  const std::string restored_ = (scratch_.path() / "restored").string();

  BackupReport back_up_well(Database& database, const BackupOptions& options = {}) {
    auto report = back_up(*database, store_, backups_, options);
    EXPECT_TRUE(report.is_ok()) << report.status().message();
    return report.is_ok() ? *report : BackupReport{};
  }
  // Each into a directory that is gone afterwards.
  Contents restored(const RestoreOptions& options = {}) {
    const auto record = restore(backups_, restored_, options);
    EXPECT_TRUE(record.is_ok()) << record.status().message();
    if (!record.is_ok()) return {};
    EXPECT_EQ(*inspect_directory(restored_), DirectoryState::kStore);
    EXPECT_FALSE(fs::exists(restored_ + "/finchkv.restoring"));
    Contents contents = Database(restored_).contents();
    fs::remove_all(restored_);
    return contents;
  }
  void fill(Database& database) {
    for (int i = 0; i < 20; ++i) database.put_small("small " + std::to_string(i));
    database.flush();
    database.put_large("large 1");
    database.put_small("in the log only");
  }
  [[nodiscard]] std::vector<fs::path> backup_files() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::recursive_directory_iterator(backups_)) {
      if (entry.is_regular_file() && entry.path().filename() != "finchkv.lock") files.push_back(entry.path());
    }
    return files;
  }
};

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_file(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

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

TEST_F(RocksDbBackup, EveryDamagedFileIsNoticed) {
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

TEST_F(RocksDbBackup, ADamagedBackupLeavesOthersUsable) {
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

TEST_F(RocksDbBackup, ADamagedSharedFileIsFoundByTheNextBackup) {
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

TEST_F(RocksDbBackup, AFullDiskLeavesStoreAndBackupsAsTheyWere) {
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

TEST_F(RocksDbBackup, AnInterruptedBackupNeverCounts) {
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

TEST_F(RocksDbBackup, AnInterruptedRestoreIsNoStoreAndTheNextOneClearsIt) {
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
