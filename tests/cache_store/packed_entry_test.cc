#include "cache_store/packed_entry.h"

#include <algorithm>
#include <array>
#include <functional>

#include <gtest/gtest.h>

#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

using testing::make_put;

const Tenant kAlice{"alice", std::vector<std::byte>(32, std::byte{1})};

// One bit more or less, or other bytes altogether, in a block of its own.
void replace(Block& block, const std::function<void(std::vector<std::byte>&)>& change) {
  auto bytes = std::make_shared<std::vector<std::byte>>(block.bytes.begin(), block.bytes.end());
  change(*bytes);
  block.bytes = *bytes;
  block.owner = bytes;
}

class CheckPacked : public ::testing::TestWithParam<DType> {
 protected:
  PutRequest request_ = make_put({.layers = 2, .dim = 8, .kept = 5}, 1, {}, GetParam());
  PackedEntry packed_ = *pack_entry(request_);

  void refused(const std::function<void(PackedEntry&)>& change) {
    PackedEntry bad = packed_;
    change(bad);
    const Status status = check_packed(bad, {});
    EXPECT_EQ(status.code(), StatusCode::kCorrupt) << status.message();
  }
  // All bits set: not a number in every floating dtype, and no scale of a quantised one.
  static void spoil(std::vector<std::byte>& bytes) { std::fill_n(bytes.begin(), 4, std::byte{0xff}); }
};

TEST_P(CheckPacked, WhatWasPackedPasses) {
  const Status status = check_packed(packed_, {});
  EXPECT_TRUE(status.is_ok()) << status.message();
}

TEST_P(CheckPacked, NumbersThatAreNotFinite) {
  refused([](PackedEntry& p) { replace(p.blocks[0], spoil); });
  refused([](PackedEntry& p) { replace(p.blocks[4], spoil); });
}

TEST_P(CheckPacked, BlocksThatAreNotThePlan) {
  refused([](PackedEntry& p) { p.blocks.pop_back(); });
  refused([](PackedEntry& p) { p.blocks.push_back(p.blocks.back()); });
  refused([](PackedEntry& p) { std::swap(p.blocks[0], p.blocks[1]); });
  refused([](PackedEntry& p) { replace(p.blocks[0], [](auto& bytes) { bytes.pop_back(); }); });
  refused([](PackedEntry& p) { replace(p.blocks[0], [](auto& bytes) { bytes.push_back({}); }); });
  refused([](PackedEntry& p) { p.blocks[1].encoding = BlockEncoding::kZstd; });
  refused([](PackedEntry& p) { p.blocks[1].encoding = BlockEncoding::kDelta; });
  PackedEntry newer = packed_;
  newer.blocks[1].encoding = static_cast<BlockEncoding>(77);
  EXPECT_EQ(check_packed(newer, {}).code(), StatusCode::kUnsupported);
}

TEST_P(CheckPacked, OriginsThatAreNone) {
  const std::array<std::uint32_t, 5> beyond = {1, 2, 3, 4, 40};
  const std::array<std::uint32_t, 5> falling = {1, 2, 4, 3, 5};
  for (const auto& origins : {beyond, falling}) {
    refused([&](PackedEntry& p) {
      p.blocks[2].encoding = BlockEncoding::kPlain;
      p.blocks[2].bytes = std::as_bytes(std::span(origins));
    });
  }
  refused([](PackedEntry& p) {
    ASSERT_EQ(p.blocks[5].encoding, BlockEncoding::kDelta);
    replace(p.blocks[5], [](auto& bytes) { std::fill(bytes.begin(), bytes.end(), std::byte{0xff}); });
  });
}

TEST_P(CheckPacked, HeadsThatDoNotHoldTogether) {
  refused([](PackedEntry& p) { p.head.n_kept.pop_back(); });
  refused([](PackedEntry& p) { p.head.n_kept[0] = 4; });
  refused([](PackedEntry& p) { p.head.shape.n_layers = 1; });
  refused([](PackedEntry& p) { p.head.raw_bytes += 1; });
  refused([](PackedEntry& p) { p.head.identity.policy = ""; });
  refused([](PackedEntry& p) { p.head.sealed = true; });
  refused([](PackedEntry& p) { p.head.wrapped_key.resize(80); });
  refused([](PackedEntry& p) { p.head.has_document_tokens = false; });
}

TEST_P(CheckPacked, ADocumentThatIsAnother) {
  refused([](PackedEntry& p) { p.head.identity.document_hash.fill(9); });
  // Under a tenant's key the same document hashes to something else.
  EXPECT_EQ(check_packed(packed_, kAlice).code(), StatusCode::kCorrupt);
  const PutRequest hers = make_put({}, 1, kAlice, GetParam());
  const auto packed = pack_entry(hers);
  ASSERT_TRUE(packed.is_ok());
  EXPECT_TRUE(check_packed(*packed, kAlice).is_ok());
  EXPECT_EQ(check_packed(*packed, {}).code(), StatusCode::kCorrupt);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, CheckPacked,
                         ::testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kQ8, DType::kQ4),
                         [](const auto& test) { return std::string(dtype_name(test.param)); });

}  // namespace
}  // namespace finchkv::cache_store
