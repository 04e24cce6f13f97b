// Damage under the RocksDB store, and full disks.
#include <atomic>
#include <thread>

#include <gtest/gtest.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include "cache_store/codec.h"
#include "cache_store/head_codec.h"
#include "tests/cache_store/encoded.h"
#include "tests/cache_store/raw_store.h"
#include "tests/cache_store/rocksdb_open.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

namespace fs = std::filesystem;
using testing::expect_same_set;
using testing::make_put;
using testing::open;
using testing::open_status;
using testing::Opened;
using testing::RawStore;
using testing::read_file;
using testing::ScratchDirectory;
using testing::write_file;

class RocksDbDamage : public ::testing::Test {
 protected:
  void SetUp() override {
    const Opened opened = open(scratch_.store());
    request_ = make_put({.origins_per_head = true}, 1, {}, DType::kBF16);
    request_.set = *convert_kvset(request_.set, DType::kBF16);
    id_ = opened.store->put(request_)->id;
    other_ = opened.store->put(make_put({}, 2))->id;
  }
  // The key and value of every block of the entry, and of its head.
  std::vector<std::pair<std::string, std::string>> raw(int family) {
    std::vector<std::pair<std::string, std::string>> mine;
    if (family == RawStore::kBlocks) put_id();  // opens the store itself
    RawStore store(scratch_.store());
    for (auto& [key, value] : store.all(family)) {
      const bool of_entry = family == RawStore::kBlocks
                                ? key.substr(0, 16) == put_id_
                                : key[0] == 'H' && key.substr(2) == std::string(id_.bytes.begin(), id_.bytes.end());
      if (of_entry) mine.emplace_back(key, value);
    }
    return mine;
  }
  std::string put_id() {
    if (put_id_.empty()) {
      const auto heads = raw(RawStore::kHeads);
      EXPECT_EQ(heads.size(), 1U);
      const std::string& record = heads[0].second;
      const auto head = decode_head(std::as_bytes(std::span(record.data(), record.size())), id_, {});
      EXPECT_TRUE(head.is_ok());
      put_id_.assign(head->put_id.bytes.begin(), head->put_id.bytes.end());
    }
    return put_id_;
  }
  void expect_corrupt(const std::string& what) {
    const Opened opened = open(scratch_.store());
    const Status got = opened.store->get(id_).status();
    EXPECT_EQ(got.code(), StatusCode::kCorrupt) << what << ": " << got.to_string();
    EXPECT_NE(got.message().find(id_.hex()), std::string::npos) << got.message();
    EXPECT_EQ(opened.store->verify(id_).code(), StatusCode::kCorrupt) << what;
    EXPECT_TRUE(opened.store->get(other_).is_ok()) << what;  // nobody else suffers
  }

  ScratchDirectory scratch_;
  PutRequest request_;
  CacheId id_;
  CacheId other_;
  std::string put_id_;
};

TEST_F(RocksDbDamage, AFlippedBitInAnyBlockIsNoticed) {
  const auto blocks = raw(RawStore::kBlocks);
  ASSERT_EQ(blocks.size(), 8U);
  std::mt19937 random(5);
  for (const auto& [key, value] : blocks) {
    std::string flipped = value;
    flipped[random() % flipped.size()] ^= static_cast<char>(1U << (random() % 8));
    RawStore(scratch_.store()).put(RawStore::kBlocks, key, flipped);
    if (static_cast<unsigned char>(key.back()) == 7) {  // the document's tokens are not read by get
      const Opened opened = open(scratch_.store());
      EXPECT_EQ(opened.store->verify(id_).code(), StatusCode::kCorrupt);
      EXPECT_EQ(opened.store->read_document_tokens(id_).status().code(), StatusCode::kCorrupt);
    } else {
      expect_corrupt("block " + std::to_string(key.back()));
    }
    RawStore(scratch_.store()).put(RawStore::kBlocks, key, value);
  }
  EXPECT_TRUE(open(scratch_.store()).store->verify(id_).is_ok());
}

