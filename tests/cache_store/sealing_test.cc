#include "cache_store/sealing.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <set>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include "base/digest.h"

namespace finchkv::cache_store {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::uint64_t kSegment = kSegmentBytes;
// Around every limit: none, one byte, a cipher block, one segment, two.
constexpr std::uint64_t kLengths[] = {0,
                                      1,
                                      15,
                                      16,
                                      17,
                                      255,
                                      kSegment - 1,
                                      kSegment,
                                      kSegment + 1,
                                      2 * kSegment - 1,
                                      2 * kSegment,
                                      2 * kSegment + 1,
                                      3 * kSegment + 777};

Bytes random_bytes(std::size_t size, std::uint32_t seed) {
  std::mt19937 random(seed);
  Bytes out(size);
  for (std::byte& b : out) b = static_cast<std::byte>(random());
  return out;
}

DataKey key_of(std::uint32_t seed) {
  const Bytes bytes = random_bytes(kKeyBytes, seed);
  return DataKey::copy_of(std::span<const std::byte, kKeyBytes>(bytes));
}

PutId put_of(std::uint8_t fill) {
  PutId id;
  id.bytes.fill(fill);
  return id;
}

bool all_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

std::string hex_of(std::span<const std::byte> bytes) {
  return to_hex({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
}

const PutContext kPut{"alice", put_of(7)};
constexpr std::uint32_t kOrdinal = 5;

Bytes sealed_of(const DataKey& key, const PutContext& put, std::uint32_t ordinal, const Bytes& plain) {
  Bytes sealed(sealed_bytes(plain.size()));
  EXPECT_TRUE(seal_block(key, put, ordinal, plain, sealed).is_ok());
  return sealed;
}

/// Opens both ways; they must agree. A failure must be corrupt and leave nothing but zeroes.
bool opens(const DataKey& key, const PutContext& put, std::uint32_t ordinal, const Bytes& sealed, std::uint64_t plain,
           Bytes* out = nullptr) {
  Bytes elsewhere(plain, std::byte{0xaa});
  const Status opened = open_block(key, put, ordinal, sealed, elsewhere);
  Bytes in_place = sealed;
  const Status opened_in_place = open_block_in_place(key, put, ordinal, in_place, plain);
  EXPECT_EQ(opened.code(), opened_in_place.code());
  if (!opened.is_ok()) {
    EXPECT_EQ(opened.code(), StatusCode::kCorrupt) << opened.to_string();
    EXPECT_TRUE(all_zero(elsewhere));
    EXPECT_TRUE(all_zero(in_place));
    return false;
  }
  in_place.resize(plain);
  EXPECT_EQ(elsewhere, in_place);
  if (out != nullptr) *out = elsewhere;
  return true;
}

/// AES-256-GCM written out with plain EVP calls: what the format is checked against.
Bytes one_shot(const Bytes& key, const Bytes& nonce, const Bytes& associated, std::span<const std::byte> plain) {
  const auto raw = [](const auto& bytes) { return reinterpret_cast<const unsigned char*>(bytes.data()); };
  Bytes out(plain.size() + 16);
  auto* const to = reinterpret_cast<unsigned char*>(out.data());
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  int length = 0;
  EXPECT_EQ(EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), nullptr, raw(key), raw(nonce)), 1);
  EXPECT_EQ(EVP_EncryptUpdate(context, nullptr, &length, raw(associated), static_cast<int>(associated.size())), 1);
  if (!plain.empty()) {
    EXPECT_EQ(EVP_EncryptUpdate(context, to, &length, raw(plain), static_cast<int>(plain.size())), 1);
  }
  EXPECT_EQ(EVP_EncryptFinal_ex(context, to + plain.size(), &length), 1);
  EXPECT_EQ(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, 16, to + plain.size()), 1);
  EVP_CIPHER_CTX_free(context);
  return out;
}

Bytes bytes_of(std::string_view text) {
  const auto view = as_byte_span(text);
  return {view.begin(), view.end()};
}

