// Copies between stores, over every Store: what is packed comes back with the same bytes, whatever store, seal or
// tenant it went through.
#include <gtest/gtest.h>

#include "cache_store/packed_entry.h"
#include "tests/cache_store/implementations.h"

namespace finchkv::cache_store {
namespace {

using testing::expect_same_set;
using testing::kAlice;
using testing::kMiddling;
using testing::make_put;
using testing::make_set;
using testing::same_bytes;

void expect_same_packed(const PackedEntry& a, const PackedEntry& b) {
  EXPECT_EQ(a.head.identity, b.head.identity);
  EXPECT_EQ(a.head.created_unix_ms, b.head.created_unix_ms);
  EXPECT_EQ(a.head.compress_ms, b.head.compress_ms);
  ASSERT_EQ(a.blocks.size(), b.blocks.size());
  for (std::size_t i = 0; i < a.blocks.size(); ++i) {
    EXPECT_EQ(a.blocks[i].ordinal, b.blocks[i].ordinal);
    EXPECT_EQ(a.blocks[i].encoding, b.blocks[i].encoding);
    EXPECT_TRUE(same_bytes(a.blocks[i].bytes, b.blocks[i].bytes)) << "block " << i;
  }
}

class StorePacked : public testing::StoreTest {
 protected:
  void SetUp() override {
    testing::StoreTest::SetUp();
    memory_ = make_memory_store();
  }
  std::unique_ptr<Store> in_memory(const Tenant& tenant, ViewOptions options = {}) {
    return *memory_->view(tenant, std::move(options));
  }
  static PackedEntry packed_of(Store& store, const CacheId& id) {
    auto packed = store.read_packed(id);
    EXPECT_TRUE(packed.is_ok()) << packed.status().to_string();
    return packed.is_ok() ? *std::move(packed) : PackedEntry{};
  }
  static void expect_taken(const Result<EntryInfo>& info) { EXPECT_TRUE(info.is_ok()) << info.status().to_string(); }