TEST_F(RocksDbDamage, EveryBitOfTheTableAndOfEachBlockOneByOne) {
  // Through the codec alone: thousands of openings would only cost time.
  const auto blocks = raw(RawStore::kBlocks);
  const auto heads = raw(RawStore::kHeads);
  const auto head = decode_head(std::as_bytes(std::span(heads[0].second)), id_, {});
  ASSERT_TRUE(head.is_ok());
  EncodedEntry entry;
  entry.head = *head;
  for (const auto& [key, bytes] : blocks) {
    entry.blocks.push_back({.ordinal = static_cast<std::uint32_t>(entry.blocks.size()),
                            .encoding = BlockEncoding::kPlain,
                            .bytes = std::as_bytes(std::span(bytes)),
                            .owner = nullptr});
  }
  const auto verified = [&]() -> Status {
    testing::EncodedSource source(entry);
    FINCHKV_ASSIGN_OR_RETURN(const EntryReader reader, EntryReader::open(*head, "", nullptr, source));
    return reader.verify({}, source);
  };
  for (std::size_t damaged = 0; damaged < blocks.size(); ++damaged) {
    std::string flipped = blocks[damaged].second;
    entry.blocks[damaged].bytes = std::as_bytes(std::span(flipped));
    for (std::size_t bit = 0; bit < flipped.size() * 8; ++bit) {
      flipped[bit / 8] ^= static_cast<char>(1U << (bit % 8));
      ASSERT_EQ(verified().code(), StatusCode::kCorrupt) << damaged << " " << bit;
      flipped[bit / 8] ^= static_cast<char>(1U << (bit % 8));
    }
    ASSERT_TRUE(verified().is_ok());
    entry.blocks[damaged].bytes = std::as_bytes(std::span(blocks[damaged].second));
  }
}

TEST_F(RocksDbDamage, EveryBitOfTheHead) {
  const auto [key, value] = raw(RawStore::kHeads)[0];
  for (std::size_t bit = 0; bit < value.size() * 8; ++bit) {
    std::string flipped = value;
    flipped[bit / 8] ^= static_cast<char>(1U << (bit % 8));
    ASSERT_FALSE(decode_head(std::as_bytes(std::span(flipped)), id_, {}).is_ok()) << bit;
  }
  std::string flipped = value;
  flipped[100] ^= 4;
  RawStore(scratch_.store()).put(RawStore::kHeads, key, flipped);
  expect_corrupt("head");
}

TEST_F(RocksDbDamage, SwappedShortenedAndMissingBlocksAreNoticed) {
  const auto blocks = raw(RawStore::kBlocks);
  const auto& [keys_key, keys] = blocks[1];
  const auto& [values_key, values] = blocks[2];
  {
    RawStore store(scratch_.store());
    store.put(RawStore::kBlocks, keys_key, values);
    store.put(RawStore::kBlocks, values_key, keys);
  }
  expect_corrupt("swapped");
  {
    RawStore store(scratch_.store());
    store.put(RawStore::kBlocks, values_key, values);
    store.put(RawStore::kBlocks, keys_key, keys.substr(1));
  }
  expect_corrupt("shortened");
  RawStore(scratch_.store()).put(RawStore::kBlocks, keys_key, "");
  expect_corrupt("emptied");
  RawStore(scratch_.store()).remove(RawStore::kBlocks, keys_key);
  expect_corrupt("missing");
}

TEST_F(RocksDbDamage, AHeadUnderAnotherIdIsNoticed) {
  const auto mine = raw(RawStore::kHeads)[0];
  std::string other_key = mine.first;
  other_key.replace(2, 32, std::string(other_.bytes.begin(), other_.bytes.end()));
  RawStore(scratch_.store()).put(RawStore::kHeads, other_key, mine.second);
  EXPECT_EQ(open(scratch_.store()).store->get(other_).status().code(), StatusCode::kCorrupt);
}

TEST_F(RocksDbDamage, ADamagedHeadCanBeListedRemovedAndReplaced) {
  auto [key, value] = raw(RawStore::kHeads)[0];
  value[50] ^= 1;
  RawStore(scratch_.store()).put(RawStore::kHeads, key, value);
  {
    const Opened opened = open(scratch_.store());
    auto page = opened.store->list({}, 10);
    ASSERT_EQ(page->unreadable, std::vector<CacheId>{id_});
    EXPECT_EQ(page->entries.size(), 1U);
    EXPECT_EQ(opened.store->stats()->unreadable, 1U);
    EXPECT_EQ(*opened.store->resolve_prefix(id_.hex().substr(0, 20)), id_);
    ASSERT_TRUE(opened.store->put(request_).is_ok());
    expect_same_set(*opened.store->get(id_), request_.set);
    EXPECT_EQ(opened.host->gc()->blocks, 0U);  // those of the entry whose head was damaged went with it
    EXPECT_TRUE(opened.store->verify(id_).is_ok());
  }
  RawStore(scratch_.store()).put(RawStore::kHeads, key, value);
  const Opened opened = open(scratch_.store());
  EXPECT_TRUE(opened.store->remove(id_).is_ok());
  EXPECT_EQ(opened.host->gc()->puts, 0U);
}

