#include "cache_store/wrapped_key.h"

#include <algorithm>
#include <string_view>

#include <fmt/format.h>

namespace finchkv::cache_store {
namespace {

constexpr std::string_view kKeyIdDomain{"finchkv-key-id-1\0", 17};

}  // namespace

KeyId KeyId::of(const KeyEncryptionKey& key) {
  std::array<std::byte, kKeyIdDomain.size() + kKeyBytes> message;
  const auto domain = as_byte_span(kKeyIdDomain);
  std::copy(domain.begin(), domain.end(), message.begin());
  std::copy(key.bytes().begin(), key.bytes().end(), message.begin() + kKeyIdDomain.size());
  const Sha256 digest = sha256(message);
  wipe(message);
  KeyId id;
  std::copy_n(digest.begin(), id.bytes.size(), id.bytes.begin());
  return id;
}

std::array<std::byte, WrappedKey::kBytes> WrappedKey::encode() const {
  std::array<std::byte, kBytes> out;
  const auto id = std::as_bytes(std::span(key_id.bytes));
  auto at = std::copy(id.begin(), id.end(), out.begin());
  at = std::copy(nonce.begin(), nonce.end(), at);
  std::copy(sealed.begin(), sealed.end(), at);
  return out;
}

Result<WrappedKey> WrappedKey::decode(std::span<const std::byte> bytes) {
  if (bytes.size() != kBytes) {
    return Status::corrupt(
        fmt::format("a wrapped key has {} bytes, not {}; restore or remove the entry", bytes.size(), kBytes));
  }
  WrappedKey wrapped;
  std::copy_n(bytes.begin(), wrapped.key_id.bytes.size(),
              std::as_writable_bytes(std::span(wrapped.key_id.bytes)).begin());
  bytes = bytes.subspan(wrapped.key_id.bytes.size());
  std::copy_n(bytes.begin(), kNonceBytes, wrapped.nonce.begin());
  std::copy(bytes.begin() + kNonceBytes, bytes.end(), wrapped.sealed.begin());
  return wrapped;
}

}  // namespace finchkv::cache_store