  std::shared_ptr<StoreHost> memory_;
};

TEST_P(StorePacked, ThereAndBack) {
  const auto other = in_memory({});
  for (const DType storage : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8, DType::kQ4}) {
    PutRequest request = make_put(kMiddling, static_cast<std::uint32_t>(storage), {}, storage);
    request.zstd_tensors = storage == DType::kQ4;
    const EntryInfo made = put(*store_, request);
    const PackedEntry first = packed_of(*store_, made.id);
    EXPECT_TRUE(check_packed(first, {}).is_ok());
    PutOptions options;
    options.provenance = Provenance::kImported;
    options.label = "copied";
    const auto copied = other->put_packed(first, options);
    ASSERT_TRUE(copied.is_ok()) << copied.status().to_string();
    EXPECT_EQ(copied->id, made.id);
    EXPECT_EQ(copied->created_unix_ms, made.created_unix_ms);
    EXPECT_EQ(copied->compress_ms, made.compress_ms);
    EXPECT_EQ(copied->provenance, Provenance::kImported);
    EXPECT_EQ(copied->label, "copied");
    EXPECT_EQ(copied->stored_bytes, made.stored_bytes);
    EXPECT_EQ(copied->raw_bytes, made.raw_bytes);
    const PackedEntry second = packed_of(*other, made.id);
    expect_same_packed(second, first);

    ASSERT_TRUE(store_->remove(made.id).is_ok());
    expect_taken(store_->put_packed(second, {}));
    expect_same_packed(packed_of(*store_, made.id), first);
    expect_same_set(*store_->get(made.id), *as_stored(request.set, storage));
    EXPECT_EQ(*store_->read_document_tokens(made.id), *request.document_tokens);
    EXPECT_TRUE(store_->verify(made.id).is_ok());
  }
}

TEST_P(StorePacked, SealedAndOpen) {
  const PutRequest request = make_put(kMiddling, 1, kAlice, DType::kBF16);
  const auto sealed = sealed_view(kAlice, {10});
  const auto open = in_memory(kAlice);
  const auto sealed_otherwise = in_memory(kAlice, {.keys = testing::ring_of({20})});
  const CacheId id = put(*sealed, request).id;
  const PackedEntry packed = packed_of(*sealed, id);
  EXPECT_FALSE(packed.head.sealed);

  const auto opened = open->put_packed(packed, {});
  ASSERT_TRUE(opened.is_ok()) << opened.status().to_string();
  EXPECT_FALSE(opened->sealed);
  expect_same_packed(packed_of(*open, id), packed);
  PutOptions replace;
  replace.if_exists = IfExists::kReplace;
  const auto sealed_again = sealed_otherwise->put_packed(packed_of(*open, id), replace);
  ASSERT_TRUE(sealed_again.is_ok()) << sealed_again.status().to_string();
  EXPECT_TRUE(sealed_again->sealed);
  expect_same_packed(packed_of(*sealed_otherwise, id), packed);
  EXPECT_EQ(open->read_packed(id).status().code(), StatusCode::kPermissionDenied);

  expect_taken(sealed->put_packed(packed_of(*sealed_otherwise, id), replace));
  expect_same_set(*sealed->get(id), *as_stored(request.set, DType::kBF16));
  EXPECT_EQ(*sealed->read_document_tokens(id), *request.document_tokens);
}

TEST_P(StorePacked, IntoWhatAllShare) {
  const PutRequest request = make_put({}, 1);
  const CacheId id = put(*store_, request).id;
  PutOptions options;
  options.sharing = Sharing::kShared;
  const auto publishing = in_memory(kAlice, {.publisher = true});
  expect_taken(publishing->put_packed(packed_of(*store_, id), options));
  expect_same_set(*in_memory({})->get(id), request.set);
}

TEST_P(StorePacked, KeepsOrReplacesWhatIsThere) {
  PutRequest request = make_put({}, 1);
  const CacheId id = put(*store_, request).id;
  PutRequest other = request;
  other.set = make_set({}, 70);
  const PackedEntry packed = *pack_entry(other);
  PutOptions options;
  options.label = "packed";
  EXPECT_EQ(store_->put_packed(packed, options)->label, request.label);
  expect_same_set(*store_->get(id), request.set);
  options.if_exists = IfExists::kReplace;
  options.ttl_ms = 3'600'000;
  options.pinned = true;
  const auto info = store_->put_packed(packed, options);
  ASSERT_TRUE(info.is_ok()) << info.status().to_string();
  EXPECT_EQ(info->label, "packed");
  EXPECT_TRUE(info->pinned);
  EXPECT_NE(info->expires_unix_ms, 0U);
  EXPECT_GT(info->created_unix_ms, 1700000000000U);  // new, as it says no time of its own
  expect_same_set(*store_->get(id), other.set);
}

TEST_P(StorePacked, WhatCouldNotBeReadBackIsRefused) {
  const PackedEntry good = *pack_entry(make_put({}, 1));
  const auto code = [&](const std::function<void(PackedEntry&)>& change) {
    PackedEntry bad = good;
    change(bad);
    return store_->put_packed(bad, {}).status().code();
  };
  const auto invalid = StatusCode::kInvalidArgument;
  EXPECT_EQ(code([](PackedEntry& p) { p.blocks.pop_back(); }), invalid);
  EXPECT_EQ(code([](PackedEntry& p) { std::swap(p.blocks[0], p.blocks[1]); }), invalid);
  EXPECT_EQ(code([](PackedEntry& p) { p.head.shape.n_layers = 3; }), invalid);
  EXPECT_EQ(code([](PackedEntry& p) { p.head.n_kept[0] = 1000; }), invalid);
  EXPECT_EQ(code([](PackedEntry& p) { p.head.identity.policy = "Bad Name"; }), invalid);
  PutOptions options;
  options.label.assign(257, 'x');
  EXPECT_EQ(store_->put_packed(good, options).status().code(), invalid);
  EXPECT_EQ(store_->stats()->entries, 0U);
  EXPECT_EQ(host_->gc()->blocks, 0U);
}

FINCHKV_OVER_ALL_STORES(StorePacked);

}  // namespace
}  // namespace finchkv::cache_store