// The default tenant's own entry stands in front of a shared one under the same id.
TEST_F(RocksDbDamage, AnOwnEntryThatIsDamagedHidesNoSharedOne) {
  const auto own_blocks = raw(RawStore::kBlocks);
  const auto own_head = raw(RawStore::kHeads)[0];
  PutRequest shared = request_;
  shared.sharing = Sharing::kShared;
  shared.if_exists = IfExists::kKeep;
  shared.set = *convert_kvset(make_put({.origins_per_head = true}, 9).set, DType::kBF16);
  {
    const Opened opened = open(scratch_.store());
    ASSERT_TRUE((*opened.host->view({}, {.publisher = true}))->put(shared).is_ok());
    EXPECT_EQ(opened.store->find(id_)->sharing, Sharing::kPrivate);
  }
  const auto expect_shared = [&](const std::string& what) {
    const Opened opened = open(scratch_.store());
    const auto got = opened.store->get(id_);
    ASSERT_TRUE(got.is_ok()) << what << ": " << got.status().to_string();
    expect_same_set(*got, shared.set);
    EXPECT_TRUE(opened.store->read_origins(id_).is_ok()) << what;
    EXPECT_TRUE(opened.store->read_packed(id_).is_ok()) << what;
    EXPECT_EQ(opened.store->verify(id_).code(), StatusCode::kCorrupt) << what;  // the damage is told
    EXPECT_NE(opened.store->set_label(id_, "x").code(), StatusCode::kOk) << what;
  };
  for (const std::size_t block : {0, 2}) {
    std::string flipped = own_blocks[block].second;
    flipped[flipped.size() / 2] ^= 8;
    RawStore(scratch_.store()).put(RawStore::kBlocks, own_blocks[block].first, flipped);
    const Opened opened = open(scratch_.store());
    const auto got = opened.store->get(id_);
    ASSERT_TRUE(got.is_ok()) << block << ": " << got.status().to_string();
    expect_same_set(*got, shared.set);
    auto streamed = opened.store->stream(id_);
    ASSERT_TRUE(streamed.is_ok());
    EXPECT_TRUE((*streamed)->layer(1).is_ok());
    EXPECT_TRUE((*streamed)->finish().is_ok());
    EXPECT_EQ(opened.store->verify(id_).code(), StatusCode::kCorrupt);
  }
  EXPECT_EQ(open(scratch_.store()).host->scrub({})->quarantined, std::vector<CacheId>{id_});
  expect_shared("quarantine");
  std::string flipped = own_head.second;
  flipped[50] ^= 1;
  RawStore(scratch_.store()).put(RawStore::kHeads, own_head.first, flipped);
  expect_shared("head");
  // Where both are damaged the own one's damage is told.
  EXPECT_TRUE(open(scratch_.store()).store->remove(id_).is_ok());
  EXPECT_TRUE(open(scratch_.store()).store->verify(id_).is_ok());
}

TEST_F(RocksDbDamage, ANewerProgramsHeadKeepsItsBlocks) {
  const auto [key, value] = raw(RawStore::kHeads)[0];
  const auto blocks = raw(RawStore::kBlocks);
  EntryHead head = *decode_head_unbound(std::as_bytes(std::span(value)));
  head.provenance = static_cast<Provenance>(7);
  const auto record = encode_head(head);
  RawStore(scratch_.store()).put(RawStore::kHeads, key, {reinterpret_cast<const char*>(record.data()), record.size()});
  {
    const Opened opened = open(scratch_.store());
    EXPECT_EQ(opened.store->get(id_).status().code(), StatusCode::kUnsupported);
    EXPECT_EQ(opened.host->gc().status().code(), StatusCode::kUnsupported);
  }
  EXPECT_EQ(raw(RawStore::kBlocks), blocks);
}

