// AES-256-GCM under one key, through OpenSSL's EVP: what sealing and the key ring are made of.
//
// Internal to cache_store. An object belongs to one thread at a time and is kept for as many messages as its key has:
// setting up a key costs as much as encrypting a kilobyte. The key's schedule is wiped with the object; a context kept
// per thread would either outlive the keys it has seen or have to be given another key after each use, and that was
// slower (406 ns) than a fresh one (314 ns). Left out: messages of 2 GiB and more, which EVP cannot count.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "base/status.h"
#include "cache_store/secret.h"

struct evp_cipher_ctx_st;

namespace finchkv::cache_store {

inline constexpr std::size_t kTagBytes = 16;
inline constexpr std::size_t kNonceBytes = 12;
using Nonce = std::array<std::byte, kNonceBytes>;

class AesGcm {
 public:
  enum class Direction : std::uint8_t { kSeal, kOpen };

  /// internal when this OpenSSL has no AES-256-GCM.
  [[nodiscard]] static Result<AesGcm> create(std::span<const std::byte, kKeyBytes> key, Direction direction);

  /// `out` is kTagBytes longer than `plain`; the two are disjoint or begin at the same byte. No nonce may serve two
  /// messages under one key. internal when OpenSSL fails; `out` is zeroes then.
  [[nodiscard]] Status seal(const Nonce& nonce, std::span<const std::byte> associated, std::span<const std::byte> plain,
                            std::span<std::byte> out);
  /// The inverse: `out` is kTagBytes shorter than `sealed`. False when it does not authenticate; `out` is zeroes then.
  [[nodiscard]] bool open(const Nonce& nonce, std::span<const std::byte> associated, std::span<const std::byte> sealed,
                          std::span<std::byte> out);

 private:
  struct Free {
    void operator()(evp_cipher_ctx_st* context) const;
  };
  using Context = std::unique_ptr<evp_cipher_ctx_st, Free>;

  explicit AesGcm(Context context) : context_(std::move(context)) {}

  Context context_;
};

}  // namespace finchkv::cache_store
