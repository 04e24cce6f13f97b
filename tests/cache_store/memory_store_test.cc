// What only a store in memory has to show: damaged memory is noticed, quarantined and replaced. Everything else it has
// in common with the others (store_*_test.cc).
#include "cache_store/memory_host.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "cache_store/memory_store.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

using testing::expect_same_set;
using testing::make_put;

class DamagedMemory : public ::testing::Test {
 protected:
  /// Puts the entry past its view, with one bit of one block flipped.
  CacheId put_damaged(const PutRequest& request, std::size_t ordinal) {
    const PackedEntry packed = *pack_entry(request);
    EncodedEntry encoded =
        *finish_entry(packed, {.put_id = PutId::random(), .now_unix_ms = 1'700'000'000'000, .tenant = ""});
    std::vector<std::byte> changed(encoded.blocks[ordinal].bytes.begin(), encoded.blocks[ordinal].bytes.end());
    changed[changed.size() / 2] ^= std::byte{4};
    encoded.blocks[ordinal].bytes = changed;
    MemoryHost::NewEntry put;
    put.id = cache_id(request.identity, {});
    put.blocks = *MemoryBlocks::copy_of(encoded);
    put.record.id = put.id;
    put.record.put_id = encoded.head.put_id;
    put.record.bytes = encoded.block_bytes;
    put.entry.head = std::make_shared<const EntryHead>(encoded.head);
    const CacheId id = put.id;
    auto reservation = host_->reserve("", encoded.block_bytes);
    EXPECT_TRUE(host_->commit(std::move(put), *std::move(reservation))->has_value());
    return id;
  }

  std::shared_ptr<MemoryHost> host_ = *MemoryHost::open({});
  std::unique_ptr<Store> store_ = *host_->view({}, {});
};

TEST_F(DamagedMemory, IsNeverServed) {
  const PutRequest request = make_put({}, 1);
  const std::size_t blocks = pack_entry(request)->blocks.size() + 1;
  for (std::size_t ordinal = 0; ordinal < blocks; ++ordinal) {
    const CacheId id = put_damaged(request, ordinal);
    const Status status = store_->get(id).status();
    // The document's block is not read for a set.
    const bool read = ordinal + 1 < blocks;
    EXPECT_EQ(status.code(), read ? StatusCode::kCorrupt : StatusCode::kOk) << ordinal;
    EXPECT_EQ(read, status.message().find(id.hex()) != std::string::npos) << status.message();
    EXPECT_EQ(store_->verify(id).code(), StatusCode::kCorrupt) << ordinal;
    ASSERT_TRUE(store_->remove(id).is_ok());
  }
}

TEST_F(DamagedMemory, IsQuarantinedByAScrub) {
  ASSERT_TRUE(store_->put(make_put({}, 2)).is_ok());
  PutRequest request = make_put({}, 1);
  const CacheId id = put_damaged(request, 4);
  const auto scrubbed = host_->scrub({});
  ASSERT_TRUE(scrubbed.is_ok());
  EXPECT_EQ(scrubbed->entries, 2U);
  EXPECT_EQ(scrubbed->quarantined, std::vector<CacheId>{id});
  EXPECT_TRUE(host_->scrub({})->quarantined.empty());  // nothing new

  EXPECT_EQ(store_->find(id).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(store_->get(id).status().code(), StatusCode::kCorrupt);
  const auto page = store_->list({}, 10);
  EXPECT_EQ(page->entries.size(), 1U);
  EXPECT_EQ(page->unreadable, std::vector<CacheId>{id});
  EXPECT_EQ(store_->stats()->unreadable, 1U);
  EXPECT_EQ(host_->report()->total.unreadable, 1U);

  ASSERT_TRUE(store_->put(request).is_ok());  // although it keeps what is there
  expect_same_set(*store_->get(id), request.set);
  EXPECT_EQ(store_->stats()->unreadable, 0U);
}

TEST_F(DamagedMemory, QuarantineEndsWithRemoval) {
  const CacheId id = put_damaged(make_put({}, 1), 1);
  ASSERT_EQ(host_->scrub({})->quarantined.size(), 1U);
  EXPECT_TRUE(store_->remove(id).is_ok());
  EXPECT_EQ(store_->find(id).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(host_->ledger().usage().used(), 0U);
}

}  // namespace
}  // namespace finchkv::cache_store
