#include "cache_store/codec.h"

#include <functional>

#include <gtest/gtest.h>

#include "cache_store/block_codec.h"
#include "cache_store/head_codec.h"
#include "tests/cache_store/encoded.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

using testing::encode_entry;
using testing::expect_same_set;
using testing::make_put;
using testing::read_kvset;

TEST(Codec, HeadRoundTrip) {
  const PutRequest request = make_put({.layers = 5}, 3);
  const PutId put_id = PutId::random();
  auto entry = encode_entry(request, put_id, 1717171717000);
  ASSERT_TRUE(entry.is_ok()) << entry.status().message();
  auto head = decode_head(entry->head_record, cache_id(request.identity, {}), {});
  ASSERT_TRUE(head.is_ok()) << head.status().message();
  EXPECT_EQ(head->identity, request.identity);
  EXPECT_EQ(head->put_id, put_id);
  EXPECT_EQ(head->shape, request.set.shape);
  EXPECT_EQ(head->rope, request.set.rope);
  EXPECT_EQ(head->n_kept, std::vector<std::uint32_t>(5, 5));
  EXPECT_EQ(head->created_unix_ms, 1717171717000U);
  EXPECT_EQ(head->compress_ms, 1234U);
  EXPECT_EQ(head->stored_bytes, entry->block_bytes);
  EXPECT_EQ(head->block_count(), entry->blocks.size());
  EXPECT_EQ(encode_head(*head), entry->head_record);
}

TEST(Codec, HeadsStaySmall) {  // some KiB, however many layers: the table is a block
  auto entry = encode_entry(make_put({.layers = 128, .heads = 8, .dim = 128}, 1), PutId::random(), 1);
  ASSERT_TRUE(entry.is_ok());
  EXPECT_LT(entry->head_record.size(), 3000U);
}

TEST(Codec, SetsRoundTripInEveryDtype) {
  for (const DType given : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const DType storage : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8, DType::kQ4}) {
      const PutRequest request = make_put({.dim = 66, .kept = 65, .doc_tokens = 99, .dtype = given}, 4, {}, storage);
      auto entry = encode_entry(request, PutId::random(), 1);
      ASSERT_TRUE(entry.is_ok()) << entry.status().message();
      auto set = read_kvset(*entry);
      ASSERT_TRUE(set.is_ok()) << set.status().message();
      expect_same_set(*set, *as_stored(request.set, storage));
      const DType wide = given == DType::kF32 ? DType::kF32 : DType::kBF16;
      EXPECT_EQ(set->dtype, is_quantised(storage) ? wide : storage);
      if (given == storage) expect_same_set(*set, request.set);
    }
  }
}

TEST(Codec, UnchangedTensorsAreNotCopied) {
  const PutRequest request = make_put({}, 1);
  auto entry = encode_entry(request, PutId::random(), 1);
  EXPECT_EQ(entry->blocks[1].bytes.data(), request.set.layers[0].keys.data());
}

TEST(Codec, AHeadOfAnotherTenantOrIdIsCorrupt) {
  const PutRequest request = make_put({}, 1);
  auto entry = encode_entry(request, PutId::random(), 1);
  const Tenant alice{"alice", std::vector<std::byte>(32, std::byte{1})};
  EXPECT_EQ(decode_head(entry->head_record, cache_id(request.identity, {}), alice).status().code(),
            StatusCode::kCorrupt);
  EXPECT_EQ(decode_head(entry->head_record, CacheId{}, {}).status().code(), StatusCode::kCorrupt);
}

// Heads that a hostile writer could make: digest and structure right, contents not.
TEST(Codec, HostileHeadsAreCorrupt) {
  auto entry = encode_entry(make_put({}, 1), PutId::random(), 1);
  const auto refused = [&](const std::function<void(EntryHead&)>& change) {
    EntryHead head = entry->head;
    change(head);
    const auto decoded = decode_head_unbound(encode_head(head));
    EXPECT_EQ(decoded.status().code(), StatusCode::kCorrupt);
  };
  refused([](EntryHead& h) { h.shape.n_layers = 0xffffffff; });
  refused([](EntryHead& h) { h.shape.n_layers = 1; });
  refused([](EntryHead& h) { h.shape.n_kv_heads = 0; });
  refused([](EntryHead& h) { h.shape.head_dim = 0xffffffff; });
  refused([](EntryHead& h) { h.shape.origin_rows = 3; });
  refused([](EntryHead& h) { h.n_kept = {4000000000U, 5}; });
  refused([](EntryHead& h) { h.n_kept[0] = 41; });  // the document has 40 tokens
  refused([](EntryHead& h) { h.next_position = 4; });
  refused([](EntryHead& h) { h.decoded = DType::kBF16; });
  refused([](EntryHead& h) { h.decoded = DType::kQ8; });
  refused([](EntryHead& h) { h.rope.rotary_dims = 10; });
  refused([](EntryHead& h) { h.rope.inv_freq[0] = std::numeric_limits<float>::quiet_NaN(); });
  refused([](EntryHead& h) { h.rope.scaling.assign(1000, 'x'); });
  refused([](EntryHead& h) { h.raw_bytes += 1; });
  refused([](EntryHead& h) { h.wrapped_key.resize(17); });
  refused([](EntryHead& h) { h.table.encoding = BlockEncoding::kZstd; });
}

