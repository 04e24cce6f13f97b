// What every Store must do, run over each implementation, and compared with a std::map under random operations.
#include <functional>
#include <map>
#include <thread>

#include <gtest/gtest.h>

#include "cache_store/codec.h"
#include "cache_store/memory_store.h"
#include "cache_store/rocksdb_store.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

using testing::expect_same_set;
using testing::make_put;
using testing::make_set;
using testing::ScratchDirectory;
using testing::SetSpec;

struct Implementation {
  std::string name;
  bool persistent;
  std::function<std::shared_ptr<StoreHost>(const ScratchDirectory&)> open;
};

std::shared_ptr<StoreHost> open_rocksdb(const ScratchDirectory& scratch, std::uint64_t large_put_bytes) {
  RocksDbOptions options;
  options.large_put_bytes = large_put_bytes;
  auto host = open_rocksdb_store(scratch.store(), options);
  EXPECT_TRUE(host.is_ok()) << host.status().message();
  return host.is_ok() ? *host : nullptr;
}

const Tenant kAlice{"alice", std::vector<std::byte>(32, std::byte{7})};
const Tenant kBob{"bob", std::vector<std::byte>(32, std::byte{8})};

class StoreConformance : public ::testing::TestWithParam<Implementation> {
 protected:
  void SetUp() override { reopen(); }
  void reopen() {
    store_.reset();
    host_.reset();
    host_ = GetParam().open(scratch_);
    ASSERT_NE(host_, nullptr);
    store_ = view({});
  }
  std::unique_ptr<Store> view(const Tenant& tenant) {
    auto store = host_->view(tenant);
    EXPECT_TRUE(store.is_ok()) << store.status().message();
    return store.is_ok() ? *std::move(store) : nullptr;
  }
  EntryInfo put(Store& store, const PutRequest& request) {
    auto info = store.put(request);
    EXPECT_TRUE(info.is_ok()) << info.status().message();
    return info.is_ok() ? *info : EntryInfo{};
  }

  ScratchDirectory scratch_;
  std::shared_ptr<StoreHost> host_;
  std::unique_ptr<Store> store_;
};

TEST_P(StoreConformance, GetReturnsWhatWasPut) {
  for (const bool per_head : {false, true}) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      const PutRequest request =
          make_put({.origins_per_head = per_head, .dtype = dtype}, per_head ? 100 : 200, {}, dtype);
      const EntryInfo info = put(*store_, request);
      EXPECT_EQ(info.id, cache_id(request.identity, {}));
      auto set = store_->get(info.id);
      ASSERT_TRUE(set.is_ok()) << set.status().message();
      expect_same_set(*set, request.set);
      EXPECT_TRUE(store_->verify(info.id).is_ok());
    }
  }
}

TEST_P(StoreConformance, StorageDtypeConvertsAsPromised) {
  const SetSpec spec{.dim = 70, .kept = 67, .doc_tokens = 300};
  for (const DType storage : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8, DType::kQ4}) {
    const PutRequest request = make_put(spec, 1, {}, storage);
    const EntryInfo info = put(*store_, request);
    auto expected = as_stored(request.set, storage);
    ASSERT_TRUE(expected.is_ok());
    auto set = store_->get(info.id);
    ASSERT_TRUE(set.is_ok()) << set.status().message();
    expect_same_set(*set, *expected);
    EXPECT_EQ(info.decoded, set->dtype);
    EXPECT_EQ(info.raw_bytes, set->tensor_bytes());
  }
}

TEST_P(StoreConformance, InfoSaysWhatIsKnown) {
  const PutRequest request = make_put({}, 5);
  put(*store_, request);
  auto info = store_->find(cache_id(request.identity, {}));
  ASSERT_TRUE(info.is_ok());
  EXPECT_EQ(info->identity, request.identity);
  EXPECT_EQ(info->label, "label 5");
  EXPECT_EQ(info->shape, request.set.shape);
  EXPECT_EQ(info->n_kept, (std::vector<std::uint32_t>{5, 5}));
  EXPECT_EQ(info->compress_ms, 1234U);
  EXPECT_EQ(info->rope, request.set.rope);
  EXPECT_EQ(info->next_position, 5U);
  EXPECT_TRUE(info->has_document_tokens);
  EXPECT_EQ(info->raw_bytes, request.set.tensor_bytes());
  EXPECT_GT(info->stored_bytes, info->raw_bytes);
  EXPECT_EQ(info->hits, 0U);
  EXPECT_GT(info->created_unix_ms, 1700000000000U);
}

