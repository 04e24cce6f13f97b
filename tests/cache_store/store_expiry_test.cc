// Time to live, over every Store: an entry past its time is not there, and its bytes are free for others.
#include <limits>
#include <thread>

#include <gtest/gtest.h>

#include "tests/cache_store/implementations.h"

namespace finchkv::cache_store {
namespace {

using testing::expect_same_set;
using testing::kMiddling;
using testing::make_put;
using testing::make_set;

class StoreExpiry : public testing::StoreTest {
 protected:
  void expect_gone(const CacheId& id) {
    EXPECT_EQ(find_code(*store_, id), StatusCode::kNotFound);
    EXPECT_EQ(store_->get(id).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(store_->stream(id).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(store_->read_origins(id).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(store_->read_packed(id).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(store_->verify(id).code(), StatusCode::kNotFound);
    EXPECT_EQ(store_->set_label(id, "x").code(), StatusCode::kNotFound);
    EXPECT_EQ(store_->set_pinned(id, true).code(), StatusCode::kNotFound);
    EXPECT_EQ(store_->set_expiry(id, 0).code(), StatusCode::kNotFound);
    EXPECT_EQ(store_->resolve_prefix(id.hex()).status().code(), StatusCode::kNotFound);
    const auto page = store_->list({}, 1000);
    EXPECT_TRUE(std::ranges::none_of(page->entries, [&](const EntryInfo& entry) { return entry.id == id; }));
  }
  /// Until it is no more there; false when that takes too long.
  bool expires(const CacheId& id) {
    for (int i = 0; i < 1000; ++i) {
      if (find_code(*store_, id) == StatusCode::kNotFound) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }
};

TEST_P(StoreExpiry, AnEntryEndsWithItsTime) {
  PutRequest request = make_put({}, 1);
  request.ttl_ms = 300;
  const EntryInfo info = put(*store_, request);
  EXPECT_GE(info.expires_unix_ms, info.created_unix_ms + 300);
  EXPECT_LT(info.expires_unix_ms, info.created_unix_ms + 60'000);
  EXPECT_EQ(store_->find(info.id)->expires_unix_ms, info.expires_unix_ms);
  const CacheId other = put(*store_, make_put({}, 2)).id;
  ASSERT_TRUE(expires(info.id));
  expect_gone(info.id);
  EXPECT_EQ(store_->stats()->entries, 1U);
  EXPECT_EQ(find_code(*store_, other), StatusCode::kOk);
  EXPECT_EQ(host_->gc()->expired, 1U);
  EXPECT_EQ(report().total.entries, 1U);
  EXPECT_EQ(host_->gc()->expired, 0U);
}

TEST_P(StoreExpiry, MayBeSetAndTakenBack) {
  const CacheId id = put(*store_, make_put({}, 1)).id;
  EXPECT_EQ(store_->find(id)->expires_unix_ms, 0U);
  constexpr std::uint64_t kFarAway = 4'000'000'000'000;
  ASSERT_TRUE(store_->set_expiry(id, kFarAway).is_ok());
  EXPECT_EQ(store_->find(id)->expires_unix_ms, kFarAway);
  EXPECT_EQ(store_->list({}, 1)->entries.at(0).expires_unix_ms, kFarAway);
  ASSERT_TRUE(store_->set_expiry(id, 0).is_ok());
  EXPECT_EQ(store_->find(id)->expires_unix_ms, 0U);
  EXPECT_EQ(host_->gc()->expired, 0U);
  ASSERT_TRUE(store_->set_expiry(id, 1).is_ok());
  expect_gone(id);
}

TEST_P(StoreExpiry, TheSettingIsForPutsThatSayNothing) {
  StoreSettings settings;
  settings.default_ttl_ms = 3'600'000;
  open_with(settings);
  const EntryInfo by_setting = put(*store_, make_put({}, 1));
  EXPECT_GE(by_setting.expires_unix_ms, by_setting.created_unix_ms + 3'600'000);
  PutRequest request = make_put({}, 2);
  request.ttl_ms = 7'200'000;
  const EntryInfo by_request = put(*store_, request);
  EXPECT_GE(by_request.expires_unix_ms, by_request.created_unix_ms + 7'200'000);
}

TEST_P(StoreExpiry, AVeryLongTimeIsNoShortOne) {
  PutRequest request = make_put({}, 1);
  request.ttl_ms = std::numeric_limits<std::uint64_t>::max();
  const CacheId id = put(*store_, request).id;
  EXPECT_EQ(find_code(*store_, id), StatusCode::kOk);
  EXPECT_EQ(host_->gc()->expired, 0U);
}

TEST_P(StoreExpiry, APutFindsThePlaceEmpty) {
  const CacheId id = put(*store_, make_put({}, 1)).id;
  ASSERT_TRUE(store_->set_expiry(id, 1).is_ok());
  PutRequest again = make_put({}, 1);
  again.set = make_set({}, 50);
  again.label = "again";
  EXPECT_EQ(put(*store_, again).label, "again");
  expect_same_set(*store_->get(id), again.set);
  EXPECT_EQ(store_->find(id)->expires_unix_ms, 0U);
  EXPECT_EQ(host_->gc()->blocks, 0U);
  EXPECT_EQ(report().total.entries, 1U);
}

TEST_P(StoreExpiry, MakesRoomBeforeAnythingElseDoes) {
  StoreSettings settings;
  settings.max_bytes = 3 * middling_bytes();
  open_with(settings);
  std::vector<CacheId> ids;
  for (std::uint32_t i = 0; i < 3; ++i) ids.push_back(put_middling(*store_, i).id);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(store_->get(ids[2]).is_ok());
  ASSERT_TRUE(store_->set_expiry(ids[2], 1).is_ok());
  put_middling(*store_, 9);
  EXPECT_EQ(find_code(*store_, ids[0]), StatusCode::kOk);
  EXPECT_EQ(find_code(*store_, ids[1]), StatusCode::kOk);
}

TEST_P(StoreExpiry, AReaderComesToItsEnd) {
  const PutRequest request = make_put(kMiddling, 1);
  const CacheId id = put(*store_, request).id;
  auto entry = store_->stream(id);
  ASSERT_TRUE(entry.is_ok());
  ASSERT_TRUE(store_->set_expiry(id, 1).is_ok());
  EXPECT_EQ(host_->gc()->expired, 1U);
  const auto set = (*entry)->finish();
  ASSERT_TRUE(set.is_ok()) << set.status().to_string();
  expect_same_set(*set, request.set);
}

TEST_P(StoreExpiry, APinIsNoShield) {
  PutRequest request = make_put({}, 1);
  request.pinned = true;
  const CacheId id = put(*store_, request).id;
  ASSERT_TRUE(store_->set_expiry(id, 1).is_ok());
  expect_gone(id);
  EXPECT_EQ(host_->gc()->expired, 1U);
  EXPECT_EQ(report().pinned_bytes, 0U);
}

FINCHKV_OVER_ALL_STORES(StoreExpiry);

}  // namespace
}  // namespace finchkv::cache_store
