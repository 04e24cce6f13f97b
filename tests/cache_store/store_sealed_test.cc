// Sealed entries, over every Store: who has the key reads them, who has not learns nothing of what is in them.
#include <fstream>
#include <iterator>
#include <memory>
#include <utility>

#include <gtest/gtest.h>

#include "tests/cache_store/implementations.h"

namespace finchkv::cache_store {
namespace {

using testing::expect_same_set;
using testing::kAlice;
using testing::kMiddling;
using testing::make_put;

class StoreSealed : public testing::StoreTest {
 protected:
  void expect_locked(Store& store, const CacheId& id) {
    EXPECT_EQ(store.get(id).status().code(), StatusCode::kPermissionDenied);
    EXPECT_EQ(store.stream(id).status().code(), StatusCode::kPermissionDenied);
    EXPECT_EQ(store.read_origins(id).status().code(), StatusCode::kPermissionDenied);
    EXPECT_EQ(store.read_document_tokens(id).status().code(), StatusCode::kPermissionDenied);
    EXPECT_EQ(store.read_packed(id).status().code(), StatusCode::kPermissionDenied);
    EXPECT_EQ(store.verify(id).code(), StatusCode::kPermissionDenied);
    EXPECT_EQ(store.set_label(id, "x").code(), StatusCode::kPermissionDenied);
  }
  bool files_hold(std::string_view text) const {
    for (const auto& file : std::filesystem::recursive_directory_iterator(scratch_.path())) {
      if (!file.is_regular_file()) continue;
      std::ifstream in(file.path(), std::ios::binary);
      const std::string bytes{std::istreambuf_iterator<char>(in), {}};
      if (bytes.find(text) != std::string::npos) return true;
    }
    return false;
  }
};

TEST_P(StoreSealed, ComesBackUnderItsKey) {
  for (const Tenant& tenant : {Tenant{}, kAlice}) {
    const auto store = sealed_view(tenant, {10});
    for (const DType storage : {DType::kF32, DType::kBF16, DType::kQ8, DType::kQ4}) {
      PutRequest request = make_put(kMiddling, static_cast<std::uint32_t>(storage), tenant, storage);
      request.zstd_tensors = storage == DType::kQ8;
      const EntryInfo info = put(*store, request);
      EXPECT_TRUE(info.sealed);
      EXPECT_EQ(info.label, request.label);
      EXPECT_EQ(store->find(info.id)->label, request.label);
      const auto set = store->get(info.id);
      ASSERT_TRUE(set.is_ok()) << set.status().to_string();
      expect_same_set(*set, *as_stored(request.set, storage));
      EXPECT_EQ(*store->read_document_tokens(info.id), *request.document_tokens);
      EXPECT_EQ(store->read_origins(info.id)->size(), 2U);
      EXPECT_TRUE(store->verify(info.id).is_ok());
    }
  }
}

TEST_P(StoreSealed, WithoutItsKeyItIsFoundAndNotRead) {
  const auto store = sealed_view(kAlice, {10});
  const CacheId id = put(*store, make_put({}, 1, kAlice)).id;
  const auto keyless = view(kAlice);
  const auto other_key = sealed_view(kAlice, {77});
  for (Store* without : {keyless.get(), other_key.get()}) {
    const auto info = without->find(id);
    ASSERT_TRUE(info.is_ok()) << info.status().to_string();
    EXPECT_TRUE(info->sealed);
    EXPECT_EQ(info->label, "");
    expect_locked(*without, id);
    EXPECT_EQ(without->list({}, 10)->entries.at(0).label, "");
  }
  EXPECT_EQ(store->find(id)->hits, 0U);
  EXPECT_TRUE(host_->scrub({})->quarantined.empty());  // digests need no key
  EXPECT_TRUE(keyless->set_pinned(id, true).is_ok());
  EXPECT_TRUE(keyless->remove(id).is_ok());
}

TEST_P(StoreSealed, LabelsAreSealedToo) {
  const auto store = sealed_view(kAlice, {10});
  const CacheId id = put(*store, make_put({}, 1, kAlice)).id;
  ASSERT_TRUE(store->set_label(id, "salaries 2024").is_ok());
  EXPECT_EQ(store->find(id)->label, "salaries 2024");
  EXPECT_EQ(view(kAlice)->find(id)->label, "");
  EXPECT_EQ(store->list({}, 1)->entries.at(0).label, "salaries 2024");
}

TEST_P(StoreSealed, NothingOfItIsInTheFiles) {
  if (!GetParam().persistent) GTEST_SKIP() << "keeps nothing in files";
  PutRequest request = make_put({}, 1, kAlice);
  request.label = "a label to look for";
  const auto tokens = std::as_bytes(std::span(*request.document_tokens)).first(40);
  const auto values = request.set.layers[1].values.first(40);
  const auto text = [](std::span<const std::byte> bytes) {
    return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  put(*sealed_view(kAlice, {10}), request);
  open({});
  EXPECT_FALSE(files_hold(request.label));
  EXPECT_FALSE(files_hold(text(values)));
  EXPECT_FALSE(files_hold(text(tokens)));
  // The search finds what is not sealed.
  put(*store_, request = make_put({}, 1));
  request = make_put({}, 2);
  request.label = "another label to look for";
  put(*store_, request);
  open({});
  EXPECT_TRUE(files_hold(request.label));
}

TEST_P(StoreSealed, RotationRewrapsWhatIsThere) {
  std::vector<CacheId> ids;
  std::vector<PutRequest> requests;
  {
    const auto first = sealed_view(kAlice, {10});
    for (std::uint32_t i = 0; i < 3; ++i) {
      requests.push_back(make_put({}, i, kAlice));
      ids.push_back(put(*first, requests.back()).id);
    }
    EXPECT_EQ(*first->rewrap_keys(), 0U);
  }
  auto both = sealed_view(kAlice, {20, 10});
  put(*both, make_put({}, 9, kAlice));  // under the new key already
  EXPECT_TRUE(both->get(ids[0]).is_ok());
  expect_locked(*sealed_view(kAlice, {20}), ids[0]);
  const auto changed = both->rewrap_keys();
  ASSERT_TRUE(changed.is_ok()) << changed.status().to_string();
  EXPECT_EQ(*changed, 3U);
  EXPECT_EQ(*both->rewrap_keys(), 0U);
  auto second = sealed_view(kAlice, {20});
  for (std::size_t i = 0; i < ids.size(); ++i) {
    expect_same_set(*second->get(ids[i]), requests[i].set);
    EXPECT_EQ(second->find(ids[i])->label, requests[i].label);
    EXPECT_TRUE(second->verify(ids[i]).is_ok());
  }
  expect_locked(*sealed_view(kAlice, {10}), ids[0]);
  EXPECT_TRUE(host_->scrub({})->quarantined.empty());
  if (!GetParam().persistent) return;
  both.reset();
  second.reset();
  open({});
  expect_same_set(*sealed_view(kAlice, {20})->get(ids[1]), requests[1].set);
}

TEST_P(StoreSealed, RotationNeedsKeys) {
  put(*sealed_view(kAlice, {10}), make_put({}, 1, kAlice));
  EXPECT_EQ(view(kAlice)->rewrap_keys().status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(sealed_view(kAlice, {20})->rewrap_keys().status().code(), StatusCode::kPermissionDenied);
}

TEST_P(StoreSealed, WhatIsSharedIsOpen) {
  PutRequest request = make_put({}, 1);
  request.sharing = Sharing::kShared;
  const EntryInfo info = put(*view(kAlice, {.publisher = true, .keys = testing::ring_of({10})}), request);
  EXPECT_FALSE(info.sealed);
  EXPECT_EQ(info.label, request.label);
  expect_same_set(*store_->get(info.id), request.set);
  EXPECT_TRUE(sealed_view(kAlice, {10})->get(info.id).is_ok());
}

TEST_P(StoreSealed, WhatIsNotSealedIsNotTakenForASealedEntry) {
  const PutRequest request = make_put({}, 1, kAlice);
  const CacheId id = put(*view(kAlice), request).id;
  const auto sealing = sealed_view(kAlice, {10});
  EXPECT_EQ(find_code(*sealing, id), StatusCode::kCorrupt);
  EXPECT_EQ(sealing->get(id).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(sealing->list({}, 10)->unreadable, std::vector<CacheId>{id});
  EXPECT_TRUE(put(*sealing, request).sealed);  // takes its place
  expect_same_set(*sealing->get(id), request.set);
}

TEST_P(StoreSealed, ARewrappedHeadIsNoOtherPut) {
  std::unique_ptr<Store> renewing;
  bool rewrapped = false;
  open({.during_put = [&] {
    if (!renewing || std::exchange(rewrapped, true)) return;
    const auto changed = renewing->rewrap_keys();
    EXPECT_TRUE(changed.is_ok() && *changed == 1U);
  }});
  PutRequest request = make_put({}, 1, kAlice);
  const CacheId id = put(*sealed_view(kAlice, {10}), request).id;
  renewing = sealed_view(kAlice, {20, 10});
  request.set = testing::make_set({}, 77);
  request.if_exists = IfExists::kReplace;
  EXPECT_EQ(put(*renewing, request).id, id);
  EXPECT_EQ(rewrapped, GetParam().persistent);
  expect_same_set(*renewing->get(id), request.set);
}

FINCHKV_OVER_ALL_STORES(StoreSealed);

}  // namespace
}  // namespace finchkv::cache_store
