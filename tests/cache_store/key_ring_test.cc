#include "cache_store/key_ring.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "base/digest.h"

namespace finchkv::cache_store {
namespace {

using Bytes = std::vector<std::byte>;

template <typename Key>
Key key_of(std::uint8_t first) {
  std::array<std::byte, kKeyBytes> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(first + i);
  return Key::copy_of(bytes);
}

KeyRing ring_of(std::initializer_list<std::uint8_t> keys) {
  std::vector<KeyEncryptionKey> all;
  for (const std::uint8_t first : keys) all.push_back(key_of<KeyEncryptionKey>(first));
  auto ring = KeyRing::make(std::move(all));
  EXPECT_TRUE(ring.is_ok()) << ring.status().to_string();
  return *std::move(ring);
}

bool same_key(const DataKey& a, const DataKey& b) { return std::ranges::equal(a.bytes(), b.bytes()); }

PutId put_of(std::uint8_t fill) {
  PutId id;
  id.bytes.fill(fill);
  return id;
}

const PutContext kPut{"alice", put_of(7)};

TEST(KeyId, IsTheHashThatThePageSays) {
  std::string message("finchkv-key-id-1\0", 17);
  for (int i = 0; i < 32; ++i) message += static_cast<char>(40 + i);
  const Sha256 digest = sha256(as_byte_span(message));
  const KeyId id = KeyId::of(key_of<KeyEncryptionKey>(40));
  EXPECT_TRUE(std::equal(id.bytes.begin(), id.bytes.end(), digest.begin()));
  // Golden: heads name their keys so.
  EXPECT_EQ(id.hex(), "b3c9f59209b15065");
}

TEST(KeyRing, WrapsAndUnwraps) {
  const KeyRing ring = ring_of({1, 2});
  const DataKey key = key_of<DataKey>(100);
  const auto wrapped = ring.wrap(key, kPut);
  ASSERT_TRUE(wrapped.is_ok());
  EXPECT_EQ(wrapped->key_id, KeyId::of(key_of<KeyEncryptionKey>(1)));
  EXPECT_EQ(wrapped->key_id, ring.current());
  const auto unwrapped = ring.unwrap(*wrapped, kPut);
  ASSERT_TRUE(unwrapped.is_ok());
  EXPECT_TRUE(same_key(*unwrapped, key));
  // The key itself stands nowhere in it.
  const auto bytes = wrapped->encode();
  for (std::size_t i = 0; i + 8 <= bytes.size(); ++i) {
    EXPECT_EQ(std::search(key.bytes().begin(), key.bytes().end(), bytes.begin() + static_cast<long>(i),
                          bytes.begin() + static_cast<long>(i + 8)),
              key.bytes().end());
  }
}

// Golden: what a ring of this version has wrapped can be unwrapped for ever.
TEST(KeyRing, UnwrapsWhatWasWrappedBefore) {
  const auto bytes = from_hex(
      "1d86290a6e932c9c18e23d9f9c2048aea94de9b10b87a9edf8cefcfbfbdb95127d3231e4e376baceb2b23f2798f61ecc4d1d3787b3a55020"
      "8fe0f63968418779dad9a66a");
  ASSERT_TRUE(bytes);
  const auto wrapped = WrappedKey::decode(as_byte_span(*bytes));
  ASSERT_TRUE(wrapped.is_ok());
  const auto key = ring_of({1}).unwrap(*wrapped, kPut, as_byte_span("head"));
  ASSERT_TRUE(key.is_ok()) << key.status().to_string();
  EXPECT_TRUE(same_key(*key, key_of<DataKey>(100)));
}

TEST(KeyRing, EveryWrapLooksDifferent) {
  const KeyRing ring = ring_of({1});
  const DataKey key = key_of<DataKey>(100);
  std::set<Nonce> nonces;
  for (int i = 0; i < 100; ++i) {
    const auto wrapped = ring.wrap(key, kPut);
    ASSERT_TRUE(wrapped.is_ok());
    EXPECT_TRUE(nonces.insert(wrapped->nonce).second);
  }
}

TEST(KeyRing, BytesAndBack) {
  const auto wrapped = ring_of({1}).wrap(key_of<DataKey>(100), kPut);
  ASSERT_TRUE(wrapped.is_ok());
  const auto bytes = wrapped->encode();
  const auto again = WrappedKey::decode(bytes);
  ASSERT_TRUE(again.is_ok());
  EXPECT_EQ(*again, *wrapped);
  for (const std::size_t size : {std::size_t{0}, std::size_t{67}}) {
    EXPECT_EQ(WrappedKey::decode(std::span(bytes).first(size)).status().code(), StatusCode::kCorrupt);
  }
  EXPECT_EQ(WrappedKey::decode(Bytes(69)).status().code(), StatusCode::kCorrupt);
}

TEST(KeyRing, BitFlipsAreNoticedAnywhere) {
  const KeyRing ring = ring_of({1});
  const auto wrapped = ring.wrap(key_of<DataKey>(100), kPut);
  ASSERT_TRUE(wrapped.is_ok());
  const auto good = wrapped->encode();
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    auto bytes = good;
    bytes[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    const auto damaged = WrappedKey::decode(bytes);
    ASSERT_TRUE(damaged.is_ok());
    // A damaged key id names a key that is not there.
    const auto expected = bit < 64 ? StatusCode::kPermissionDenied : StatusCode::kCorrupt;
    EXPECT_EQ(ring.unwrap(*damaged, kPut).status().code(), expected) << "bit " << bit;
  }
}

TEST(KeyRing, BelongsToOneTenantAndPut) {
  const KeyRing ring = ring_of({1});
  const auto wrapped = ring.wrap(key_of<DataKey>(100), kPut);
  ASSERT_TRUE(wrapped.is_ok());
  EXPECT_EQ(ring.unwrap(*wrapped, {"bob", kPut.put_id}).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(ring.unwrap(*wrapped, {"", kPut.put_id}).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(ring.unwrap(*wrapped, {"alice", put_of(8)}).status().code(), StatusCode::kCorrupt);
  EXPECT_TRUE(ring.unwrap(*wrapped, {"alice", put_of(7)}).is_ok());
}

TEST(KeyRing, StandsAndFallsWithWhatItIsBoundTo) {
  const KeyRing ring = ring_of({2, 1});
  const DataKey key = key_of<DataKey>(100);
  const auto wrapped = ring_of({1}).wrap(key, kPut, as_byte_span("head"));
  ASSERT_TRUE(wrapped.is_ok());
  EXPECT_TRUE(ring.unwrap(*wrapped, kPut, as_byte_span("head")).is_ok());
  for (const std::string_view other : {"", "hea", "heae", "headd"}) {
    EXPECT_EQ(ring.unwrap(*wrapped, kPut, as_byte_span(other)).status().code(), StatusCode::kCorrupt) << other;
    EXPECT_EQ(ring.rewrap(*wrapped, kPut, as_byte_span(other)).status().code(), StatusCode::kCorrupt) << other;
  }
  const auto rewrapped = ring.rewrap(*wrapped, kPut, as_byte_span("head"));
  ASSERT_TRUE(rewrapped.is_ok());
  EXPECT_FALSE(ring.unwrap(*rewrapped, kPut).is_ok());
  EXPECT_TRUE(ring.unwrap(*rewrapped, kPut, as_byte_span("head")).is_ok());
}

TEST(KeyRing, Rotation) {
  const DataKey key = key_of<DataKey>(100);
  const auto old = ring_of({1}).wrap(key, kPut);
  ASSERT_TRUE(old.is_ok());

  // A new key stands in front: old entries open, and new ones are wrapped by it.
  const KeyRing both = ring_of({2, 1});
  EXPECT_EQ(both.ids(), (std::vector{KeyId::of(key_of<KeyEncryptionKey>(2)), KeyId::of(key_of<KeyEncryptionKey>(1))}));
  EXPECT_TRUE(both.unwrap(*old, kPut).is_ok());
  const auto rewrapped = both.rewrap(*old, kPut);
  ASSERT_TRUE(rewrapped.is_ok());
  EXPECT_EQ(rewrapped->key_id, both.current());

  // Then the old key goes: what was rewrapped opens, to the same data key; what was not does not.
  const KeyRing fresh = ring_of({2});
  const auto unwrapped = fresh.unwrap(*rewrapped, kPut);
  ASSERT_TRUE(unwrapped.is_ok());
  EXPECT_TRUE(same_key(*unwrapped, key));
  EXPECT_EQ(fresh.unwrap(*old, kPut).status().code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(fresh.rewrap(*old, kPut).status().code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(ring_of({1}).unwrap(*rewrapped, kPut).status().code(), StatusCode::kPermissionDenied);
}

TEST(KeyRing, RewrappingUnderTheSameKeyChangesNothing) {
  const KeyRing ring = ring_of({2, 1});
  const auto wrapped = ring.wrap(key_of<DataKey>(100), kPut);
  ASSERT_TRUE(wrapped.is_ok());
  const auto again = ring.rewrap(*wrapped, kPut);
  ASSERT_TRUE(again.is_ok());
  EXPECT_EQ(*again, *wrapped);
  auto damaged = *wrapped;
  damaged.sealed[0] ^= std::byte{1};
  EXPECT_EQ(ring.rewrap(damaged, kPut).status().code(), StatusCode::kCorrupt);
}

TEST(KeyRing, AMissingKeyIsNamed) {
  const auto wrapped = ring_of({1}).wrap(key_of<DataKey>(100), kPut);
  ASSERT_TRUE(wrapped.is_ok());
  const Status status = ring_of({2, 3}).unwrap(*wrapped, kPut).status();
  EXPECT_EQ(status.code(), StatusCode::kPermissionDenied);
  EXPECT_NE(status.message().find(wrapped->key_id.hex()), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("tenant alice"), std::string::npos) << status.message();
}

// Somebody who writes to the disk names one key and lets another have wrapped.
TEST(KeyRing, TheNamedKeyIsTheOneThatWrapped) {
  const auto wrapped = ring_of({1}).wrap(key_of<DataKey>(100), kPut);
  ASSERT_TRUE(wrapped.is_ok());
  WrappedKey renamed = *wrapped;
  renamed.key_id = ring_of({2}).current();
  EXPECT_EQ(ring_of({2, 1}).unwrap(renamed, kPut).status().code(), StatusCode::kCorrupt);
}

TEST(KeyRing, RefusesKeysThatAreNone) {
  EXPECT_EQ(KeyRing::make({}).status().code(), StatusCode::kInvalidArgument);

  std::vector<KeyEncryptionKey> twice;
  for (const std::uint8_t first : {1, 2, 1}) twice.push_back(key_of<KeyEncryptionKey>(first));
  const auto repeated = KeyRing::make(std::move(twice));
  EXPECT_EQ(repeated.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(repeated.status().message().find("keys 1 and 3"), std::string::npos) << repeated.status().message();

  const std::array<std::byte, kKeyBytes> zeroes{};
  std::vector<KeyEncryptionKey> blank;
  blank.push_back(KeyEncryptionKey::copy_of(zeroes));
  EXPECT_EQ(KeyRing::make(std::move(blank)).status().code(), StatusCode::kInvalidArgument);
}

TEST(KeyRing, RefusesWhatIsTooLong) {
  const KeyRing ring = ring_of({1});
  const std::string name(256, 'x');
  const DataKey key = key_of<DataKey>(100);
  EXPECT_EQ(ring.wrap(key, {name, put_of(1)}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ring.wrap(key, kPut, Bytes((64 << 10) + 1)).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(ring.wrap(key, kPut, Bytes(64 << 10)).is_ok());
}

}  // namespace
}  // namespace finchkv::cache_store