TEST_P(StoreConformance, OriginsAndDocument) {
  const PutRequest request = make_put({.origins_per_head = true}, 6);
  const EntryInfo info = put(*store_, request);
  auto origins = store_->read_origins(info.id);
  ASSERT_TRUE(origins.is_ok());
  ASSERT_EQ(origins->size(), 2U);
  for (std::size_t l = 0; l < 2; ++l) EXPECT_TRUE(std::ranges::equal((*origins)[l], request.set.layers[l].origins));
  auto tokens = store_->read_document_tokens(info.id);
  ASSERT_TRUE(tokens.is_ok());
  EXPECT_EQ(*tokens, *request.document_tokens);

  PutRequest without = make_put({}, 7);
  without.document_tokens.reset();
  EXPECT_EQ(store_->read_document_tokens(put(*store_, without).id).status().code(), StatusCode::kNotFound);
}

TEST_P(StoreConformance, AbsentIsNotFound) {
  const CacheId absent = cache_id(make_put({}, 1).identity, {});
  EXPECT_EQ(store_->find(absent).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->get(absent).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->read_origins(absent).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->read_document_tokens(absent).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->verify(absent).code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->remove(absent).code(), StatusCode::kNotFound);
  EXPECT_NE(store_->find(absent).status().message().find(absent.hex()), std::string::npos);
}

TEST_P(StoreConformance, KeepAndReplace) {
  PutRequest first = make_put({}, 1);
  PutRequest second = first;
  second.set = make_set({}, 999);
  second.label = "second";
  const CacheId id = put(*store_, first).id;
  EXPECT_EQ(put(*store_, second).label, "label 1");
  expect_same_set(*store_->get(id), first.set);
  second.if_exists = IfExists::kReplace;
  EXPECT_EQ(put(*store_, second).label, "second");
  expect_same_set(*store_->get(id), second.set);
  EXPECT_EQ(store_->stats()->entries, 1U);
  EXPECT_EQ(host_->gc()->blocks, 0U);
}

TEST_P(StoreConformance, HitsAreCounted) {
  const CacheId id = put(*store_, make_put({}, 1)).id;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(store_->get(id).is_ok());
  auto info = store_->find(id);
  EXPECT_EQ(info->hits, 3U);
  EXPECT_GE(info->last_used_unix_ms, info->created_unix_ms);
}

TEST_P(StoreConformance, WhatIsReadOutlivesEverything) {
  const PutRequest request = make_put({}, 1);
  const CacheId id = put(*store_, request).id;
  auto set = store_->get(id);
  ASSERT_TRUE(store_->remove(id).is_ok());
  store_.reset();
  host_.reset();
  expect_same_set(*set, request.set);
}

TEST_P(StoreConformance, PutRefusesWhatDoesNotHoldTogether) {
  const auto code = [&](const std::function<void(PutRequest&)>& change) {
    PutRequest request = make_put({}, 1);
    change(request);
    return store_->put(request).status().code();
  };
  const auto invalid = StatusCode::kInvalidArgument;
  EXPECT_EQ(code([](PutRequest& r) { r.identity.doc_tokens = 41; }), invalid);
  EXPECT_EQ(code([](PutRequest& r) { r.identity.policy = "Bad Name"; }), invalid);
  EXPECT_EQ(code([](PutRequest& r) { r.document_tokens->back() += 1; }), invalid);
  EXPECT_EQ(code([](PutRequest& r) { r.document_tokens->pop_back(); }), invalid);
  EXPECT_EQ(code([](PutRequest& r) { r.label.assign(257, 'x'); }), invalid);
  EXPECT_EQ(code([](PutRequest& r) { r.set.layers.pop_back(); }), invalid);
  EXPECT_EQ(code([](PutRequest& r) { r.set.rope.inv_freq.pop_back(); }), invalid);
  EXPECT_EQ(code([](PutRequest& r) { r.set.next_position = 1; }), invalid);
  EXPECT_EQ(store_->stats()->entries, 0U);
}

