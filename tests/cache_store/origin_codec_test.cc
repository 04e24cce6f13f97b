#include "cache_store/origin_codec.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace finchkv::cache_store {
namespace {

using Origins = std::vector<std::uint32_t>;
using Bytes = std::vector<std::byte>;

constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 32;

Bytes bytes_of(std::initializer_list<int> values) {
  Bytes out;
  for (const int v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}

// n of `documents` tokens, chosen at random.
Origins chosen(std::size_t n, std::uint32_t document, std::mt19937& random) {
  Origins out;
  std::uint32_t left = document;
  for (std::uint32_t token = 0; token < document && out.size() < n; ++token, --left) {
    if (random() % left < n - out.size()) out.push_back(token);
  }
  return out;
}

Origins decoded(const Bytes& bytes, std::size_t count, std::uint32_t rows, std::uint64_t limit) {
  // Memory of exactly this size: a sanitizer sees every byte that is read too far.
  const Bytes exact(bytes.begin(), bytes.end());
  Origins out(count);
  const Status status = decode_origins(exact, rows, limit, out);
  EXPECT_TRUE(status.is_ok()) << status.message();
  return out;
}

void expect_corrupt(const Bytes& bytes, std::size_t count, std::uint32_t rows, std::uint64_t limit) {
  Origins out(count);
  EXPECT_EQ(decode_origins(bytes, rows, limit, out).code(), StatusCode::kCorrupt);
}

TEST(OriginCodec, GoldenBytes) {
  // Gaps 2, 0, 4, 1 (the first counts from 0) in three bits each, the first lowest: 0x302 in two bytes.
  const Origins origins = {2, 3, 8, 10};
  const auto bytes = encode_origins(origins, 1, 11);
  ASSERT_TRUE(bytes.is_ok());
  EXPECT_EQ(*bytes, bytes_of({3, 0x02, 0x03}));
  EXPECT_EQ(decoded(*bytes, 4, 1, 11), origins);
}

TEST(OriginCodec, GoldenRows) {  // every row starts anew, on a byte of its own
  const Origins origins = {0, 1, 5, 7};
  const auto bytes = encode_origins(origins, 2, 8);
  ASSERT_TRUE(bytes.is_ok());
  EXPECT_EQ(*bytes, bytes_of({0, 3, 0x0d}));
  EXPECT_EQ(decoded(*bytes, 4, 2, 8), origins);
}

TEST(OriginCodec, FullSetsTakeAByteFor64) {
  for (const std::size_t n : {1U, 63U, 64U, 65U, 4096U, 5000U}) {
    Origins origins(n);
    for (std::size_t i = 0; i < n; ++i) origins[i] = static_cast<std::uint32_t>(i);
    const auto bytes = encode_origins(origins, 1, n);
    ASSERT_TRUE(bytes.is_ok());
    EXPECT_EQ(bytes->size(), (n + 63) / 64);
    EXPECT_EQ(decoded(*bytes, n, 1, n), origins);
  }
}

TEST(OriginCodec, NothingIsNothing) {
  const auto bytes = encode_origins({}, 3, 0);
  ASSERT_TRUE(bytes.is_ok());
  EXPECT_TRUE(bytes->empty());
  EXPECT_TRUE(decode_origins({}, 3, 0, {}).is_ok());
}

TEST(OriginCodec, RoundTripOfEverySize) {
  std::mt19937 random(1);
  for (const std::uint32_t rows : {1U, 2U, 5U}) {
    for (const std::size_t n : {1U, 2U, 7U, 63U, 64U, 65U, 127U, 128U, 200U, 513U}) {
      for (const std::uint32_t spread : {1U, 2U, 16U, 1000U}) {
        const auto document = static_cast<std::uint32_t>(n * spread);
        Origins origins;
        for (std::uint32_t r = 0; r < rows; ++r) {
          const Origins row = chosen(n, document, random);
          origins.insert(origins.end(), row.begin(), row.end());
        }
        ASSERT_EQ(origins.size(), n * rows);
        const auto bytes = encode_origins(origins, rows, document);
        ASSERT_TRUE(bytes.is_ok());
        ASSERT_EQ(decoded(*bytes, origins.size(), rows, document), origins) << rows << " " << n << " " << spread;
        const OriginBytes range = origin_bytes(rows, n, document);
        ASSERT_GE(bytes->size(), range.least);
        ASSERT_LE(bytes->size(), range.most);
      }
    }
  }
}

TEST(OriginCodec, GapsOfEveryWidth) {
  for (unsigned width = 0; width <= 32; ++width) {
    const std::uint32_t gap = width == 0 ? 0 : static_cast<std::uint32_t>((std::uint64_t{1} << width) - 1);
    for (const std::size_t place : {0U, 1U, 31U, 63U}) {
      Origins origins;
      std::uint64_t next = 0;
      for (std::size_t i = 0; i < 64; ++i) {
        if (i == place) next += width == 32 ? gap - 63 : gap;  // all 64 below 2^32
        origins.push_back(static_cast<std::uint32_t>(next++));
      }
      const auto bytes = encode_origins(origins, 1, kNoLimit);
      ASSERT_TRUE(bytes.is_ok());
      ASSERT_EQ(static_cast<unsigned>((*bytes)[0]), width);
      ASSERT_EQ(decoded(*bytes, 64, 1, kNoLimit), origins) << width << " " << place;
    }
  }
}

TEST(OriginCodec, TheLargestOrigin) {
  const Origins origins = {std::numeric_limits<std::uint32_t>::max()};
  const auto bytes = encode_origins(origins, 1, kNoLimit);
  ASSERT_TRUE(bytes.is_ok());
  EXPECT_EQ(bytes->size(), 5U);
  EXPECT_EQ(decoded(*bytes, 1, 1, kNoLimit), origins);
  EXPECT_FALSE(encode_origins(origins, 1, kNoLimit - 1).is_ok());
}

// The claim of the header, against keys and values of one head in bf16: 4 * channels bytes an entry.
TEST(OriginCodec, UnderOnePercentOfABf16Entry) {
  std::mt19937 random(2);
  for (const std::size_t kept : {64U, 256U, 1024U, 4096U}) {
    for (const std::uint32_t ratio : {1U, 4U, 16U, 64U, 256U}) {
      const auto document = static_cast<std::uint32_t>(kept * ratio);
      const auto bytes = encode_origins(chosen(kept, document, random), 1, document);
      ASSERT_TRUE(bytes.is_ok());
      EXPECT_LT(static_cast<double>(bytes->size()), 0.01 * 4 * 64 * static_cast<double>(kept)) << kept << " " << ratio;
    }
  }
  // Whatever is chosen from 2^20 tokens.
  EXPECT_LT(static_cast<double>(origin_bytes(1, 64, 1 << 20).most), 0.01 * 4 * 64 * 64);
}

TEST(OriginCodec, RefusesRowsThatDoNotAscend) {
  for (const Origins& bad : {Origins{0, 1, 1, 2}, Origins{0, 1, 5, 4}, Origins{3, 2, 4, 5}, Origins{0, 1, 2, 100}}) {
    const auto bytes = encode_origins(bad, 1, 100);
    ASSERT_FALSE(bytes.is_ok());
    EXPECT_EQ(bytes.status().code(), StatusCode::kInvalidArgument);
  }
  const auto second = encode_origins(Origins{0, 1, 2, 2}, 2, 100);
  ASSERT_FALSE(second.is_ok());
  EXPECT_NE(second.status().message().find("row 1"), std::string::npos);
}

TEST(OriginCodec, EveryCutAndEveryExtraByteIsCorrupt) {
  std::mt19937 random(3);
  Origins rows;
  for (int r = 0; r < 3; ++r) {
    const Origins row = chosen(100, 9000, random);
    rows.insert(rows.end(), row.begin(), row.end());
  }
  const auto whole = encode_origins(rows, 3, 9000);
  ASSERT_TRUE(whole.is_ok());
  for (std::size_t cut = 0; cut < whole->size(); ++cut) {
    expect_corrupt(Bytes(whole->begin(), whole->begin() + static_cast<std::ptrdiff_t>(cut)), 300, 3, 9000);
  }
  Bytes longer = *whole;
  longer.push_back(std::byte{0});
  expect_corrupt(longer, 300, 3, 9000);
}

TEST(OriginCodec, OriginsAtTheLimitAreCorrupt) {
  const Origins origins = {2, 3, 8, 10};
  const auto bytes = encode_origins(origins, 1, 11);
  ASSERT_TRUE(bytes.is_ok());
  expect_corrupt(*bytes, 4, 1, 10);
  expect_corrupt(bytes_of({0, 0}), 65, 1, 64);  // two blocks of gaps of no bits: 0 to 64
  // Gaps of 32 bits that would run around 2^32.
  Bytes around(1 + 8, std::byte{0xff});
  around[0] = std::byte{32};
  expect_corrupt(around, 2, 1, kNoLimit);
}

TEST(OriginCodec, OtherEncodingsOfTheSameSetAreCorrupt) {
  expect_corrupt(bytes_of({33, 0, 0, 0, 0, 0}), 1, 1, 100);  // wider than an origin
  expect_corrupt(bytes_of({255, 0}), 1, 1, 100);
  expect_corrupt(bytes_of({4, 0x07}), 1, 1, 100);     // 7 needs three bits
  expect_corrupt(bytes_of({1, 0x00}), 4, 1, 100);     // all gaps 0 need none
  expect_corrupt(bytes_of({3, 0x0f}), 1, 1, 100);     // a bit behind the last gap
  expect_corrupt(bytes_of({1, 0x1f, 0}), 4, 1, 100);  // and a byte behind the row
  Origins out(1);
  EXPECT_TRUE(decode_origins(bytes_of({3, 0x07}), 1, 100, out).is_ok());
  EXPECT_EQ(out[0], 7U);
}

// Any single bit flipped: refused, or another set that encodes to exactly those bytes. Never rows that do not ascend.
TEST(OriginCodec, FlippedBitsNeverMakeARowThatDoesNotAscend) {
  std::mt19937 random(4);
  const Origins origins = chosen(200, 4000, random);
  const auto bytes = encode_origins(origins, 1, 4000);
  ASSERT_TRUE(bytes.is_ok());
  int refused = 0;
  for (std::size_t bit = 0; bit < bytes->size() * 8; ++bit) {
    Bytes flipped = *bytes;
    flipped[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    Origins out(200);
    if (!decode_origins(flipped, 1, 4000, out).is_ok()) {
      ++refused;
      continue;
    }
    const auto again = encode_origins(out, 1, 4000);
    ASSERT_TRUE(again.is_ok()) << bit;
    ASSERT_EQ(*again, flipped) << bit;
  }
  EXPECT_GT(refused, 4 * 6);  // the width bytes at least
}

}  // namespace
}  // namespace finchkv::cache_store
