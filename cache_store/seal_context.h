// Associated data: what a ciphertext is tied to, as bytes that can be read in one way only.
//
// Internal to cache_store. Fixed-width numbers are big-endian, texts carry their length, and every use starts with its
// own domain, so that no two uses can mean the same bytes. A value; thread-safe like one.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "cache_store/put_id.h"

namespace finchkv::cache_store {

/// A text's length is one byte.
inline constexpr std::size_t kMaxContextText = 255;

template <std::unsigned_integral T>
void store_big_endian(T value, std::byte* at) {
  for (std::size_t i = sizeof(T); i-- > 0; value = static_cast<T>(value >> 7 >> 1))
    at[i] = static_cast<std::byte>(value);
}

class AssociatedData {
 public:
  /// `domain` names use and version, without its final zero.
  explicit AssociatedData(std::string_view domain) {
    append(as_byte_span(domain));
    bytes_.push_back(std::byte{0});
  }

  /// At most kMaxContextText bytes: the caller has checked.
  AssociatedData& text(std::string_view value) {
    number(static_cast<std::uint8_t>(value.size()));
    return append(as_byte_span(value));
  }
  AssociatedData& put(const PutId& id) { return append(std::as_bytes(std::span(id.bytes))); }
  template <std::unsigned_integral T>
  AssociatedData& number(T value) {
    bytes_.resize(bytes_.size() + sizeof(T));
    store_big_endian(value, bytes_.data() + bytes_.size() - sizeof(T));
    return *this;
  }
  AssociatedData& append(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  [[nodiscard]] std::vector<std::byte> take() && { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace finchkv::cache_store
