// Digests: SHA-256 and HMAC-SHA-256 (OpenSSL) for identities and fingerprints, XXH3-128 for stored blocks.
//
// SHA-256 names things across machines and tenants; XXH3-128 only notices damage. Pure functions, thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace finchkv {

using Sha256 = std::array<std::uint8_t, 32>;

/// XXH3-128 in canonical (big-endian) byte order.
using BlockDigest = std::array<std::uint8_t, 16>;

[[nodiscard]] Sha256 sha256(std::span<const std::byte> data);
/// HMAC-SHA-256 over the concatenation of `parts`. The key may be empty.
[[nodiscard]] Sha256 hmac_sha256(std::span<const std::byte> key,
                                 std::initializer_list<std::span<const std::byte>> parts);
[[nodiscard]] BlockDigest block_digest(std::span<const std::byte> data);

/// block_digest over bytes that come piece by piece. One thread at a time; use again after digest().
class BlockHasher {
 public:
  BlockHasher();
  ~BlockHasher();
  BlockHasher(const BlockHasher&) = delete;
  BlockHasher& operator=(const BlockHasher&) = delete;

  void update(std::span<const std::byte> data);
  [[nodiscard]] BlockDigest digest();  ///< of everything since the last digest() or reset()
  void reset();                        ///< forgets what came since then

 private:
  struct State;
  std::unique_ptr<State> state_;
};

[[nodiscard]] std::string to_hex(std::span<const std::uint8_t> bytes);
/// Lower- or upper-case hex digits of even length; nullopt otherwise.
[[nodiscard]] std::optional<std::string> from_hex(std::string_view hex);

[[nodiscard]] inline std::span<const std::byte> as_byte_span(std::string_view text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}

}  // namespace finchkv
