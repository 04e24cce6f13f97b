// Secrets in memory: 32-byte keys that say what they are for, and a buffer for reading key material. Both are wiped
// when they are dropped or moved from.
//
// Values without shared state; one object belongs to one thread at a time, reading a const one from many is fine.
// Keys are moved, never copied, so that whoever holds one knows how many there are. Left out: locking pages against
// swap (docs/security.md says what to do about it), since the tensors that a key opens lie in ordinary memory as well.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <span>

namespace finchkv::cache_store {

inline constexpr std::size_t kKeyBytes = 32;

/// Zeroes that the compiler may not leave out.
void wipe(std::span<std::byte> bytes);
/// Bytes nobody can predict, for keys and nonces. Ends the process when the system has no randomness to give.
void fill_random(std::span<std::byte> bytes);

/// Tag makes keys of different purposes different types.
template <typename Tag>
class SecretKey {
 public:
  [[nodiscard]] static SecretKey random() {
    SecretKey key;
    fill_random(key.bytes_);
    return key;
  }
  [[nodiscard]] static SecretKey copy_of(std::span<const std::byte, kKeyBytes> bytes) {
    SecretKey key;
    std::copy(bytes.begin(), bytes.end(), key.bytes_.begin());
    return key;
  }

  ~SecretKey() { wipe(bytes_); }
  SecretKey(SecretKey&& other) noexcept : bytes_(other.bytes_) { wipe(other.bytes_); }
  SecretKey& operator=(SecretKey&& other) noexcept {
    if (this != &other) {
      bytes_ = other.bytes_;
      wipe(other.bytes_);
    }
    return *this;
  }
  SecretKey(const SecretKey&) = delete;
  SecretKey& operator=(const SecretKey&) = delete;

  [[nodiscard]] std::span<const std::byte, kKeyBytes> bytes() const { return bytes_; }

 private:
  SecretKey() = default;

  std::array<std::byte, kKeyBytes> bytes_{};
};

/// Encrypts the blocks and records of one put, and nothing else ever.
using DataKey = SecretKey<struct DataKeyTag>;
/// Wraps data keys. A tenant has one that is current, and older ones for as long as entries need them.
using KeyEncryptionKey = SecretKey<struct KeyEncryptionKeyTag>;

/// Memory of a fixed size, so that growing never leaves a copy behind.
class SecretBuffer {
 public:
  explicit SecretBuffer(std::size_t size) : bytes_(std::make_unique<std::byte[]>(size)), size_(size) {}
  ~SecretBuffer() { wipe(bytes()); }
  SecretBuffer(const SecretBuffer&) = delete;
  SecretBuffer& operator=(const SecretBuffer&) = delete;

  [[nodiscard]] std::span<std::byte> bytes() { return {bytes_.get(), size_}; }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t size_;
};

}  // namespace finchkv::cache_store
