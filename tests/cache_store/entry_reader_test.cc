// Sealed entries from sources that hand blocks over in different ways.
#include "cache_store/entry_reader.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "cache_store/key_ring.h"
#include "tests/cache_store/encoded.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

using testing::EncodedSource;
using testing::expect_same_set;
using testing::make_put;
using testing::SetSpec;

// Blocks of several segments.
const SetSpec kWide{.layers = 2, .heads = 4, .dim = 64, .kept = 600, .doc_tokens = 700};

KeyRing ring() {
  std::array<std::byte, kKeyBytes> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  std::vector<KeyEncryptionKey> keys;
  keys.push_back(KeyEncryptionKey::copy_of(bytes));
  auto made = KeyRing::make(std::move(keys));
  EXPECT_TRUE(made.is_ok());
  return *std::move(made);
}

Result<EncodedEntry> sealed_entry(const PutRequest& request, const KeyRing& keys) {
  FINCHKV_ASSIGN_OR_RETURN(const PackedEntry packed, pack_entry(request));
  return finish_entry(packed, {.put_id = PutId::random(), .now_unix_ms = 1, .tenant = "alice", .keys = &keys});
}

// Copies a block tile by tile into memory that has the promised room and not a byte more.
class TiledSource final : public BlockSource {
 public:
  TiledSource(EncodedEntry& entry, std::size_t tile) : entry_(entry), tile_(tile) {}

  Status read(const BlockRef& ref, std::span<std::byte> into) override { return EncodedSource(entry_).read(ref, into); }
  Status read_with(const BlockRef& ref, std::span<std::byte> into, BlockWork& work) override {
    ++worked_;
    const auto bytes = entry_.blocks[ref.ordinal].bytes;
    EXPECT_EQ(into.size(), bytes.size());
    std::memset(into.data() - kReadSlack, 0xa5, kReadSlack);
    std::memset(into.data() + into.size(), 0xa5, kReadSlack);
    if (false_start_) {
      std::memset(into.data(), 0x5a, into.size());
      work.arrived(into.size());
      work.again();
    }
    for (std::size_t at = 0; at < bytes.size(); at += tile_) {
      const std::size_t size = std::min(tile_, bytes.size() - at);
      std::memcpy(into.data() + at, bytes.data() + at, size);
      work.arrived(at + size);
    }
    if (fail_) return Status::corrupt("the digest is another");
    return Status::ok();
  }

  int worked_ = 0;
  bool false_start_ = false;
  bool fail_ = false;

 private:
  EncodedEntry& entry_;
  std::size_t tile_;
};

Result<KvSet> read_all(const EncodedEntry& entry, const KeyRing& keys, BlockSource& source) {
  FINCHKV_ASSIGN_OR_RETURN(const EntryReader reader, EntryReader::open(entry.head, "alice", &keys, source));
  KvSet set = reader.empty_set();
  for (std::uint32_t l = 0; l < entry.head.shape.n_layers; ++l) {
    FINCHKV_ASSIGN_OR_RETURN(EntryReader::Layer layer, reader.read_layer(l, source));
    set.layers.push_back(layer.views);
    set.memory.push_back(std::move(layer.memory));
  }
  FINCHKV_RETURN_IF_ERROR(set.validate());
  return set;
}

TEST(SealedEntries, DigestsAreOverWhatIsStored) {
  const KeyRing keys = ring();
  const PutRequest request = make_put(kWide, 1, {}, DType::kBF16);
  auto entry = sealed_entry(request, keys);
  ASSERT_TRUE(entry.is_ok()) << entry.status().message();
  EncodedSource source(*entry);  // compares with block_digest()
  const auto reader = EntryReader::open_sealed(entry->head, source);
  ASSERT_TRUE(reader.is_ok());
  EXPECT_TRUE(reader->verify_digests(source).is_ok());
}

TEST(SealedEntries, ReadTheSameHoweverTheirBlocksCome) {
  const KeyRing keys = ring();
  for (const DType storage : {DType::kBF16, DType::kF32, DType::kQ8}) {
    for (const bool zstd : {false, true}) {
      PutRequest request = make_put(kWide, 2, {}, storage);
      request.zstd_tensors = zstd;
      auto entry = sealed_entry(request, keys);
      ASSERT_TRUE(entry.is_ok()) << entry.status().message();
      const KvSet want = *as_stored(request.set, storage);
      EncodedSource whole(*entry);
      auto set = read_all(*entry, keys, whole);
      ASSERT_TRUE(set.is_ok()) << set.status().message();
      expect_same_set(*set, want);
      for (const std::size_t tile : {std::size_t{5000}, std::size_t{64 << 10}, std::size_t{256 << 10}}) {
        for (const bool false_start : {false, true}) {
          TiledSource tiled(*entry, tile);
          tiled.false_start_ = false_start;
          set = read_all(*entry, keys, tiled);
          ASSERT_TRUE(set.is_ok()) << set.status().message();
          expect_same_set(*set, want);
          EXPECT_EQ(tiled.worked_, 6);
        }
      }
    }
  }
}

TEST(SealedEntries, AFailedReadIsTheSourcesAndAFalseBlockIsCorrupt) {
  const KeyRing keys = ring();
  auto entry = sealed_entry(make_put(kWide, 3, {}, DType::kBF16), keys);
  ASSERT_TRUE(entry.is_ok());
  TiledSource source(*entry, 64 << 10);
  const auto reader = EntryReader::open(entry->head, "alice", &keys, source);
  ASSERT_TRUE(reader.is_ok());
  source.fail_ = true;
  EXPECT_EQ(reader->read_layer(0, source).status().message(), "the digest is another");
  source.fail_ = false;
  // A byte changed on the way, by someone who can make digests fit.
  std::vector<std::byte> forged(entry->blocks[1].bytes.begin(), entry->blocks[1].bytes.end());
  forged[forged.size() / 2] ^= std::byte{1};
  entry->blocks[1].bytes = forged;
  EXPECT_EQ(reader->read_layer(0, source).status().code(), StatusCode::kCorrupt);
  EXPECT_TRUE(reader->read_layer(1, source).is_ok());
}

}  // namespace
}  // namespace finchkv::cache_store
