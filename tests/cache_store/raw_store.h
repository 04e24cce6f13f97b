// The database under a store, opened past all our code: for tests that damage it, and that count what it holds.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <rocksdb/db.h>

namespace finchkv::cache_store::testing {

class RawStore {
 public:
  explicit RawStore(const std::string& directory) {
    rocksdb::DBOptions options;
    options.info_log_level = rocksdb::InfoLogLevel::FATAL_LEVEL;
    rocksdb::DB* db = nullptr;
    std::vector<std::string> names;
    EXPECT_TRUE(rocksdb::DB::ListColumnFamilies(options, directory, &names).ok());
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    families.reserve(names.size());
    for (const std::string& name : names) families.emplace_back(name, rocksdb::ColumnFamilyOptions());
    const auto status = rocksdb::DB::Open(options, directory, families, &families_, &db);
    EXPECT_TRUE(status.ok()) << status.ToString();
    db_.reset(db);
  }
  ~RawStore() {
    for (auto* family : families_) db_->DestroyColumnFamilyHandle(family).PermitUncheckedError();
  }
  RawStore(const RawStore&) = delete;
  RawStore& operator=(const RawStore&) = delete;

  std::vector<std::pair<std::string, std::string>> all(int family) {
    std::vector<std::pair<std::string, std::string>> out;
    const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator({}, families_[static_cast<std::size_t>(family)]));
    for (it->SeekToFirst(); it->Valid(); it->Next()) out.emplace_back(it->key().ToString(), it->value().ToString());
    EXPECT_TRUE(it->status().ok()) << it->status().ToString();
    return out;
  }
  void put(int family, const std::string& key, const std::string& value) {
    EXPECT_TRUE(db_->Put({}, families_[static_cast<std::size_t>(family)], key, value).ok());
  }
  void remove(int family, const std::string& key) {
    EXPECT_TRUE(db_->Delete({}, families_[static_cast<std::size_t>(family)], key).ok());
  }

  /// Of small puts and large ones.
  std::vector<std::pair<std::string, std::string>> all_blocks() {
    std::vector<std::pair<std::string, std::string>> out;
    for (int family = kBlocks; family < static_cast<int>(families_.size()); ++family) {
      for (auto& block : all(family)) out.push_back(std::move(block));
    }
    return out;
  }

  static constexpr int kHeads = 0;
  static constexpr int kBlocks = 1;  ///< of small puts; the table families follow

 private:
  std::vector<rocksdb::ColumnFamilyHandle*> families_;
  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace finchkv::cache_store::testing
