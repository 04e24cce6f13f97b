// What every Store must do: putting, getting, finding, listing, removing. Run over each implementation, as are
// store_stream_test (layer by layer), store_limits_test, store_expiry_test, store_tenants_test, store_sealed_test,
// store_packed_test and store_report_test; model_test compares with a std::map, store_threads_test runs many threads.
#include <functional>
#include <map>
#include <thread>

#include <gtest/gtest.h>

#include "cache_store/codec.h"
#include "tests/cache_store/implementations.h"

namespace finchkv::cache_store {
namespace {

using testing::expect_same_set;
using testing::make_put;
using testing::make_set;
using testing::SetSpec;

class StoreConformance : public testing::StoreTest {};

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
  EXPECT_EQ(store_->stream(absent).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->read_packed(absent).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->remove(absent).code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->set_label(absent, "x").code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->set_pinned(absent, true).code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->set_expiry(absent, 1).code(), StatusCode::kNotFound);
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

TEST_P(StoreConformance, LayersMayKeepDifferentCountsOrNothing) {
  PutRequest request = make_put({}, 1);
  request.set.layers[0] = KvLayer{};
  const CacheId id = put(*store_, request).id;
  expect_same_set(*store_->get(id), request.set);
  EXPECT_EQ(store_->find(id)->n_kept, (std::vector<std::uint32_t>{0, 5}));
}

TEST_P(StoreConformance, LabelsChange) {
  const CacheId id = put(*store_, make_put({}, 1)).id;
  for (const std::string& label : {std::string("Bericht über 2024"), std::string(256, 'x'), std::string()}) {
    ASSERT_TRUE(store_->set_label(id, label).is_ok());
    EXPECT_EQ(store_->find(id)->label, label);
    EXPECT_EQ(store_->list({}, 1)->entries.at(0).label, label);
  }
  EXPECT_EQ(store_->set_label(id, std::string(257, 'x')).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(store_->get(id).is_ok());
}

TEST_P(StoreConformance, ZstdTensorsComeBack) {
  PutRequest request = make_put(testing::kMiddling, 1);
  auto zeroes = std::make_shared<std::vector<float>>(2 * 64 * 64);
  request.set.layers[0].keys = std::as_bytes(std::span<const float>(*zeroes));
  request.set.memory.push_back(zeroes);
  const std::uint64_t plain = put(*store_, request).stored_bytes;
  request.zstd_tensors = true;
  request.if_exists = IfExists::kReplace;
  const EntryInfo info = put(*store_, request);
  EXPECT_LT(info.stored_bytes, plain - zeroes->size());
  expect_same_set(*store_->get(info.id), request.set);
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

FINCHKV_OVER_ALL_STORES(StoreConformance);

}  // namespace
}  // namespace finchkv::cache_store
