#include "base/digest.h"

#include <gtest/gtest.h>

namespace finchkv {
namespace {

std::string hmac_hex(const std::string& key, const std::string& data) {
  return to_hex(hmac_sha256(as_byte_span(key), {as_byte_span(data)}));
}

TEST(Sha256, KnownVectors) {  // FIPS 180-4's examples
  EXPECT_EQ(to_hex(sha256(as_byte_span("abc"))), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(sha256({})), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(to_hex(sha256(as_byte_span(std::string(1000000, 'a')))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(HmacSha256, Rfc4231) {
  EXPECT_EQ(hmac_hex(std::string(20, '\x0b'), "Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(hmac_hex("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(hmac_hex(std::string(20, '\xaa'), std::string(50, '\xdd')),
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
  EXPECT_EQ(hmac_hex(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

/// OpenSSL reads a null key as "the last call's key": an empty key must never become that.
TEST(HmacSha256, AnEmptyKeyIsAKey) {
  const auto before = hmac_hex("secret", "abc");
  const std::string want = "fd7adb152c05ef80dccf50a1fa4c05d5a3ec6da95575fc312ae7c5d091836351";
  EXPECT_EQ(hmac_hex("", "abc"), want);
  EXPECT_EQ(to_hex(hmac_sha256({}, {as_byte_span("abc")})), want);
  EXPECT_NE(before, want);
}

TEST(HmacSha256, PartsAreOneMessage) {
  const auto whole = hmac_sha256(as_byte_span("k"), {as_byte_span("abcdef")});
  EXPECT_EQ(hmac_sha256(as_byte_span("k"), {as_byte_span("ab"), {}, as_byte_span("cdef")}), whole);
  EXPECT_NE(hmac_sha256(as_byte_span("k"), {as_byte_span("abcde")}), whole);
}

TEST(BlockDigest, KnownVectors) {  // canonical (big-endian) form, as xxhsum -H128 prints it
  EXPECT_EQ(to_hex(block_digest({})), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(to_hex(block_digest(as_byte_span("abc"))), "06b05ab6733a618578af5f94892f3950");
}

TEST(BlockDigest, EveryBitCounts) {
  std::string block(300, 'x');
  const BlockDigest clean = block_digest(as_byte_span(block));
  for (std::size_t i = 0; i < block.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      block[i] = static_cast<char>(block[i] ^ (1 << bit));
      EXPECT_NE(block_digest(as_byte_span(block)), clean);
      block[i] = static_cast<char>(block[i] ^ (1 << bit));
    }
  }
}

TEST(Hex, BothWays) {
  const std::uint8_t bytes[] = {0x00, 0x0f, 0xa5, 0xff};
  EXPECT_EQ(to_hex(bytes), "000fa5ff");
  EXPECT_EQ(from_hex("000fa5ff"), std::string("\x00\x0f\xa5\xff", 4));
  EXPECT_EQ(from_hex("000FA5FF"), std::string("\x00\x0f\xa5\xff", 4));
  EXPECT_EQ(from_hex(""), "");
  for (const char* bad : {"0", "0g", "g0", "0x12", " 12", "12 "}) EXPECT_EQ(from_hex(bad), std::nullopt) << bad;
}

}  // namespace
}  // namespace finchkv
