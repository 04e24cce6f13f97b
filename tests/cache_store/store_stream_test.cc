// Entries layer by layer, over every Store: layers are usable one by one, and a stream keeps its entry's blocks.
#include <thread>

#include <gtest/gtest.h>

#include "tests/cache_store/implementations.h"
#include "tests/cache_store/tracked_memory.h"

namespace finchkv::cache_store {
namespace {

using testing::expect_same_set;
using testing::make_put;
using testing::make_set;
using testing::same_bytes;
using testing::SetSpec;
using testing::TrackedMemory;

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

constexpr DType kEveryStorage[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8, DType::kQ4};

// The bytes of a tensor as a put stores them: neither sealed nor compressed.
std::span<const std::byte> stored_tensor(const PackedEntry& packed, std::uint32_t layer, BlockKind kind) {
  return packed.blocks[3 * layer + static_cast<std::size_t>(kind) - 1].bytes;
}

TEST_P(StoreStream, EveryLayoutComesAsItIsStoredOrDecodedInMemoryThatIsGiven) {
  for (const DType storage : kEveryStorage) {
    for (const bool sealed : {false, true}) {
      for (const bool zstd : {false, true}) {
        SCOPED_TRACE(std::string(dtype_name(storage)) + (sealed ? ", sealed" : "") + (zstd ? ", zstd" : ""));
        open({});
        const auto store = sealed ? sealed_view(testing::kAlice, {1}) : view(testing::kAlice);
        PutRequest request = make_put(kLarge, 1, testing::kAlice, storage);
        request.if_exists = IfExists::kReplace;
        const PackedEntry plain = *pack_entry(request);
        request.zstd_tensors = zstd;
        const CacheId id = put(*store, request).id;
        const KvSet decoded = *as_stored(request.set, storage);
        const auto memory = std::make_shared<TrackedMemory>();
        for (const LayerForm form : {LayerForm::kStored, LayerForm::kDecoded}) {
          auto entry = store->stream(id, {.form = form, .memory = memory});
          ASSERT_TRUE(entry.is_ok()) << entry.status().to_string();
          for (std::uint32_t l = 0; l < kLarge.layers; ++l) {
            const auto layer = (*entry)->take(l);
            ASSERT_TRUE(layer.is_ok()) << layer.status().to_string();
            EXPECT_TRUE(memory->holds(layer->views.keys)) << "layer " << l;
            EXPECT_TRUE(memory->holds(layer->views.values)) << "layer " << l;
            const bool as_stored = form == LayerForm::kStored;
            EXPECT_TRUE(same_bytes(layer->views.keys,
                                   as_stored ? stored_tensor(plain, l, BlockKind::kKeys) : decoded.layers[l].keys));
            EXPECT_TRUE(same_bytes(layer->views.values,
                                   as_stored ? stored_tensor(plain, l, BlockKind::kValues) : decoded.layers[l].values));
            EXPECT_TRUE(std::ranges::equal(layer->views.origins, decoded.layers[l].origins));
          }
          entry->reset();
          EXPECT_EQ(memory->out_in_the_end(), 0U);
        }
      }
    }
  }
}

TEST_P(StoreStream, WhatIsTakenIsTheTakersAlone) {
  const PutRequest request = make_put(kFourLayers, 1);  // read by the caller alone, so that counts are sharp
  const auto memory = std::make_shared<TrackedMemory>();
  auto opened = store_->stream(put(*store_, request).id, {.memory = memory});
  ASSERT_TRUE(opened.is_ok());
  const auto entry = *std::move(opened);
  {
    auto first = entry->take(0);
    ASSERT_TRUE(first.is_ok());
    expect_same_layer(first->views, request.set.layers[0]);
    EXPECT_EQ(memory->out(), 2U);  // keys; values with origins
  }
  EXPECT_EQ(memory->out(), 0U);
  EXPECT_EQ(entry->layer(0).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(entry->take(0).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(entry->finish().status().code(), StatusCode::kInvalidArgument);
  const auto second = entry->take(1);
  ASSERT_TRUE(second.is_ok()) << second.status().to_string();
  expect_same_layer(second->views, request.set.layers[1]);
}

TEST_P(StoreStream, WhatIsTakenOutlivesEverything) {
  const PutRequest request = make_put(kFourLayers, 1);
  auto memory = std::make_shared<TrackedMemory>();
  auto entry = *store_->stream(put(*store_, request).id, {.memory = memory});
  const OwnedLayer taken = *entry->take(2);
  entry.reset();
  store_.reset();
  host_.reset();
  memory.reset();
  expect_same_layer(taken.views, request.set.layers[2]);
}

TEST_P(StoreStream, AStreamOfStoredLayersFinishesWhereASetHoldsThem) {
  for (const DType storage : kEveryStorage) {
    SCOPED_TRACE(std::string(dtype_name(storage)));
    PutRequest request = make_put(kFourLayers, 1, {}, storage);
    request.if_exists = IfExists::kReplace;
    const CacheId id = put(*store_, request).id;
    auto entry = *store_->stream(id, {.form = LayerForm::kStored});
    const auto set = entry->finish();
    if (is_quantised(storage)) {
      EXPECT_EQ(set.status().code(), StatusCode::kInvalidArgument);
      EXPECT_TRUE(entry->layer(0).is_ok()) << "the stream goes on";
    } else {
      ASSERT_TRUE(set.is_ok()) << set.status().to_string();
      expect_same_set(*set, *as_stored(request.set, storage));
    }
  }
}

TEST_P(StoreStream, WithoutMemoryItSaysSo) {
  for (const SetSpec& spec : {kFourLayers, kLarge}) {
    const auto memory = std::make_shared<TrackedMemory>(3);
    PutRequest request = make_put(spec, 1);
    request.if_exists = IfExists::kReplace;
    auto entry = *store_->stream(put(*store_, request).id, {.memory = memory});
    Status status = Status::ok();
    for (std::uint32_t l = 0; l < spec.layers && status.is_ok(); ++l) status = entry->layer(l).status();
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.to_string();
    entry.reset();
    EXPECT_EQ(memory->out_in_the_end(), 0U);
  }
}

FINCHKV_OVER_ALL_STORES(StoreStream);

}  // namespace
}  // namespace finchkv::cache_store
