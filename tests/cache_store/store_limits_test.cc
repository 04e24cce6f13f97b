// Limits, quotas, pins and eviction, over every Store: what is stored, being written and still being read never
// exceeds a limit, and a put that finds no room hears so at once.
#include <chrono>
#include <set>

#include <gtest/gtest.h>

#include "cache_store/packed_entry.h"
#include "tests/cache_store/implementations.h"

namespace finchkv::cache_store {
namespace {

using testing::expect_same_set;
using testing::kAlice;
using testing::kBob;
using testing::kMiddling;
using testing::make_put;

class StoreLimitsTest : public testing::StoreTest {
 protected:
  /// A storage with room for so many entries.
  void open_for(std::uint64_t entries, std::uint32_t pinned_percent = 50) {
    StoreSettings settings = limited_to(entries * middling_bytes());
    settings.pinned_percent = pinned_percent;
    open_with(settings);
  }
  static StoreSettings limited_to(std::uint64_t max_bytes) {
    StoreSettings settings;
    settings.max_bytes = max_bytes;
    return settings;
  }
  Result<EntryInfo> try_put(std::uint32_t seed) { return store_->put(make_put(kMiddling, seed)); }
  void expect_refused_at_once(std::uint32_t seed) {
    const auto start = std::chrono::steady_clock::now();
    const Status status = try_put(seed).status();
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.to_string();
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
    EXPECT_EQ(report().reserved_bytes, 0U);
  }
  std::size_t entries_of(Store& store) { return store.list({}, 1000)->entries.size(); }
};

TEST_P(StoreLimitsTest, HoldAtEveryMoment) {
  const std::uint64_t limit = 5 * middling_bytes();
  int looked = 0;
  const auto look = [&] {
    const StoreReport now = report();
    EXPECT_LE(used(now), limit);
    ++looked;
  };
  open({.settings = limited_to(limit), .during_put = look});
  for (std::uint32_t i = 0; i < 30; ++i) {
    PutRequest request = make_put(kMiddling, i % 12);  // new ones, and replacing ones
    request.if_exists = IfExists::kReplace;
    const CacheId id = put(*store_, request).id;
    look();
    expect_same_set(*store_->get(id), request.set);
  }
  EXPECT_GE(looked, 30);
  const StoreReport end = report();
  EXPECT_GE(end.total.entries, 4U);
  EXPECT_GE(end.evictions, 7U);
  EXPECT_EQ(host_->gc()->blocks, 0U);  // of the evicted nothing is left
}

TEST_P(StoreLimitsTest, MoreThanTheLimitIsRefusedAndNothingEvicted) {
  open_for(2);
  const CacheId id = put_middling(*store_, 1).id;
  const auto large = store_->put(make_put({.layers = 8, .heads = 2, .dim = 64, .kept = 64, .doc_tokens = 200}, 2));
  EXPECT_EQ(large.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(large.status().message().find("the store's limit"), std::string::npos) << large.status().message();
  EXPECT_EQ(find_code(*store_, id), StatusCode::kOk);
  EXPECT_EQ(report().reserved_bytes, 0U);
  EXPECT_EQ(report().evictions, 0U);
}

TEST_P(StoreLimitsTest, PinnedEntriesStay) {
  open_for(4, 100);
  std::vector<CacheId> pinned;
  std::uint64_t pinned_bytes = 0;
  for (std::uint32_t i = 0; i < 3; ++i) {
    const EntryInfo info = put_middling(*store_, i);
    pinned.push_back(info.id);
    pinned_bytes += info.stored_bytes;
    ASSERT_TRUE(store_->set_pinned(pinned.back(), true).is_ok());
    EXPECT_TRUE(store_->find(pinned.back())->pinned);
  }
  for (std::uint32_t i = 10; i < 20; ++i) put_middling(*store_, i);
  for (const CacheId& id : pinned) EXPECT_EQ(find_code(*store_, id), StatusCode::kOk);
  EXPECT_EQ(entries_of(*store_), 4U);
  EXPECT_EQ(report().pinned_bytes, pinned_bytes);
}

TEST_P(StoreLimitsTest, WhenAllIsPinnedAPutIsRefused) {
  open_for(3, 100);
  std::vector<CacheId> ids;
  for (std::uint32_t i = 0; i < 3; ++i) {
    ids.push_back(put_middling(*store_, i).id);
    ASSERT_TRUE(store_->set_pinned(ids.back(), true).is_ok());
  }
  expect_refused_at_once(9);
  EXPECT_EQ(entries_of(*store_), 3U);
  ASSERT_TRUE(store_->set_pinned(ids[1], false).is_ok());
  EXPECT_TRUE(try_put(9).is_ok());
  EXPECT_EQ(find_code(*store_, ids[1]), StatusCode::kNotFound);
  EXPECT_EQ(find_code(*store_, ids[0]), StatusCode::kOk);
}

TEST_P(StoreLimitsTest, WhatIsStreamedStays) {
  open_for(3);
  const PutRequest request = make_put(kMiddling, 0);
  const CacheId id = put(*store_, request).id;
  auto entry = store_->stream(id);
  ASSERT_TRUE(entry.is_ok());
  for (std::uint32_t i = 1; i < 12; ++i) {
    // Used more than the first, which would be the next to go.
    const CacheId other = put_middling(*store_, i).id;
    for (int hit = 0; hit < 3; ++hit) ASSERT_TRUE(store_->get(other).is_ok());
    EXPECT_LE(used(report()), 3 * middling_bytes());
  }
  EXPECT_EQ(find_code(*store_, id), StatusCode::kOk);
  const auto set = (*entry)->finish();
  ASSERT_TRUE(set.is_ok()) << set.status().to_string();
  expect_same_set(*set, request.set);
}

TEST_P(StoreLimitsTest, WhenAllIsStreamedAPutIsRefused) {
  open_for(3);
  std::vector<std::unique_ptr<EntryStream>> streams;
  for (std::uint32_t i = 0; i < 3; ++i) streams.push_back(*store_->stream(put_middling(*store_, i).id));
  expect_refused_at_once(9);
  streams.pop_back();
  EXPECT_TRUE(try_put(9).is_ok());
  for (const auto& entry : streams) EXPECT_TRUE(entry->finish().is_ok());
}

TEST_P(StoreLimitsTest, RemovedBytesCountUntilTheLastStreamEnds) {
  open_for(2);
  const CacheId id = put_middling(*store_, 0).id;
  auto first = *store_->stream(id);
  auto second = *store_->stream(id);
  ASSERT_TRUE(store_->remove(id).is_ok());
  ASSERT_TRUE(store_->set_pinned(put_middling(*store_, 1).id, true).is_ok());
  expect_refused_at_once(2);
  first.reset();
  expect_refused_at_once(2);
  EXPECT_TRUE(second->finish().is_ok());
  second.reset();
  EXPECT_TRUE(try_put(2).is_ok());
}

TEST_P(StoreLimitsTest, WhatIsUsedOftenOutlivesWhatIsNot) {
  open_for(6);
  std::vector<CacheId> ids;
  for (std::uint32_t i = 0; i < 6; ++i) ids.push_back(put_middling(*store_, i).id);
  for (int hit = 0; hit < 5; ++hit) {
    for (const std::size_t often : {1U, 4U}) ASSERT_TRUE(store_->get(ids[often]).is_ok());
  }
  for (std::uint32_t i = 10; i < 14; ++i) put_middling(*store_, i);
  std::set<std::size_t> left;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (find_code(*store_, ids[i]) == StatusCode::kOk) left.insert(i);
  }
  EXPECT_EQ(left, (std::set<std::size_t>{1, 4}));
}

TEST_P(StoreLimitsTest, PinsAreCapped) {
  open_for(4);
  std::vector<CacheId> ids;
  for (std::uint32_t i = 0; i < 4; ++i) ids.push_back(put_middling(*store_, i).id);
  EXPECT_TRUE(store_->set_pinned(ids[0], true).is_ok());
  EXPECT_TRUE(store_->set_pinned(ids[0], true).is_ok());  // once is enough
  EXPECT_TRUE(store_->set_pinned(ids[1], true).is_ok());
  const Status status = store_->set_pinned(ids[2], true);
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find(ids[2].hex()), std::string::npos) << status.message();
  EXPECT_FALSE(store_->find(ids[2])->pinned);
  PutRequest wants = make_put(kMiddling, 7);
  wants.pinned = true;
  EXPECT_FALSE(put(*store_, wants).pinned);  // stored, but it may go
  EXPECT_FALSE(store_->find(cache_id(wants.identity, {}))->pinned);
  ASSERT_TRUE(store_->set_pinned(ids[0], false).is_ok());
  EXPECT_TRUE(store_->set_pinned(cache_id(wants.identity, {}), true).is_ok());
}

TEST_P(StoreLimitsTest, AReplacedEntryStaysPinned) {
  PutRequest request = make_put(kMiddling, 1);
  request.pinned = true;
  const CacheId id = put(*store_, request).id;
  EXPECT_TRUE(store_->find(id)->pinned);
  request.pinned = false;
  request.if_exists = IfExists::kReplace;
  EXPECT_TRUE(put(*store_, request).pinned);
  EXPECT_TRUE(store_->find(id)->pinned);
}

TEST_P(StoreLimitsTest, AQuotaIsTheTenantsOwn) {
  StoreSettings settings;
  settings.max_bytes = 20 * middling_bytes();
  settings.tenant_quotas = {{"alice", 3 * middling_bytes()}, {"", 8 * middling_bytes()}};
  settings.tenant_max_bytes = 5 * middling_bytes();
  open_with(settings);
  const auto alice = view(kAlice);
  const auto bob = view(kBob);
  put_middling(*store_, 100);
  put_middling(*bob, 100);
  for (std::uint32_t i = 0; i < 7; ++i) {
    put_middling(*alice, i);
    const auto mine = report().by_tenant["alice"];
    EXPECT_LE(mine.stored_bytes, 3 * middling_bytes());
  }
  EXPECT_EQ(entries_of(*alice), 3U);
  EXPECT_EQ(entries_of(*bob), 1U);
  EXPECT_EQ(entries_of(*store_), 1U);
  for (std::uint32_t i = 0; i < 12; ++i) {
    put_middling(*bob, i);
    put_middling(*store_, i);
  }
  EXPECT_EQ(entries_of(*bob), 5U);
  EXPECT_EQ(entries_of(*store_), 8U);
  EXPECT_EQ(entries_of(*alice), 3U);
}

TEST_P(StoreLimitsTest, SharedEntriesHaveALimitOfTheirOwn) {
  StoreSettings settings;
  settings.shared_max_bytes = 2 * middling_bytes();
  open_with(settings);
  const auto everybody = publisher();
  put_middling(*store_, 50);
  for (std::uint32_t i = 0; i < 6; ++i) {
    PutRequest request = make_put(kMiddling, i);
    request.sharing = Sharing::kShared;
    put(*everybody, request);
  }
  const StoreReport now = report();
  EXPECT_EQ(now.by_tenant.at("*").entries, 2U);
  EXPECT_EQ(now.by_tenant.at("").entries, 1U);
}

TEST_P(StoreLimitsTest, ALowerLimitIsKeptAtOnce) {
  for (std::uint32_t i = 0; i < 8; ++i) put_middling(*store_, i);
  ASSERT_TRUE(host_->set_settings(limited_to(3 * middling_bytes())).is_ok());
  EXPECT_EQ(entries_of(*store_), 3U);
  EXPECT_LE(used(report()), 3 * middling_bytes());
  // What is pinned stays, whatever the limit: then that is said, and nothing else finds room.
  ASSERT_TRUE(store_->set_pinned(store_->list({}, 1)->entries.at(0).id, true).is_ok());
  EXPECT_EQ(host_->set_settings(limited_to(middling_bytes() / 2)).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(entries_of(*store_), 1U);
  EXPECT_EQ(host_->settings().max_bytes, middling_bytes() / 2);
  expect_refused_at_once(9);
}

TEST_P(StoreLimitsTest, OtherSettingsTakeEffectAtOnceToo) {
  open_for(4, 50);
  std::vector<CacheId> ids;
  for (std::uint32_t i = 0; i < 3; ++i) ids.push_back(put_middling(*store_, i).id);
  ASSERT_TRUE(store_->set_pinned(ids[0], true).is_ok());
  ASSERT_TRUE(store_->set_pinned(ids[1], true).is_ok());
  EXPECT_EQ(store_->set_pinned(ids[2], true).code(), StatusCode::kResourceExhausted);
  StoreSettings settings = host_->settings();
  settings.pinned_percent = 80;
  ASSERT_TRUE(host_->set_settings(settings).is_ok());
  EXPECT_TRUE(store_->set_pinned(ids[2], true).is_ok());
}

TEST_P(StoreLimitsTest, APutThatFailsGivesItsRoomBack) {
  // Nobody has written as alice yet, so both keys get a view; the first put says which is hers.
  const auto alice = view(kAlice);
  const auto impostor = view({"alice", kBob.key});
  put_middling(*alice, 1);
  const StoreReport before = report();
  EXPECT_EQ(impostor->put(make_put(kMiddling, 2, impostor->tenant())).status().code(), StatusCode::kPermissionDenied);
  PackedEntry incomplete = *pack_entry(make_put(kMiddling, 3));
  incomplete.blocks.pop_back();
  EXPECT_EQ(store_->put_packed(incomplete, {}).status().code(), StatusCode::kInvalidArgument);
  const StoreReport after = report();
  EXPECT_EQ(used(after), used(before));
  EXPECT_EQ(after.put_bytes, before.put_bytes);
  EXPECT_EQ(host_->gc()->blocks, 0U);
}

FINCHKV_OVER_ALL_STORES(StoreLimitsTest);

}  // namespace
}  // namespace finchkv::cache_store
