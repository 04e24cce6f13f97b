// A database built like a store's, its backups, and what comes back of them: for the tests of rocksdb_backup.h.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/sst_file_writer.h>

#include "cache_store/rocksdb_backup.h"
#include "cache_store/rocksdb_options.h"
#include "cache_store/store_directory.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store::testing {

using Contents = std::map<std::string, std::string>;  // family and key -> value

inline std::string bytes_for(const std::string& key, std::size_t size) {
  std::mt19937 random(static_cast<std::uint32_t>(std::hash<std::string>()(key)));
  std::string value(size, '\0');
  for (char& c : value) c = static_cast<char>(random());
  return value;
}

// Heads in "default", blocks in blob files or in tables of their own.
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

class BackupFixture : public ::testing::Test {
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
    EXPECT_FALSE(std::filesystem::exists(restored_ + "/finchkv.restoring"));
    Contents contents = Database(restored_).contents();
    std::filesystem::remove_all(restored_);
    return contents;
  }
  void fill(Database& database) {
    for (int i = 0; i < 20; ++i) database.put_small("small " + std::to_string(i));
    database.flush();
    database.put_large("large 1");
    database.put_small("in the log only");
  }
  [[nodiscard]] std::vector<std::filesystem::path> backup_files() const {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(backups_)) {
      if (entry.is_regular_file() && entry.path().filename() != "finchkv.lock") files.push_back(entry.path());
    }
    return files;
  }
};

}  // namespace finchkv::cache_store::testing
