// Tenants and shared entries, over every Store: nothing of one tenant's private entries can be found, listed, probed or
// changed by another, and shared ones are found by whoever knows their content and changed by publishers alone.
#include <functional>
#include <map>

#include <gtest/gtest.h>

#include "cache_store/packed_entry.h"
#include "tests/cache_store/implementations.h"

namespace finchkv::cache_store {
namespace {

using testing::expect_same_set;
using testing::kAlice;
using testing::kBob;
using testing::make_put;
using testing::make_set;

const Tenant kImpostor{"alice", kBob.key};

PutRequest shared_put(std::uint32_t seed) {
  PutRequest request = make_put({}, seed);  // hashes made with the empty key
  request.sharing = Sharing::kShared;
  return request;
}

/// Everything that a store does to one entry, by name.
std::map<std::string, StatusCode> probe(Store& store, const CacheId& id) {
  return {{"find", store.find(id).status().code()},
          {"get", store.get(id).status().code()},
          {"stream", store.stream(id).status().code()},
          {"read_origins", store.read_origins(id).status().code()},
          {"read_document_tokens", store.read_document_tokens(id).status().code()},
          {"read_packed", store.read_packed(id).status().code()},
          {"verify", store.verify(id).code()},
          {"set_label", store.set_label(id, "mine").code()},
          {"set_pinned", store.set_pinned(id, true).code()},
          {"set_expiry", store.set_expiry(id, 1).code()},
          {"remove", store.remove(id).code()},
          {"resolve_prefix", store.resolve_prefix(id.hex()).status().code()}};
}

class StoreTenants : public testing::StoreTest {
 protected:
  void expect_nothing_of(Store& other, const CacheId& id) {
    for (const auto& [name, code] : probe(other, id)) EXPECT_EQ(code, StatusCode::kNotFound) << name;
    for (const auto& page : {other.list({}, 100), other.list_shared({}, 100)}) {
      EXPECT_TRUE(page->entries.empty());
      EXPECT_TRUE(page->unreadable.empty());
    }
    const auto stats = other.stats();
    EXPECT_EQ(stats->entries, 0U);
    EXPECT_EQ(stats->unreadable, 0U);
    EXPECT_EQ(stats->stored_bytes, 0U);
  }
};

TEST_P(StoreTenants, NothingOfAnothersIsWithinReach) {
  const auto alice = view(kAlice);
  const auto bob = view(kBob);
  const auto bobs_publisher = publisher(kBob);
  const PutRequest request = make_put({}, 1, kAlice);
  const CacheId id = put(*alice, request).id;
  EXPECT_NE(id, cache_id(request.identity, {}));
  for (Store* other : {bob.get(), bobs_publisher.get(), store_.get()}) expect_nothing_of(*other, id);
  const auto kept = alice->find(id);
  ASSERT_TRUE(kept.is_ok()) << kept.status().to_string();
  EXPECT_EQ(kept->label, request.label);
  EXPECT_FALSE(kept->pinned);
  EXPECT_EQ(kept->hits, 0U);
  expect_same_set(*alice->get(id), request.set);
  EXPECT_EQ(host_->gc()->blocks, 0U);  // gc sees all tenants
  EXPECT_TRUE(alice->verify(id).is_ok());
}

TEST_P(StoreTenants, TheSameInputsAreAnotherEntryForEveryTenant) {
  std::map<std::string, CacheId> ids;
  for (const Tenant& tenant : {Tenant{}, kAlice, kBob}) {
    const auto store = view(tenant);
    PutRequest request = make_put({}, 1, tenant);
    request.set = make_set({}, static_cast<std::uint32_t>(ids.size()));
    request.if_exists = IfExists::kReplace;
    ids[tenant.name] = put(*store, request).id;
  }
  EXPECT_EQ(report().total.entries, 3U);
  std::uint32_t seed = 0;
  for (const Tenant& tenant : {Tenant{}, kAlice, kBob}) {
    const auto set = view(tenant)->get(ids[tenant.name]);
    ASSERT_TRUE(set.is_ok());
    expect_same_set(*set, make_set({}, seed++));
  }
}

TEST_P(StoreTenants, ATenantIsItsNameAndItsKey) {
  put(*view(kAlice), make_put({}, 1, kAlice));
  EXPECT_EQ(host_->view(kImpostor).status().code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(host_->view({"", kBob.key}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(host_->view({"alice", {}}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(host_->view({"a/b", kBob.key}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(host_->view({"*", kBob.key}).status().code(), StatusCode::kInvalidArgument);
}

TEST_P(StoreTenants, AViewFromBeforeTheFirstEntryGivesNoWayToIt) {
  const auto alice = view(kAlice);
  const auto impostor = view(kImpostor);  // nobody has written yet
  const CacheId id = put(*alice, make_put({}, 1, kAlice)).id;
  EXPECT_EQ(impostor->put(make_put({}, 2, kImpostor)).status().code(), StatusCode::kPermissionDenied);
  expect_nothing_of(*impostor, id);
  EXPECT_TRUE(alice->verify(id).is_ok());
}

TEST_P(StoreTenants, SharingIsAPublishersRight) {
  const auto alice = view(kAlice);
  EXPECT_EQ(store_->put(shared_put(1)).status().code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(alice->put(shared_put(1)).status().code(), StatusCode::kPermissionDenied);
  PackedEntry packed = *pack_entry(shared_put(1));
  PutOptions options;
  options.sharing = Sharing::kShared;
  EXPECT_EQ(alice->put_packed(packed, options).status().code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(report().total.entries, 0U);
  EXPECT_EQ(put(*publisher(kAlice), shared_put(1)).sharing, Sharing::kShared);
}

TEST_P(StoreTenants, WhatIsSharedIsFoundAndListedByAll) {
  const PutRequest request = shared_put(1);
  const CacheId id = put(*publisher(kAlice), request).id;
  EXPECT_EQ(id, cache_id(request.identity, {}));
  std::uint64_t hits = 0;
  for (const Tenant& tenant : {Tenant{}, kAlice, kBob}) {
    const auto store = view(tenant);
    const auto info = store->find(id);
    ASSERT_TRUE(info.is_ok()) << info.status().to_string();
    EXPECT_EQ(info->sharing, Sharing::kShared);
    EXPECT_EQ(info->label, request.label);
    const auto set = store->get(id);
    ASSERT_TRUE(set.is_ok()) << set.status().to_string();
    expect_same_set(*set, request.set);
    EXPECT_EQ(store->find(id)->hits, ++hits);
    EXPECT_EQ(*store->read_document_tokens(id), *request.document_tokens);
    EXPECT_TRUE(store->verify(id).is_ok());
    EXPECT_TRUE(store->list({}, 10)->entries.empty());  // of its own it has none
    const auto listed = store->list_shared({}, 10);
    ASSERT_EQ(listed->entries.size(), 1U);
    EXPECT_EQ(listed->entries[0].id, id);
    EXPECT_EQ(listed->entries[0].sharing, Sharing::kShared);
    EXPECT_FALSE(listed->next);
    EXPECT_TRUE(store->list_shared(id, 10)->entries.empty());
    EXPECT_EQ(store->list_shared({}, 0).status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(*store->resolve_prefix(id.hex().substr(0, 10)), id);
    EXPECT_EQ(store->stats()->entries, 0U);
  }
  EXPECT_EQ(report().by_tenant.at("*").entries, 1U);
}

TEST_P(StoreTenants, WhatIsSharedIsChangedByPublishersAlone) {
  const PutRequest request = shared_put(1);
  const auto publishing = publisher(kBob);
  const CacheId id = put(*publishing, request).id;
  for (const Tenant& tenant : {Tenant{}, kAlice, kBob}) {
    const auto store = view(tenant);
    EXPECT_EQ(store->remove(id).code(), StatusCode::kPermissionDenied);
    EXPECT_EQ(store->set_label(id, "mine").code(), StatusCode::kPermissionDenied);
    EXPECT_EQ(store->set_pinned(id, true).code(), StatusCode::kPermissionDenied);
    EXPECT_EQ(store->set_expiry(id, 1).code(), StatusCode::kPermissionDenied);
  }
  EXPECT_EQ(store_->find(id)->label, request.label);
  EXPECT_TRUE(publishing->set_label(id, "ours").is_ok());
  EXPECT_TRUE(publishing->set_pinned(id, true).is_ok());
  EXPECT_EQ(store_->find(id)->label, "ours");
  EXPECT_TRUE(store_->find(id)->pinned);
  EXPECT_TRUE(publishing->remove(id).is_ok());
  EXPECT_EQ(find_code(*store_, id), StatusCode::kNotFound);
}

TEST_P(StoreTenants, OnesOwnComesBeforeWhatIsShared) {
  // The default tenant's ids are made without a key, as those of shared entries are.
  PutRequest shared = shared_put(1);
  PutRequest own = make_put({}, 1);
  own.set = make_set({}, 77);
  const auto publishing = publisher();
  const CacheId id = put(*publishing, shared).id;
  EXPECT_EQ(put(*store_, own).id, id);
  EXPECT_EQ(store_->find(id)->sharing, Sharing::kPrivate);
  expect_same_set(*store_->get(id), own.set);
  expect_same_set(*view(kAlice)->get(id), shared.set);
  EXPECT_EQ(report().total.entries, 2U);
  EXPECT_TRUE(store_->remove(id).is_ok());
  EXPECT_EQ(store_->find(id)->sharing, Sharing::kShared);
  EXPECT_EQ(store_->remove(id).code(), StatusCode::kPermissionDenied);
}

TEST_P(StoreTenants, AReplacementThatIsSharedTakesThePlaceOfOnesOwn) {
  const auto publishing = publisher();
  const PutRequest own = make_put({}, 1);
  const CacheId id = put(*publishing, own).id;
  const CacheId other = put(*publishing, make_put({}, 2)).id;
  PutRequest shared = shared_put(1);
  shared.set = make_set({}, 77);
  EXPECT_EQ(put(*publishing, shared).sharing, Sharing::kShared);
  EXPECT_EQ(publishing->find(id)->sharing, Sharing::kPrivate);  // kept beside it
  EXPECT_EQ(*publishing->resolve_prefix(id.hex().substr(0, 12)), id);
  shared.if_exists = IfExists::kReplace;
  EXPECT_EQ(put(*publishing, shared).sharing, Sharing::kShared);
  EXPECT_EQ(publishing->find(id)->sharing, Sharing::kShared);
  expect_same_set(*publishing->get(id), shared.set);
  EXPECT_EQ(find_code(*publishing, other), StatusCode::kOk);
  const StoreReport now = report();
  EXPECT_EQ(now.total.entries, 2U);
  EXPECT_EQ(now.held_bytes + now.reserved_bytes, 0U);
  EXPECT_EQ(host_->gc()->blocks, 0U);
}

TEST_P(StoreTenants, AScrubOfSomeLooksAtThese) {
  const CacheId own = put(*store_, make_put({}, 1)).id;
  const CacheId shared = put(*publisher(), shared_put(2)).id;
  put(*view(kAlice), make_put({}, 3, kAlice));
  ScrubOptions some;
  some.only = std::vector<CacheId>{own, shared};
  EXPECT_EQ(host_->scrub(some)->entries, 2U);
  some.tenant = "alice";
  EXPECT_EQ(host_->scrub(some)->entries, 1U);
  EXPECT_EQ(host_->scrub({})->entries, 3U);
}

FINCHKV_OVER_ALL_STORES(StoreTenants);

}  // namespace
}  // namespace finchkv::cache_store
