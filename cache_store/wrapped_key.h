// A data key as an entry's head carries it, and the name of the key that wraps it.
//
// Plain values, thread-safe; nothing here is secret. What makes and opens them is the key ring (key_ring.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/digest.h"
#include "base/status.h"
#include "cache_store/aes_gcm.h"
#include "cache_store/secret.h"

namespace finchkv::cache_store {

/// Names a key without giving anything of it away: the first 8 bytes of SHA-256("finchkv-key-id-1\0" || key).
struct KeyId {
  std::array<std::uint8_t, 8> bytes{};

  [[nodiscard]] static KeyId of(const KeyEncryptionKey& key);
  [[nodiscard]] std::string hex() const { return to_hex(bytes); }
  bool operator==(const KeyId&) const = default;
};

/// A data key as it is stored. Gives nothing away without the key that key_id names.
struct WrappedKey {
  static constexpr std::size_t kBytes = 8 + kNonceBytes + kKeyBytes + kTagBytes;

  KeyId key_id;
  Nonce nonce{};
  std::array<std::byte, kKeyBytes + kTagBytes> sealed{};

  /// The three fields in this order.
  [[nodiscard]] std::array<std::byte, kBytes> encode() const;
  /// corrupt unless there are exactly kBytes.
  [[nodiscard]] static Result<WrappedKey> decode(std::span<const std::byte> bytes);
  bool operator==(const WrappedKey&) const = default;
};

}  // namespace finchkv::cache_store
