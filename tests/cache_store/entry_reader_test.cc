// Sealed entries from sources that hand blocks over in different ways; what becomes of memory and of later layers where
// a block is damaged.
#include "cache_store/entry_reader.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "cache_store/key_ring.h"
#include "cache_store/layer_stream.h"
#include "tests/cache_store/encoded.h"
#include "tests/cache_store/sets.h"
#include "tests/cache_store/tracked_memory.h"

namespace finchkv::cache_store {
namespace {

using testing::EncodedSource;
using testing::expect_same_set;
using testing::make_put;
using testing::SetSpec;
using testing::TrackedMemory;

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

// A stream over an encoded entry, with a pool's threads to help.
class Streaming {
 public:
  explicit Streaming(const EncodedEntry& entry, std::size_t threads = 3) : entry_(entry), pool_(threads) {}
  bool helpers_fail = false;

  std::unique_ptr<EntryStream> open(const StreamOptions& options) {
    auto source = std::make_unique<EncodedSource>(entry_);
    auto reader = EntryReader::open(entry_.head, "", nullptr, *source);
    EXPECT_TRUE(reader.is_ok()) << reader.status().to_string();
    const OpenSource more = [this]() -> Result<std::unique_ptr<BlockSource>> {
      if (helpers_fail) return Status::unavailable("no more files may be opened");
      return std::unique_ptr<BlockSource>(std::make_unique<EncodedSource>(entry_));
    };
    return make_layer_stream(make_entry_info({}, entry_.head), *std::move(reader), std::move(source), more, &pool_,
                             options);
  }

 private:
  const EncodedEntry& entry_;
  ReadPool pool_;
};

// With many helpers the caller only reads what nobody has begun: nothing may be left to nobody.
TEST(LayerStreams, AnyNumberOfHelpersAndAnyOrder) {
  const SetSpec spec{.layers = 7, .heads = 4, .dim = 64, .kept = 600, .doc_tokens = 700};
  const PutRequest request = make_put(spec, 6);
  const auto entry = testing::encode_entry(request, PutId::random(), 1);
  ASSERT_TRUE(entry.is_ok());
  for (const std::size_t threads : {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{12}}) {
    for (const bool helpers_fail : {false, true}) {
      SCOPED_TRACE(std::to_string(threads) + (helpers_fail ? " helpers that fail" : " helpers"));
      Streaming streaming(*entry, threads);
      streaming.helpers_fail = helpers_fail;
      for (const std::vector<std::uint32_t>& order :
           {std::vector<std::uint32_t>{0, 1, 2, 3, 4, 5, 6}, {6, 5, 4, 3, 2, 1, 0}, {3, 0, 6, 1, 5, 2, 4}}) {
        const auto stream = streaming.open({});
        for (const std::uint32_t l : order) {
          const auto layer = stream->take(l);
          ASSERT_TRUE(layer.is_ok()) << layer.status().to_string();
          EXPECT_TRUE(testing::same_bytes(layer->views.keys, request.set.layers[l].keys));
          EXPECT_TRUE(testing::same_bytes(layer->views.values, request.set.layers[l].values));
        }
      }
      const auto whole = streaming.open({})->finish();
      ASSERT_TRUE(whole.is_ok()) << whole.status().to_string();
      expect_same_set(*whole, request.set);
    }
  }
}

TEST(DamagedEntries, NothingOfADamagedLayerIsHandedOutAndTheMemoryGoesBack) {
  for (const DType storage : {DType::kBF16, DType::kQ8, DType::kQ4}) {
    SCOPED_TRACE(std::string(dtype_name(storage)));
    const SetSpec spec{.layers = 6, .heads = 4, .dim = 64, .kept = 1500, .doc_tokens = 1600};
    auto entry = testing::encode_entry(make_put(spec, 4, {}, storage), PutId::random(), 1);
    ASSERT_TRUE(entry.is_ok());
    std::vector<std::byte> damaged(entry->blocks[11].bytes.begin(), entry->blocks[11].bytes.end());  // layer 3's values
    damaged[damaged.size() / 3] ^= std::byte{1};
    entry->blocks[11].bytes = damaged;
    Streaming streaming(*entry);
    for (const LayerForm form : {LayerForm::kStored, LayerForm::kDecoded}) {
      const auto memory = std::make_shared<TrackedMemory>();
      auto stream = streaming.open({.form = form, .memory = memory});
      std::uint32_t layer = 0;
      Status status = Status::ok();
      for (; layer < spec.layers; ++layer) {
        status = stream->take(layer).status();
        if (!status.is_ok()) break;
      }
      EXPECT_EQ(status.code(), StatusCode::kCorrupt) << status.to_string();
      EXPECT_LE(layer, 3U) << "a damaged layer was handed out";
      stream.reset();
      EXPECT_EQ(memory->out_in_the_end(), 0U);
    }
  }
}

// Digests fit: whoever wrote it meant it. A GPU would expand it without a word.
TEST(DamagedEntries, AScaleThatIsNoNumberIsFoundBeforeAnybodyDecodesIt) {
  for (const DType storage : {DType::kQ8, DType::kQ4}) {
    for (const bool keys : {true, false}) {
      SCOPED_TRACE(std::string(dtype_name(storage)) + (keys ? " keys" : " values"));
      PackedEntry packed = *pack_entry(make_put(kWide, 5, {}, storage));
      Block& block = packed.blocks[keys ? 3 : 4];  // of layer 1
      std::vector<std::byte> forged(block.bytes.begin(), block.bytes.end());
      ASSERT_TRUE(forged.size() > 2);
      forged[0] = std::byte{0x00};
      forged[1] = std::byte{0x7c};  // infinity
      block.bytes = forged;
      const auto entry = finish_entry(packed, {.put_id = PutId::random(), .now_unix_ms = 1});
      ASSERT_TRUE(entry.is_ok()) << entry.status().to_string();
      EncodedSource source(*entry);
      const auto reader = EntryReader::open(entry->head, "", nullptr, source);
      ASSERT_TRUE(reader.is_ok());
      const auto memory = std::make_shared<TrackedMemory>();
      for (const LayerForm form : {LayerForm::kStored, LayerForm::kDecoded}) {
        const StreamOptions options{.form = form, .memory = memory};
        EXPECT_TRUE(reader->read_layer(0, source, options).is_ok());
        const Status status = reader->read_layer(1, source, options).status();
        EXPECT_EQ(status.code(), StatusCode::kCorrupt) << status.to_string();
        EXPECT_NE(status.message().find("layer 1"), std::string::npos) << status.message();
      }
      EXPECT_EQ(memory->out(), 0U);
    }
  }
}

}  // namespace
}  // namespace finchkv::cache_store