fs::path log_of(const std::string& directory) {
  fs::path largest;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() == ".log" && (largest.empty() || entry.file_size() > fs::file_size(largest))) {
      largest = entry.path();
    }
  }
  return largest;
}

TEST_F(RocksDbDamage, AFlippedBitInTheLogIsNoticedAndATornEndIsNot) {
  const fs::path log = log_of(scratch_.store());
  ASSERT_FALSE(log.empty());
  const std::string bytes = read_file(log);
  ASSERT_GT(bytes.size(), 2000U);
  std::string flipped = bytes;
  flipped[300] ^= 1;
  write_file(log, flipped);
  EXPECT_EQ(open_status(scratch_.store()).code(), StatusCode::kCorrupt);
  // A process that was killed while it wrote leaves the start of a record.
  write_file(log, bytes + bytes.substr(0, 20));
  EXPECT_TRUE(open(scratch_.store()).store->verify(id_).is_ok());
}

class FullDisk : public rocksdb::FileSystemWrapper {
 public:
  FullDisk() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "FullDisk"; }

  std::atomic<bool> full{false};
  std::atomic<int> refused{0};

  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* debug) override {
    std::unique_ptr<rocksdb::FSWritableFile> file;
    const auto status = target()->NewWritableFile(name, options, &file, debug);
    if (status.ok()) *result = std::make_unique<File>(std::move(file), *this);
    return status;
  }

 private:
  class File : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    File(std::unique_ptr<rocksdb::FSWritableFile>&& file, FullDisk& disk)
        : FSWritableFileOwnerWrapper(std::move(file)), disk_(disk) {}
    using FSWritableFileOwnerWrapper::Append;
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* debug) override {
      if (!disk_.full) return FSWritableFileOwnerWrapper::Append(data, options, debug);
      ++disk_.refused;
      return rocksdb::IOStatus::NoSpace("No space left on device");
    }

   private:
    FullDisk& disk_;
  };
};

TEST(RocksDbFullDisk, IsASentenceAndLosesNothing) {
  for (const std::uint64_t large_put_bytes : {std::uint64_t{0}, std::uint64_t{1} << 30}) {
    ScratchDirectory scratch;
    const auto disk = std::make_shared<FullDisk>();
    const auto env = rocksdb::NewCompositeEnv(disk);
    RocksDbOptions options;
    options.env = env.get();
    options.large_put_bytes = large_put_bytes;
    const PutRequest before = make_put({}, 1);
    const PutRequest failing = make_put({}, 2);
    CacheId id;
    {
      const Opened opened = open(scratch.store(), options);
      id = opened.store->put(before)->id;
      disk->full = true;
      const Status full = opened.store->put(failing).status();
      EXPECT_EQ(full.code(), StatusCode::kResourceExhausted) << full.message();
      EXPECT_NE(full.message().find("disk is full"), std::string::npos) << full.message();
      EXPECT_GT(disk->refused, 0);
      expect_same_set(*opened.store->get(id), before.set);
      EXPECT_EQ(opened.store->find(cache_id(failing.identity, {})).status().code(), StatusCode::kNotFound);
      disk->full = false;
      Status again;
      for (int attempt = 0; attempt < 200; ++attempt) {  // RocksDB looks every few seconds by itself
        again = opened.store->put(failing).status();
        if (again.is_ok()) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
      EXPECT_TRUE(again.is_ok()) << again.message();
      ASSERT_TRUE(opened.host->gc().is_ok());
    }
    const Opened opened = open(scratch.store());
    EXPECT_TRUE(opened.store->verify(id).is_ok());
    EXPECT_TRUE(opened.store->verify(cache_id(failing.identity, {})).is_ok());
    EXPECT_EQ(opened.host->gc()->blocks, 0U);
  }
}

TEST(RocksDbFullDisk, AStoreThatCannotBeMade) {
  ScratchDirectory scratch;
  const auto disk = std::make_shared<FullDisk>();
  const auto env = rocksdb::NewCompositeEnv(disk);
  disk->full = true;
  RocksDbOptions options;
  options.env = env.get();
  EXPECT_EQ(open_status(scratch.store(), options).code(), StatusCode::kResourceExhausted);
  disk->full = false;
  EXPECT_TRUE(open(scratch.store(), options).store->put(make_put({}, 1)).is_ok());
}

}  // namespace
}  // namespace finchkv::cache_store