Bytes join(std::initializer_list<Bytes> parts) {
  Bytes out;
  for (const Bytes& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

Bytes big_endian(std::uint64_t value, int width) {
  Bytes out;
  for (int i = width - 1; i >= 0; --i) out.push_back(static_cast<std::byte>(value >> (8 * i)));
  return out;
}

TEST(Sealing, IsWhatThePageSays) {
  const Bytes key = random_bytes(32, 1);
  const Bytes plain = random_bytes(2 * kSegment + 5, 2);
  const Bytes put_bytes(16, std::byte{7});
  Bytes expected;
  for (std::uint32_t segment = 0; segment < 3; ++segment) {
    const Bytes associated =
        join({bytes_of(std::string_view("finchkv-segment-1\0\5alice", 24)), put_bytes, big_endian(kOrdinal, 4),
              big_endian(plain.size(), 8), big_endian(segment, 4), big_endian(segment == 2 ? 1 : 0, 1)});
    const Bytes nonce = join({big_endian(0, 4), big_endian(kOrdinal, 4), big_endian(segment, 4)});
    const std::uint64_t begin = segment * kSegment;
    expected = join({expected, one_shot(key, nonce, associated,
                                        std::span(plain).subspan(begin, std::min(kSegment, plain.size() - begin)))});
  }
  EXPECT_EQ(sealed_of(key_of(1), kPut, kOrdinal, plain), expected);
}

// Golden: when this changes, sealed blocks that exist can no longer be read.
TEST(Sealing, GoldenBytes) {
  const Bytes sealed = sealed_of(key_of(1), kPut, kOrdinal, random_bytes(21, 2));
  EXPECT_EQ(hex_of(sealed), "17d5221741a82136d47ea004a40e9b5fcec943d4d9be740e80ea56e8bd7efa5ea2a13e71a2");
}

TEST(Sealing, LengthsAroundTheLimits) {
  const DataKey key = key_of(3);
  for (const std::uint64_t length : kLengths) {
    SCOPED_TRACE(length);
    const Bytes plain = random_bytes(length, static_cast<std::uint32_t>(length));
    const Bytes sealed = sealed_of(key, kPut, kOrdinal, plain);
    EXPECT_EQ(plain_bytes(sealed.size()), length);
    Bytes got;
    ASSERT_TRUE(opens(key, kPut, kOrdinal, sealed, length, &got));
    EXPECT_EQ(got, plain);
  }
}

TEST(Sealing, EmptyBlocksAuthenticateToo) {
  const DataKey key = key_of(3);
  const Bytes sealed = sealed_of(key, kPut, kOrdinal, {});
  ASSERT_EQ(sealed.size(), kTagBytes);
  EXPECT_TRUE(opens(key, kPut, kOrdinal, sealed, 0));
  EXPECT_FALSE(opens(key, kPut, kOrdinal + 1, sealed, 0));
  EXPECT_FALSE(opens(key_of(4), kPut, kOrdinal, sealed, 0));
  EXPECT_FALSE(opens(key, kPut, kOrdinal, Bytes(kTagBytes), 0));
}

TEST(Sealing, SizesThatNoSealedBlockHas) {
  for (const std::uint64_t sealed :
       {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{15}, kSegment + 16 + 1, kSegment + 16 + 15,
        kSegment + 16 + 16, 2 * (kSegment + 16) + 16, sealed_bytes(kMaxPlainBytes) + 17, ~std::uint64_t{0}}) {
    EXPECT_FALSE(plain_bytes(sealed)) << sealed;
  }
  EXPECT_EQ(plain_bytes(sealed_bytes(kMaxPlainBytes)), kMaxPlainBytes);
}

TEST(Sealing, BitFlipsAreNoticedAnywhere) {
  const DataKey key = key_of(5);
  const Bytes plain = random_bytes(53, 6);
  const Bytes sealed = sealed_of(key, kPut, kOrdinal, plain);
  for (std::size_t bit = 0; bit < 8 * sealed.size(); ++bit) {
    Bytes damaged = sealed;
    damaged[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    ASSERT_FALSE(opens(key, kPut, kOrdinal, damaged, plain.size())) << "bit " << bit;
  }
}

TEST(Sealing, OneBadSegmentTakesTheWholeBlock) {
  const DataKey key = key_of(5);
  const Bytes plain = random_bytes(3 * kSegment + 9, 6);
  const Bytes sealed = sealed_of(key, kPut, kOrdinal, plain);
  for (std::uint64_t segment = 0; segment < 4; ++segment) {
    Bytes damaged = sealed;
    damaged[segment * (kSegment + kTagBytes) + 3] ^= std::byte{0x10};
    EXPECT_FALSE(opens(key, kPut, kOrdinal, damaged, plain.size())) << segment;
  }
}

TEST(Sealing, CutOffAndExtended) {
  const DataKey key = key_of(5);
  const Bytes plain = random_bytes(3 * kSegment, 6);
  const Bytes sealed = sealed_of(key, kPut, kOrdinal, plain);
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, sealed.size() - 1, sealed.size() - kTagBytes}) {
    EXPECT_FALSE(
        opens(key, kPut, kOrdinal, Bytes(sealed.begin(), sealed.begin() + static_cast<long>(size)), plain.size()));
  }
  Bytes longer = sealed;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(opens(key, kPut, kOrdinal, longer, plain.size()));
  // Whoever rewrites the stored sizes as well: whole segments taken away or added.
  const auto two = static_cast<long>(2 * (kSegment + kTagBytes));
  EXPECT_FALSE(opens(key, kPut, kOrdinal, Bytes(sealed.begin(), sealed.begin() + two), 2 * kSegment));
  EXPECT_FALSE(opens(key, kPut, kOrdinal, Bytes(sealed.begin() + two, sealed.end()), kSegment));
  const Bytes four = join({sealed, Bytes(sealed.begin() + two, sealed.end())});
  EXPECT_FALSE(opens(key, kPut, kOrdinal, four, 4 * kSegment));
}

TEST(Sealing, SegmentsKeepTheirPlaces) {
  const DataKey key = key_of(5);
  const Bytes one = random_bytes(3 * kSegment, 6);
  const Bytes other = random_bytes(3 * kSegment, 7);
  const Bytes sealed = sealed_of(key, kPut, kOrdinal, one);
  const std::uint64_t width = kSegment + kTagBytes;
  const auto replaced = [&](std::uint64_t at, const Bytes& source, std::uint64_t from) {
    Bytes out = sealed;
    std::copy_n(source.begin() + static_cast<long>(from * width), width, out.begin() + static_cast<long>(at * width));
    return out;
  };
  Bytes swapped = replaced(0, sealed, 1);
  std::copy_n(sealed.begin(), width, swapped.begin() + static_cast<long>(width));
  EXPECT_FALSE(opens(key, kPut, kOrdinal, swapped, one.size()));
  EXPECT_FALSE(opens(key, kPut, kOrdinal, replaced(1, sealed, 0), one.size()));
  // The same segment of another block, of another put, of another tenant, under the same key.
  const Bytes elsewhere[] = {sealed_of(key, kPut, kOrdinal + 1, other),
                             sealed_of(key, {"alice", put_of(8)}, kOrdinal, other),
                             sealed_of(key, {"bob", put_of(7)}, kOrdinal, other)};
  for (const Bytes& source : elsewhere) {
    for (std::uint64_t i = 0; i < 3; ++i) EXPECT_FALSE(opens(key, kPut, kOrdinal, replaced(i, source, i), one.size()));
  }
  EXPECT_TRUE(opens(key, kPut, kOrdinal, sealed, one.size()));
}

TEST(Sealing, BelongsToOneTenantPutOrdinalAndKey) {
  const DataKey key = key_of(5);
  const Bytes plain = random_bytes(100, 6);
  const Bytes sealed = sealed_of(key, kPut, kOrdinal, plain);
  EXPECT_TRUE(opens(key, kPut, kOrdinal, sealed, plain.size()));
  EXPECT_FALSE(opens(key_of(6), kPut, kOrdinal, sealed, plain.size()));
  EXPECT_FALSE(opens(key, {"alicf", kPut.put_id}, kOrdinal, sealed, plain.size()));
  EXPECT_FALSE(opens(key, {"", kPut.put_id}, kOrdinal, sealed, plain.size()));
  EXPECT_FALSE(opens(key, {"alice", put_of(9)}, kOrdinal, sealed, plain.size()));
  for (int bit = 0; bit < 32; ++bit) EXPECT_FALSE(opens(key, kPut, kOrdinal ^ (1U << bit), sealed, plain.size()));
}

TEST(Sealing, EqualBytesLookDifferentEverywhere) {
  const DataKey key = key_of(5);
  const Bytes plain(2 * kSegment);
  std::set<std::string> seen;
  for (const std::uint32_t ordinal : {0U, 1U, 2U, 256U, 0x01000000U, 0xffffffffU}) {
    const Bytes sealed = sealed_of(key, kPut, ordinal, plain);
    seen.insert(hex_of(std::span(sealed).first(32)));
    seen.insert(hex_of(std::span(sealed).subspan(kSegment + kTagBytes, 32)));
  }
  EXPECT_EQ(seen.size(), 12U);
}

TEST(Sealing, SegmentBySegment) {
  const DataKey key = key_of(5);
  for (const std::uint64_t length : kLengths) {
    SCOPED_TRACE(length);
    const Bytes plain = random_bytes(length, 6);
    auto sealer = BlockSealer::create(key, kPut, kOrdinal, length);
    ASSERT_TRUE(sealer.is_ok());
    // Each over its own memory, as an encoder's tile would be.
    Bytes sealed(sealed_bytes(length));
    for (std::uint64_t i = 0; i < sealer->count(); ++i) {
      const auto from = sealer->plain_range(i);
      const auto to = sealer->sealed_range(i);
      const auto tile = std::span(sealed).subspan(to.offset, to.bytes);
      std::copy_n(plain.begin() + static_cast<long>(from.offset), from.bytes, tile.begin());
      ASSERT_TRUE(sealer->seal_next(tile.first(from.bytes), tile).is_ok());
    }
    EXPECT_EQ(sealed, sealed_of(key, kPut, kOrdinal, plain));

    auto opener = BlockOpener::create(key, kPut, kOrdinal, length);
    ASSERT_TRUE(opener.is_ok());
    for (std::uint64_t i = opener->count(); i-- > 0;) {
      const auto from = opener->sealed_range(i);
      const auto to = opener->plain_range(i);
      auto tile = std::span(sealed).subspan(from.offset, from.bytes);
      Bytes elsewhere(to.bytes);
      ASSERT_TRUE(opener->open_segment(i, tile, elsewhere).is_ok());
      ASSERT_TRUE(opener->open_segment(i, tile, tile.first(to.bytes)).is_ok());
      EXPECT_TRUE(std::equal(elsewhere.begin(), elsewhere.end(), plain.begin() + static_cast<long>(to.offset)));
      EXPECT_TRUE(std::equal(elsewhere.begin(), elsewhere.end(), tile.begin()));
    }
  }
}

TEST(Sealing, ASegmentThatFailsLeavesZeroesAndTheOthersReadable) {
  const DataKey key = key_of(5);
  const Bytes plain = random_bytes(2 * kSegment, 6);
  Bytes sealed = sealed_of(key, kPut, kOrdinal, plain);
  sealed[9] ^= std::byte{1};
  auto opener = BlockOpener::create(key, kPut, kOrdinal, plain.size());
  ASSERT_TRUE(opener.is_ok());
  const auto segment = [&](std::uint64_t i) {
    const auto range = opener->sealed_range(i);
    return std::span<const std::byte>(sealed).subspan(range.offset, range.bytes);
  };
  Bytes out(kSegment, std::byte{0xaa});
  EXPECT_EQ(opener->open_segment(0, segment(0), out).code(), StatusCode::kCorrupt);
  EXPECT_TRUE(all_zero(out));
  ASSERT_TRUE(opener->open_segment(1, segment(1), out).is_ok());
  EXPECT_TRUE(std::equal(out.begin(), out.end(), plain.begin() + kSegment));
  EXPECT_EQ(opener->open_segment(0, segment(1), out).code(), StatusCode::kCorrupt);
  EXPECT_EQ(opener->open_segment(1, segment(1).first(100), out).code(), StatusCode::kCorrupt);
  EXPECT_TRUE(all_zero(out));
}

/// A sealed block that arrives in pieces at the place where it is opened.
class Arrival {
 public:
  Arrival(const Bytes& sealed, std::uint64_t plain)
      : sealed_(sealed), place_(sealed.size(), std::byte{0xaa}), plain_(plain) {}

  [[nodiscard]] InPlaceOpener opener() {
    auto made = InPlaceOpener::create(key_of(1), kPut, kOrdinal, place_, plain_);
    EXPECT_TRUE(made.is_ok());
    return *std::move(made);
  }
  void come(InPlaceOpener& opener, std::size_t from, std::size_t to) {
    std::copy(sealed_.begin() + static_cast<std::ptrdiff_t>(from), sealed_.begin() + static_cast<std::ptrdiff_t>(to),
              place_.begin() + static_cast<std::ptrdiff_t>(from));
    opener.advance(to);
  }
  [[nodiscard]] std::span<const std::byte> place() const { return place_; }

 private:
  const Bytes& sealed_;
  Bytes place_;
  std::uint64_t plain_;
};

TEST(InPlaceOpener, OpensWhateverPiecesItComesIn) {
  for (const std::uint64_t length : kLengths) {
    const Bytes plain = random_bytes(length, 3);
    const Bytes sealed = sealed_of(key_of(1), kPut, kOrdinal, plain);
    for (const std::size_t piece : {std::size_t{1000}, std::size_t{kSegment}, std::size_t{kSegment + kTagBytes},
                                    std::size_t{256 << 10}, sealed.size()}) {
      Arrival arrival(sealed, length);
      InPlaceOpener opener = arrival.opener();
      for (std::size_t at = 0; at < sealed.size(); at += piece) {
        arrival.come(opener, at, std::min(at + piece, sealed.size()));
      }
      ASSERT_TRUE(opener.finish().is_ok()) << length << " in pieces of " << piece;
      ASSERT_TRUE(std::equal(plain.begin(), plain.end(), arrival.place().begin())) << length << " by " << piece;
    }
  }
}

TEST(InPlaceOpener, WhatItOpenedStaysOnlyWhenItFinishes) {
  const Bytes plain = random_bytes(3 * kSegment, 3);
  const Bytes sealed = sealed_of(key_of(1), kPut, kOrdinal, plain);
  Arrival arrival(sealed, plain.size());
  {
    InPlaceOpener opener = arrival.opener();
    arrival.come(opener, 0, sealed.size());
    EXPECT_TRUE(std::equal(plain.begin(), plain.end(), arrival.place().begin()));
  }
  EXPECT_TRUE(all_zero(arrival.place()));
  {
    InPlaceOpener opener = arrival.opener();
    arrival.come(opener, 0, sealed.size() - 1);
    EXPECT_EQ(opener.finish().code(), StatusCode::kInternal);
  }
  EXPECT_TRUE(all_zero(arrival.place()));
  {
    InPlaceOpener first = arrival.opener();
    arrival.come(first, 0, sealed.size());
    InPlaceOpener moved = std::move(first);
    EXPECT_TRUE(moved.finish().is_ok());
  }
  EXPECT_TRUE(std::equal(plain.begin(), plain.end(), arrival.place().begin()));
}

TEST(InPlaceOpener, ABadSegmentEndsItUntilTheBytesComeAgain) {
  const Bytes plain = random_bytes(3 * kSegment, 3);
  const Bytes good = sealed_of(key_of(1), kPut, kOrdinal, plain);
  for (const std::size_t segment : {0, 1, 2}) {
    Bytes sealed = good;
    sealed[segment * (kSegment + kTagBytes) + 5] ^= std::byte{1};
    Arrival arrival(sealed, plain.size());
    {
      InPlaceOpener opener = arrival.opener();
      arrival.come(opener, 0, sealed.size());
      EXPECT_EQ(opener.finish().code(), StatusCode::kCorrupt);
    }
    EXPECT_TRUE(all_zero(arrival.place()));
    InPlaceOpener opener = arrival.opener();
    arrival.come(opener, 0, sealed.size());
    sealed = good;
    opener.restart();
    arrival.come(opener, 0, kSegment);
    arrival.come(opener, kSegment, sealed.size());
    EXPECT_TRUE(opener.finish().is_ok());
    EXPECT_TRUE(std::equal(plain.begin(), plain.end(), arrival.place().begin()));
  }
}

TEST(InPlaceOpener, RefusesASizeThatTheBlockCannotHave) {
  Bytes place(2 * kSegment, std::byte{0xaa});
  EXPECT_EQ(InPlaceOpener::create(key_of(1), kPut, kOrdinal, place, 2 * kSegment).status().code(),
            StatusCode::kCorrupt);
  EXPECT_TRUE(all_zero(place));
}

TEST(Sealing, RefusesMemoryOfTheWrongSizeAndSegmentsThatAreNot) {
  const DataKey key = key_of(5);
  Bytes plain(kSegment + 10);
  Bytes sealed(sealed_bytes(plain.size()));
  EXPECT_EQ(seal_block(key, kPut, kOrdinal, plain, std::span(sealed).first(kSegment)).code(),
            StatusCode::kInvalidArgument);
  auto sealer = BlockSealer::create(key, kPut, kOrdinal, plain.size());
  ASSERT_TRUE(sealer.is_ok());
  Bytes out(kSegment + kTagBytes);
  EXPECT_EQ(sealer->seal_next(std::span(plain).first(10), out).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(sealer->seal_next(std::span(plain).first(kSegment), std::span(out).first(kSegment)).code(),
            StatusCode::kInvalidArgument);
  ASSERT_TRUE(sealer->seal_next(std::span(plain).first(kSegment), out).is_ok());
  ASSERT_TRUE(sealer->seal_next(std::span(plain).first(10), std::span(out).first(10 + kTagBytes)).is_ok());
  EXPECT_EQ(sealer->seal_next({}, std::span(out).first(kTagBytes)).code(), StatusCode::kInvalidArgument);

  auto opener = BlockOpener::create(key, kPut, kOrdinal, plain.size());
  ASSERT_TRUE(opener.is_ok());
  EXPECT_EQ(opener->open_segment(2, out, plain).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(opener->open_segment(0, out, std::span(plain).first(5)).code(), StatusCode::kInvalidArgument);
}

TEST(Sealing, RefusesWhatIsTooLong) {
  const DataKey key = key_of(5);
  const std::string name(256, 'x');
  const PutContext put{name, put_of(1)};
  EXPECT_EQ(BlockSealer::create(key, put, 0, 1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(BlockOpener::create(key, kPut, 0, kMaxPlainBytes + 1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(BlockOpener::create(key, kPut, 0, kMaxPlainBytes).is_ok());
  EXPECT_EQ(seal_record(key, put, "label", {}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(seal_record(key, kPut, name, {}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(seal_record(key, kPut, "label", Bytes(kMaxRecordBytes + 1)).status().code(), StatusCode::kInvalidArgument);
}

TEST(Sealing, ThreadsShareAKey) {
  const DataKey key = key_of(5);
  const Bytes plain = random_bytes(8 * kSegment + 3, 6);
  const Bytes sealed = sealed_of(key, kPut, kOrdinal, plain);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Bytes out(plain.size());
      Bytes mine(sealed.size());
      for (int i = 0; i < 10; ++i) {
        if (!open_block(key, kPut, kOrdinal, sealed, out).is_ok() || out != plain) ++wrong;
        if (!seal_block(key, kPut, 100 + t, plain, mine).is_ok()) ++wrong;
        if (!open_block(key, kPut, 100 + t, mine, out).is_ok() || out != plain) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Records, AreWhatThePageSays) {
  const Bytes label = bytes_of("quarterly report");
  const auto record = seal_record(key_of(1), kPut, "label", label);
  ASSERT_TRUE(record.is_ok());
  ASSERT_EQ(record->size(), label.size() + kRecordOverhead);
  const Bytes nonce(record->begin(), record->begin() + 12);
  EXPECT_NE(nonce[0] & std::byte{0x80}, std::byte{0});
  const Bytes associated =
      join({bytes_of(std::string_view("finchkv-record-1\0\5alice", 23)), Bytes(16, std::byte{7}), bytes_of("\5label")});
  EXPECT_EQ(*record, join({nonce, one_shot(random_bytes(32, 1), nonce, associated, label)}));
}

TEST(Records, ComeBackAndNeverLookAlike) {
  const DataKey key = key_of(1);
  std::set<std::string> seen;
  for (const std::size_t length : {std::size_t{0}, std::size_t{1}, std::size_t{256}, kMaxRecordBytes}) {
    const Bytes plain = random_bytes(length, 4);
    for (int i = 0; i < 20; ++i) {
      const auto record = seal_record(key, kPut, "label", plain);
      ASSERT_TRUE(record.is_ok());
      // The first bit tells a record's nonce from every segment's.
      EXPECT_NE((*record)[0] & std::byte{0x80}, std::byte{0});
      EXPECT_TRUE(seen.insert(hex_of(std::span(*record).first(kNonceBytes))).second);
      const auto opened = open_record(key, kPut, "label", *record);
      ASSERT_TRUE(opened.is_ok());
      EXPECT_EQ(*opened, plain);
    }
  }
}

TEST(Records, ChangedOrMisplaced) {
  const DataKey key = key_of(1);
  const auto record = seal_record(key, kPut, "label", bytes_of("secret"));
  ASSERT_TRUE(record.is_ok());
  for (std::size_t bit = 0; bit < 8 * record->size(); ++bit) {
    Bytes damaged = *record;
    damaged[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    EXPECT_EQ(open_record(key, kPut, "label", damaged).status().code(), StatusCode::kCorrupt) << "bit " << bit;
  }
  for (std::size_t size = 0; size < record->size(); ++size) {
    EXPECT_EQ(open_record(key, kPut, "label", std::span(*record).first(size)).status().code(), StatusCode::kCorrupt);
  }
  EXPECT_FALSE(open_record(key_of(2), kPut, "label", *record).is_ok());
  EXPECT_FALSE(open_record(key, {"bob", kPut.put_id}, "label", *record).is_ok());
  EXPECT_FALSE(open_record(key, {"alice", put_of(8)}, "label", *record).is_ok());
  EXPECT_FALSE(open_record(key, kPut, "origin", *record).is_ok());
  EXPECT_FALSE(open_record(key, kPut, "", *record).is_ok());
  EXPECT_EQ(
      open_record(key, kPut, "label", Bytes(kMaxRecordBytes + kRecordOverhead + 1, std::byte{0xff})).status().code(),
      StatusCode::kCorrupt);
}

/// Looks at memory as it is, whatever the compiler knows about the object that lay there.
bool memory_is_zero(const void* at, std::size_t size) {
  const auto* bytes = static_cast<const volatile unsigned char*>(at);
  for (std::size_t i = 0; i < size; ++i) {
    if (bytes[i] != 0) return false;
  }
  return true;
}

TEST(Secrets, KeysAreWipedWhenDroppedAndWhenMovedFrom) {
  alignas(DataKey) std::byte memory[sizeof(DataKey)];
  auto* key = new (memory) DataKey(key_of(1));
  EXPECT_FALSE(memory_is_zero(memory, sizeof(memory)));
  key->~DataKey();
  EXPECT_TRUE(memory_is_zero(memory, sizeof(memory)));

  DataKey first = key_of(1);
  const void* const first_memory = &first;
  DataKey second(std::move(first));
  EXPECT_TRUE(memory_is_zero(first_memory, sizeof(DataKey)));
  DataKey third = key_of(2);
  const void* const second_memory = &second;
  third = std::move(second);
  EXPECT_TRUE(memory_is_zero(second_memory, sizeof(DataKey)));
  EXPECT_TRUE(std::ranges::equal(third.bytes(), random_bytes(kKeyBytes, 1)));
}

TEST(Secrets, RandomKeysDiffer) {
  const DataKey one = DataKey::random();
  const DataKey other = DataKey::random();
  EXPECT_FALSE(std::ranges::equal(one.bytes(), other.bytes()));
}

}  // namespace
}  // namespace finchkv::cache_store