TEST(Codec, TablesThatDoNotFitTheHeadAreCorrupt) {
  auto entry = encode_entry(make_put({}, 1), PutId::random(), 1);
  auto refs = decode_table(entry->head, entry->blocks[0].bytes);
  ASSERT_TRUE(refs.is_ok());
  const auto refused = [&](const std::function<void(std::vector<BlockRef>&)>& change) {
    auto changed = *refs;
    change(changed);
    const auto bytes = encode_table(changed);
    EntryHead head = entry->head;
    head.stored_bytes = head.stored_bytes - head.table.stored_bytes + bytes.size();
    EXPECT_EQ(decode_table(head, bytes).status().code(), StatusCode::kCorrupt);
  };
  refused([](auto& r) { r.pop_back(); });
  refused([](auto& r) { r[0].stored_bytes = std::uint64_t{1} << 50; });
  refused([](auto& r) { r[0].raw_bytes -= 1; });
  refused([](auto& r) { r[1].ordinal = 0; });
  refused([](auto& r) { std::swap(r[0], r[1]); });
  refused([](auto& r) { r[2].kind = static_cast<BlockKind>(99); });
  refused([](auto& r) { r[2].layer = 1; });
  refused([](auto& r) { r[0].encoding = BlockEncoding::kZstd; });   // not smaller than its layout
  refused([](auto& r) { r[0].encoding = BlockEncoding::kDelta; });  // keys are no positions
  refused([](auto& r) { r[2].encoding = BlockEncoding::kPlain; });  // the packed size is not the plain one
  refused([](auto& r) { r[2].stored_bytes = std::uint64_t{1} << 40; });
}

TEST(Codec, TruncatedMessagesAreCorrupt) {
  auto entry = encode_entry(make_put({}, 1), PutId::random(), 1);
  for (std::size_t n = 0; n < entry->head_record.size(); n += 8) {
    EXPECT_EQ(decode_head_unbound(std::span(entry->head_record).first(n)).status().code(), StatusCode::kCorrupt);
    if (n < 16) continue;
    // With a digest that fits, so that the parser sees it.
    std::vector<std::byte> record(entry->head_record.begin(), entry->head_record.begin() + static_cast<long>(n));
    const BlockDigest digest = block_digest(std::span(record).subspan(16));
    std::memcpy(record.data(), digest.data(), digest.size());
    EXPECT_FALSE(decode_head_unbound(record).is_ok()) << n;
  }
}

TEST(Codec, ANewerHeadIsUnsupported) {
  auto entry = encode_entry(make_put({}, 1), PutId::random(), 1);
  // headVersion is the message's first field: behind the digest, the segment table and the root pointer.
  auto record = entry->head_record;
  ASSERT_EQ(record[16 + 16], std::byte{kHeadVersion});
  record[16 + 16] = std::byte{kHeadVersion + 1};
  const BlockDigest digest = block_digest(std::span(record).subspan(16));
  std::memcpy(record.data(), digest.data(), digest.size());
  EXPECT_EQ(decode_head_unbound(record).status().code(), StatusCode::kUnsupported);
}

TEST(Codec, ValuesOfANewerProgramAreUnsupported) {
  auto entry = encode_entry(make_put({}, 1), PutId::random(), 1);
  const auto unsupported = [&](const std::function<void(EntryHead&)>& change) {
    EntryHead head = entry->head;
    change(head);
    auto record = encode_head(head);
    EXPECT_EQ(decode_head_unbound(record).status().code(), StatusCode::kUnsupported);
    EXPECT_TRUE(head_is_as_written(record));
    record[40] ^= std::byte{1};
    EXPECT_EQ(decode_head_unbound(record).status().code(), StatusCode::kCorrupt);
    EXPECT_FALSE(head_is_as_written(record));
  };
  unsupported([](EntryHead& h) { h.decoded = static_cast<DType>(9); });
  unsupported([](EntryHead& h) { h.key_form = static_cast<KeyForm>(7); });
  unsupported([](EntryHead& h) { h.provenance = static_cast<Provenance>(7); });
  unsupported([](EntryHead& h) { h.identity.storage = static_cast<DType>(9); });
  unsupported([](EntryHead& h) { h.identity.kind = static_cast<EntryKind>(9); });
}

TEST(Codec, OriginsThatDoNotAscendAreCorrupt) {
  PutRequest request = make_put({}, 1);
  auto entry = encode_entry(request, PutId::random(), 1);
  std::vector<std::uint32_t> wrong = {5, 4, 3, 2, 1};
  auto refs = *decode_table(entry->head, entry->blocks[0].bytes);
  refs[2].digest = block_digest(std::as_bytes(std::span(wrong)));
  refs[2].encoding = BlockEncoding::kPlain;
  refs[2].stored_bytes = wrong.size() * sizeof(wrong[0]);
  const auto table = encode_table(refs);
  entry->head.stored_bytes += refs[2].stored_bytes - entry->blocks[3].bytes.size();
  entry->head.table.digest = block_digest(table);
  entry->blocks[0].bytes = table;
  entry->blocks[3].bytes = std::as_bytes(std::span(wrong));
  EXPECT_EQ(read_kvset(*entry).status().code(), StatusCode::kCorrupt);
}

TEST(Codec, PutIdsDiffer) { EXPECT_NE(PutId::random(), PutId::random()); }

}  // namespace
}  // namespace finchkv::cache_store
