#include "base/digest.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#define XXH_STATIC_LINKING_ONLY  // for the size of a state
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // the same functions for the processor that is there: twice as fast with AVX-512
#else
#include <xxhash.h>
#endif

#include <algorithm>
#include <vector>

namespace finchkv {
namespace {

BlockDigest canonical(XXH128_hash_t hash) {
  XXH128_canonical_t bytes;
  XXH128_canonicalFromHash(&bytes, hash);
  BlockDigest out;
  std::copy(std::begin(bytes.digest), std::end(bytes.digest), out.begin());
  return out;
}

}  // namespace

Sha256 sha256(std::span<const std::byte> data) {
  Sha256 out;
  SHA256(reinterpret_cast<const unsigned char*>(data.data()), data.size(), out.data());
  return out;
}

Sha256 hmac_sha256(std::span<const std::byte> key, std::initializer_list<std::span<const std::byte>> parts) {
  std::vector<std::byte> message;
  for (const auto part : parts) message.insert(message.end(), part.begin(), part.end());
  Sha256 out;
  unsigned int length = 0;
  // OpenSSL reads a null key as "the key of the last call", so an empty key needs an address.
  const std::byte none{};
  HMAC(EVP_sha256(), key.empty() ? &none : key.data(), static_cast<int>(key.size()),
       reinterpret_cast<const unsigned char*>(message.data()), message.size(), out.data(), &length);
  return out;
}

BlockDigest block_digest(std::span<const std::byte> data) { return canonical(XXH3_128bits(data.data(), data.size())); }

struct BlockHasher::State {
  XXH3_state_t xxh;
};

BlockHasher::BlockHasher() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->xxh); }
BlockHasher::~BlockHasher() = default;

void BlockHasher::update(std::span<const std::byte> data) {
  XXH3_128bits_update(&state_->xxh, data.data(), data.size());
}

BlockDigest BlockHasher::digest() {
  const BlockDigest out = canonical(XXH3_128bits_digest(&state_->xxh));
  reset();
  return out;
}

void BlockHasher::reset() { XXH3_128bits_reset(&state_->xxh); }

std::string to_hex(std::span<const std::uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const std::uint8_t b : bytes) {
    out += kDigits[b >> 4];
    out += kDigits[b & 15];
  }
  return out;
}

std::optional<std::string> from_hex(std::string_view hex) {
  if (hex.size() % 2 != 0) return std::nullopt;
  const auto value = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string out;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    const int high = value(hex[i]);
    const int low = value(hex[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
  }
  return out;
}

}  // namespace finchkv