TEST_P(StoreConformance, NonFiniteIsRefusedByLayer) {
  for (const DType storage : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8, DType::kQ4}) {
    PutRequest request = make_put({}, 1, {}, storage);
    auto bad = std::make_shared<std::vector<float>>(80, 1.0F);
    (*bad)[33] = std::numeric_limits<float>::infinity();
    request.set.layers[1].values = std::as_bytes(std::span<const float>(*bad));
    request.set.memory.push_back(bad);
    const Status status = store_->put(request).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << dtype_name(storage);
    EXPECT_NE(status.message().find("values of layer 1"), std::string::npos) << status.message();
  }
}

TEST_P(StoreConformance, ListPages) {
  std::map<CacheId, std::uint32_t> model;
  for (std::uint32_t i = 0; i < 25; ++i) model[put(*store_, make_put({}, i)).id] = i;
  std::vector<CacheId> seen;
  std::optional<CacheId> after;
  int pages = 0;
  do {
    auto page = store_->list(after, 10);
    ASSERT_TRUE(page.is_ok());
    for (const EntryInfo& entry : page->entries) seen.push_back(entry.id);
    after = page->next;
    ++pages;
  } while (after);
  EXPECT_EQ(pages, 3);
  ASSERT_EQ(seen.size(), model.size());
  EXPECT_TRUE(std::ranges::equal(seen, model, {}, {}, [](const auto& entry) { return entry.first; }));
  EXPECT_FALSE(store_->list({}, 25)->next.has_value());
  EXPECT_EQ(store_->list({}, 0).status().code(), StatusCode::kInvalidArgument);
}

