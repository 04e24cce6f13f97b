// Entries layer by layer, over every Store: layers are usable one by one, and a stream keeps its entry's blocks.
#include <thread>

#include <gtest/gtest.h>

#include "tests/cache_store/implementations.h"

namespace finchkv::cache_store {
namespace {

using testing::expect_same_set;
using testing::make_put;
using testing::make_set;
using testing::same_bytes;
using testing::SetSpec;

constexpr SetSpec kFourLayers{.layers = 4, .kept = 9};
// Large enough to be read by several threads.
constexpr SetSpec kLarge{.layers = 6, .heads = 4, .dim = 64, .kept = 300, .doc_tokens = 1000};

void expect_same_layer(const KvLayer& a, const KvLayer& b) {
  EXPECT_EQ(a.n_kept, b.n_kept);
  EXPECT_TRUE(same_bytes(a.keys, b.keys));
  EXPECT_TRUE(same_bytes(a.values, b.values));
  EXPECT_TRUE(std::ranges::equal(a.origins, b.origins));
}

class StoreStream : public testing::StoreTest {
 protected:
  void open_with_lease(std::uint64_t ms) {
    StoreSettings settings;
    settings.lease_ms = ms;
    open_with(settings);
  }
  std::unique_ptr<EntryStream> stream(const CacheId& id) {
    auto entry = store_->stream(id);
    EXPECT_TRUE(entry.is_ok()) << entry.status().to_string();
    return entry.is_ok() ? *std::move(entry) : nullptr;
  }
  /// A pool's thread may still be in the middle of a layer when its stream ends.
  std::uint64_t held_in_the_end() {
    EXPECT_TRUE(host_->gc().is_ok());
    for (int i = 0; i < 1000 && report().held_bytes != 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      EXPECT_TRUE(host_->gc().is_ok());
    }
    return report().held_bytes;
  }
  void expect_layer(EntryStream& entry, std::uint32_t l, const KvSet& expected) {
    const auto layer = entry.layer(l);
    ASSERT_TRUE(layer.is_ok()) << layer.status().to_string();
    expect_same_layer(*layer, expected.layers[l]);
  }
};

TEST_P(StoreStream, LayersComeOneByOne) {
  for (const SetSpec& spec : {kFourLayers, kLarge}) {
    const PutRequest request = make_put(spec, spec.layers);
    const CacheId id = put(*store_, request).id;
    const auto entry = stream(id);
    EXPECT_EQ(entry->info().id, id);
    EXPECT_EQ(entry->info().shape, request.set.shape);
    EXPECT_EQ(entry->info().label, request.label);
    for (std::uint32_t l = 0; l < spec.layers; ++l) expect_layer(*entry, l, request.set);
    const auto set = entry->finish();
    ASSERT_TRUE(set.is_ok()) << set.status().to_string();
    expect_same_set(*set, request.set);
  }
}

TEST_P(StoreStream, LayersInAnyOrderAndAgain) {
  const PutRequest request = make_put(kFourLayers, 1);
  const auto entry = stream(put(*store_, request).id);
  for (const std::uint32_t l : {3U, 0U, 3U, 1U, 2U, 0U}) expect_layer(*entry, l, request.set);
  EXPECT_EQ(entry->layer(2)->keys.data(), entry->layer(2)->keys.data());
}

TEST_P(StoreStream, ViewsLiveAsLongAsTheFinishedSet) {
  const PutRequest request = make_put(kFourLayers, 1);
  auto entry = stream(put(*store_, request).id);
  const KvLayer early = *entry->layer(1);
  const KvSet set = *entry->finish();
  entry.reset();
  store_.reset();
  host_.reset();
  EXPECT_EQ(early.keys.data(), set.layers[1].keys.data());
  expect_same_layer(early, request.set.layers[1]);
}

TEST_P(StoreStream, ALayerThatIsNotThere) {
  const PutRequest request = make_put(kFourLayers, 1);
  const CacheId id = put(*store_, request).id;
  const auto entry = stream(id);
  for (const std::uint32_t l : {4U, 0xFFFFFFFFU}) {
    const Status status = entry->layer(l).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(id.hex()), std::string::npos) << status.message();
  }
  expect_layer(*entry, 3, request.set);
}

TEST_P(StoreStream, CountsAsOneHit) {
  const CacheId id = put(*store_, make_put(kFourLayers, 1)).id;
  const auto entry = stream(id);
  ASSERT_TRUE(entry->layer(0).is_ok());
  ASSERT_TRUE(entry->finish().is_ok());
  EXPECT_EQ(store_->find(id)->hits, 1U);
}

TEST_P(StoreStream, KeepsTheHostOpen) {
  for (const SetSpec& spec : {kFourLayers, kLarge}) {
    open({});
    PutRequest request = make_put(spec, 1);
    request.if_exists = IfExists::kReplace;
    const auto entry = stream(put(*store_, request).id);
    store_.reset();
    host_.reset();
    const auto set = entry->finish();
    ASSERT_TRUE(set.is_ok()) << set.status().to_string();
    expect_same_set(*set, request.set);
  }
}

TEST_P(StoreStream, WhatIsRemovedMeanwhileIsReadToItsEnd) {
  for (const SetSpec& spec : {kFourLayers, kLarge}) {
    const PutRequest request = make_put(spec, 1);
    const EntryInfo info = put(*store_, request);
    auto entry = stream(info.id);
    expect_layer(*entry, 0, request.set);
    ASSERT_TRUE(store_->remove(info.id).is_ok());
    EXPECT_EQ(find_code(*store_, info.id), StatusCode::kNotFound);
    EXPECT_EQ(report().held_bytes, info.stored_bytes);  // still there, and counted
    ASSERT_TRUE(host_->gc().is_ok());
    EXPECT_EQ(report().held_bytes, info.stored_bytes);
    const auto set = entry->finish();
    ASSERT_TRUE(set.is_ok()) << set.status().to_string();
    expect_same_set(*set, request.set);
    entry.reset();
    EXPECT_EQ(held_in_the_end(), 0U);
    EXPECT_EQ(host_->gc()->blocks, 0U);
  }
}

TEST_P(StoreStream, WhatIsReplacedMeanwhileIsReadToItsEnd) {
  PutRequest request = make_put(kFourLayers, 1);
  const EntryInfo info = put(*store_, request);
  auto entry = stream(info.id);
  const KvSet old = request.set;
  request.set = make_set(kFourLayers, 99);
  request.if_exists = IfExists::kReplace;
  put(*store_, request);
  EXPECT_EQ(report().held_bytes, info.stored_bytes);
  expect_same_set(*store_->get(info.id), request.set);
  const auto set = entry->finish();
  ASSERT_TRUE(set.is_ok()) << set.status().to_string();
  expect_same_set(*set, old);
  entry.reset();
  EXPECT_EQ(host_->gc()->blocks, 0U);
  EXPECT_EQ(report().held_bytes, 0U);
}

TEST_P(StoreStream, LeftUnreadHoldsNothing) {
  for (const SetSpec& spec : {kFourLayers, kLarge}) {
    const EntryInfo info = put(*store_, make_put(spec, 1));
    auto entry = stream(info.id);
    ASSERT_TRUE(entry->layer(0).is_ok());
    entry.reset();
    ASSERT_TRUE(store_->remove(info.id).is_ok());
    EXPECT_EQ(held_in_the_end(), 0U);
  }
}

TEST_P(StoreStream, ALeaseWithoutProgressExpires) {
  open_with_lease(100);
  const PutRequest request = make_put(kFourLayers, 1);
  const EntryInfo info = put(*store_, request);
  const auto entry = stream(info.id);
  expect_layer(*entry, 0, request.set);
  ASSERT_TRUE(store_->remove(info.id).is_ok());
  EXPECT_EQ(report().held_bytes, info.stored_bytes);
  std::this_thread::sleep_for(std::chrono::milliseconds(150));
  ASSERT_TRUE(host_->gc().is_ok());
  EXPECT_EQ(report().held_bytes, 0U);
  const Status status = entry->layer(1).status();
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded) << status.message();
  EXPECT_NE(status.message().find(info.id.hex()), std::string::npos) << status.message();
  expect_layer(*entry, 0, request.set);  // what was handed out stays
}

TEST_P(StoreStream, ProgressKeepsALease) {
  open_with_lease(600);
  const PutRequest request = make_put(kFourLayers, 1);
  const CacheId id = put(*store_, request).id;
  const auto entry = stream(id);
  ASSERT_TRUE(store_->remove(id).is_ok());
  for (std::uint32_t l = 0; l < 4; ++l) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));  // 800 in all
    ASSERT_TRUE(host_->gc().is_ok());
    expect_layer(*entry, l, request.set);
  }
}

FINCHKV_OVER_ALL_STORES(StoreStream);

}  // namespace
}  // namespace finchkv::cache_store
