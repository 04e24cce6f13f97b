#include "cache_store/key_ring.h"

#include <algorithm>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "cache_store/seal_context.h"

namespace finchkv::cache_store {
namespace {

constexpr std::size_t kMaxBound = 64 << 10;

Result<std::vector<std::byte>> wrap_context(const KeyId& id, const PutContext& put, std::span<const std::byte> bound) {
  if (put.tenant.size() > kMaxContextText) {
    return Status::invalid_argument(fmt::format(
        "a tenant's name of {} bytes is too long to wrap a key under: at most {}", put.tenant.size(), kMaxContextText));
  }
  if (bound.size() > kMaxBound) {
    return Status::invalid_argument(
        fmt::format("{} bytes to bind to a wrapped key: at most {}; give their digest", bound.size(), kMaxBound));
  }
  return std::move(AssociatedData("finchkv-wrap-1")
                       .append(std::as_bytes(std::span(id.bytes)))
                       .text(put.tenant)
                       .put(put.put_id)
                       .append(bound))
      .take();
}

std::string of_tenant(const PutContext& put) {
  return put.tenant.empty() ? std::string("of the default tenant") : fmt::format("of tenant {}", put.tenant);
}

}  // namespace

Result<KeyRing> KeyRing::make(std::vector<KeyEncryptionKey> keys) {
  if (keys.empty()) return Status::invalid_argument("a key ring needs at least one key");
  std::vector<Entry> entries;
  entries.reserve(keys.size());
  for (KeyEncryptionKey& key : keys) {
    const auto bytes = key.bytes();
    // What an empty disk or a forgotten variable gives, and chance never.
    if (std::ranges::count(bytes, bytes[0]) == std::ssize(bytes)) {
      return Status::invalid_argument(
          fmt::format("key {} is one byte repeated 32 times: make a random one", entries.size() + 1));
    }
    const KeyId id = KeyId::of(key);
    const auto same = std::ranges::find(entries, id, &Entry::id);
    if (same != entries.end()) {
      return Status::invalid_argument(fmt::format("keys {} and {} are the same: a new key is made for every rotation",
                                                  same - entries.begin() + 1, entries.size() + 1));
    }
    entries.push_back({id, std::move(key)});
  }
  return KeyRing(std::move(entries));
}

std::vector<KeyId> KeyRing::ids() const {
  std::vector<KeyId> out;
  out.reserve(keys_.size());
  for (const Entry& entry : keys_) out.push_back(entry.id);
  return out;
}

Result<WrappedKey> KeyRing::wrap(const DataKey& key, const PutContext& put, std::span<const std::byte> bound) const {
  WrappedKey wrapped;
  wrapped.key_id = current();
  fill_random(wrapped.nonce);
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<std::byte> context, wrap_context(wrapped.key_id, put, bound));
  FINCHKV_ASSIGN_OR_RETURN(AesGcm cipher, AesGcm::create(keys_.front().key.bytes(), AesGcm::Direction::kSeal));
  FINCHKV_RETURN_IF_ERROR(cipher.seal(wrapped.nonce, context, key.bytes(), wrapped.sealed));
  return wrapped;
}

Result<DataKey> KeyRing::unwrap(const WrappedKey& wrapped, const PutContext& put,
                                std::span<const std::byte> bound) const {
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<std::byte> context, wrap_context(wrapped.key_id, put, bound));
  const auto entry = std::ranges::find(keys_, wrapped.key_id, &Entry::id);
  if (entry == keys_.end()) {
    return Status::permission_denied(
        fmt::format("the entry is encrypted under key {}, which is not among the {} keys {}: add it as a later line of "
                    "the tenant's key file, or remove the entry",
                    wrapped.key_id.hex(), keys_.size(), of_tenant(put)));
  }
  FINCHKV_ASSIGN_OR_RETURN(AesGcm cipher, AesGcm::create(entry->key.bytes(), AesGcm::Direction::kOpen));
  std::array<std::byte, kKeyBytes> plain;
  if (!cipher.open(wrapped.nonce, context, wrapped.sealed, plain)) {
    return Status::corrupt(fmt::format(
        "the entry's data key does not authenticate under key {} {}: its head was changed, or belongs elsewhere; "
        "restore or remove the entry",
        wrapped.key_id.hex(), of_tenant(put)));
  }
  DataKey key = DataKey::copy_of(plain);
  wipe(plain);
  return key;
}

Result<WrappedKey> KeyRing::rewrap(const WrappedKey& wrapped, const PutContext& put,
                                   std::span<const std::byte> bound) const {
  FINCHKV_ASSIGN_OR_RETURN(const DataKey key, unwrap(wrapped, put, bound));
  if (wrapped.key_id == current()) return wrapped;
  return wrap(key, put, bound);
}

}  // namespace finchkv::cache_store