TEST_P(StoreConformance, PrefixesResolve) {
  std::vector<CacheId> ids;
  for (std::uint32_t i = 0; i < 40; ++i) ids.push_back(put(*store_, make_put({}, i)).id);
  std::sort(ids.begin(), ids.end());
  for (const CacheId& id : ids) EXPECT_EQ(*store_->resolve_prefix(id.hex()), id);
  std::string upper = ids[3].hex().substr(0, 21);
  std::transform(upper.begin(), upper.end(), upper.begin(), [](unsigned char c) { return std::toupper(c); });
  EXPECT_EQ(*store_->resolve_prefix(upper), ids[3]);
  // 40 ids share 16 first digits, so some digit is ambiguous.
  int ambiguous = 0;
  for (const char* digit = "0123456789abcdef"; *digit != '\0'; ++digit) {
    const auto count =
        std::count_if(ids.begin(), ids.end(), [&](const CacheId& id) { return id.hex().front() == *digit; });
    const auto result = store_->resolve_prefix(std::string(1, *digit));
    const StatusCode expected = count == 0   ? StatusCode::kNotFound
                                : count == 1 ? StatusCode::kOk
                                             : StatusCode::kInvalidArgument;
    EXPECT_EQ(result.status().code(), expected);
    if (count > 1) ++ambiguous;
  }
  EXPECT_GT(ambiguous, 0);
  for (const std::string bad : {"", "xyz", "0g"}) {
    EXPECT_EQ(store_->resolve_prefix(bad).status().code(), StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_EQ(store_->resolve_prefix(std::string(65, '0')).status().code(), StatusCode::kInvalidArgument);
}

TEST_P(StoreConformance, TenantsDoNotSeeEachOther) {
  auto alice = view(kAlice);
  auto bob = view(kBob);
  const PutRequest request = make_put({}, 1, kAlice);
  const CacheId id = put(*alice, request).id;
  EXPECT_NE(id, cache_id(request.identity, {}));
  for (Store* other : {bob.get(), store_.get()}) {
    EXPECT_EQ(other->find(id).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(other->get(id).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(other->verify(id).code(), StatusCode::kNotFound);
    EXPECT_EQ(other->remove(id).code(), StatusCode::kNotFound);
    EXPECT_EQ(other->resolve_prefix(id.hex()).status().code(), StatusCode::kNotFound);
    EXPECT_TRUE(other->list({}, 100)->entries.empty());
    EXPECT_EQ(other->stats()->entries, 0U);
  }
  expect_same_set(*alice->get(id), request.set);
  EXPECT_EQ(host_->gc()->blocks, 0U);  // gc sees all tenants
  EXPECT_TRUE(alice->verify(id).is_ok());
}

TEST_P(StoreConformance, AnotherKeyDoesNotOpenATenant) {
  put(*view(kAlice), make_put({}, 1, kAlice));
  EXPECT_EQ(host_->view({"alice", kBob.key}).status().code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(host_->view({"", kBob.key}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(host_->view({"alice", {}}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(host_->view({"a/b", kBob.key}).status().code(), StatusCode::kInvalidArgument);
}

TEST_P(StoreConformance, TwoKeysForOneNewTenant) {
  auto first = view(kAlice);
  auto second = view({"alice", kBob.key});  // nobody has written yet
  put(*first, make_put({}, 1, kAlice));
  EXPECT_EQ(second->put(make_put({}, 2, {"alice", kBob.key})).status().code(), StatusCode::kPermissionDenied);
}

TEST_P(StoreConformance, LayersMayKeepDifferentCountsOrNothing) {
  PutRequest request = make_put({}, 1);
  request.set.layers[0] = KvLayer{};
  const CacheId id = put(*store_, request).id;
  expect_same_set(*store_->get(id), request.set);
  EXPECT_EQ(store_->find(id)->n_kept, (std::vector<std::uint32_t>{0, 5}));
}

TEST_P(StoreConformance, RandomOperationsAgreeWithAMap) {
  std::mt19937 random(20240607);
  struct Expected {
    KvSet set;
    std::string label;
    std::uint64_t hits = 0;
  };
  std::map<CacheId, Expected> model;
  constexpr std::uint32_t kIdentities = 12;
  for (int step = 0; step < 1500; ++step) {
    const std::uint32_t which = random() % kIdentities;
    PutRequest request = make_put({.kept = 1 + which}, which);
    const CacheId id = cache_id(request.identity, {});
    switch (random() % 8) {
      case 0:
      case 1: {
        request.set = make_set({.kept = 1 + which}, random());
        request.label = std::to_string(step);
        request.if_exists = random() % 2 == 0 ? IfExists::kKeep : IfExists::kReplace;
        const EntryInfo info = put(*store_, request);
        if (!model.contains(id) || request.if_exists == IfExists::kReplace) {
          model[id] = {request.set, request.label};
        }
        EXPECT_EQ(info.label, model[id].label);
        break;
      }
      case 2: EXPECT_EQ(store_->remove(id).is_ok(), model.erase(id) == 1); break;
      case 3: {
        std::vector<CacheId> ids;
        auto page = store_->list({}, 100);
        for (const EntryInfo& entry : page->entries) ids.push_back(entry.id);
        EXPECT_TRUE(std::ranges::equal(ids, model, {}, {}, [](const auto& entry) { return entry.first; }));
        break;
      }
      case 4: EXPECT_EQ(store_->verify(id).is_ok(), model.contains(id)); break;
      case 5:
        EXPECT_EQ(host_->gc()->blocks, 0U);
        if (GetParam().persistent && step % 25 == 0) reopen();
        break;
      default: {
        auto set = store_->get(id);
        ASSERT_EQ(set.is_ok(), model.contains(id));
        if (set.is_ok()) {
          expect_same_set(*set, model[id].set);
          EXPECT_EQ(store_->find(id)->hits, ++model[id].hits);
        }
      }
    }
  }
  EXPECT_EQ(store_->stats()->entries, model.size());
}

TEST_P(StoreConformance, ManyThreads) {
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 60; ++i) {
        const std::uint32_t which = random() % 4;
        PutRequest request = make_put({}, which);
        const CacheId id = cache_id(request.identity, {});
        request.if_exists = IfExists::kReplace;
        switch (random() % 4) {
          case 0: EXPECT_TRUE(store_->put(request).is_ok()); break;
          case 1: (void)store_->remove(id).is_ok(); break;
          case 2: EXPECT_TRUE(host_->gc().is_ok()); break;
          default: {
            auto set = store_->get(id);
            if (set.is_ok()) {
              expect_same_set(*set, request.set);
            } else {
              EXPECT_EQ(set.status().code(), StatusCode::kNotFound) << set.status().message();
            }
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(host_->gc()->blocks, 0U);
}

INSTANTIATE_TEST_SUITE_P(
    Stores, StoreConformance,
    ::testing::Values(
        Implementation{"memory", false, [](const ScratchDirectory&) { return make_memory_store(); }},
        Implementation{"rocksdb", true, [](const ScratchDirectory& s) { return open_rocksdb(s, 4U << 20); }},
        // Every put takes the way of large ones: past the log.
        Implementation{"rocksdb_large", true, [](const ScratchDirectory& s) { return open_rocksdb(s, 0); }}),
    [](const auto& implementation) { return implementation.param.name; });

}  // namespace
}  // namespace finchkv::cache_store
