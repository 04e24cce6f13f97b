// KeyRing: one tenant's key-encryption keys, which wrap the data keys of its puts.
//
// The first key is current and wraps what is new; older ones still open what they wrapped. Rotation puts a new key in
// front and rewraps: data keys, and so blocks, stay as they are. Once all its keys are destroyed, a tenant is erased.
// Immutable once made, so thread-safe; moved, never copied, and its keys are wiped with it. Left out: where keys come
// from (key_source.h), and the tenant's id key, another key for another purpose (identity.h).
//
// Wrapping is AES-256-GCM with random nonces of 96 bits: a key should be rotated before it has wrapped 2^32 data keys.
#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "base/status.h"
#include "cache_store/sealing.h"
#include "cache_store/secret.h"
#include "cache_store/wrapped_key.h"

namespace finchkv::cache_store {

class KeyRing {
 public:
  /// The first key is the current one. invalid_argument without a key, with one twice, or with one that is the same
  /// byte over and over.
  [[nodiscard]] static Result<KeyRing> make(std::vector<KeyEncryptionKey> keys);

  [[nodiscard]] const KeyId& current() const { return keys_.front().id; }
  [[nodiscard]] std::vector<KeyId> ids() const;  ///< the current one first

  /// `bound` is whatever else the entry stands or falls with, for example a digest of its head without this field: the
  /// key unwraps only beside the same bytes. At most 64 KiB.
  [[nodiscard]] Result<WrappedKey> wrap(const DataKey& key, const PutContext& put,
                                        std::span<const std::byte> bound = {}) const;
  /// permission_denied when the ring lacks the key that wrapped it; corrupt when it does not authenticate.
  [[nodiscard]] Result<DataKey> unwrap(const WrappedKey& wrapped, const PutContext& put,
                                       std::span<const std::byte> bound = {}) const;
  /// The same data key under the current key. What is under it already is checked and comes back as it is.
  [[nodiscard]] Result<WrappedKey> rewrap(const WrappedKey& wrapped, const PutContext& put,
                                          std::span<const std::byte> bound = {}) const;

 private:
  struct Entry {
    KeyId id;
    KeyEncryptionKey key;
  };

  explicit KeyRing(std::vector<Entry> keys) : keys_(std::move(keys)) {}

  std::vector<Entry> keys_;
};

}  // namespace finchkv::cache_store
