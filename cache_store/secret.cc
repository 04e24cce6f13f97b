#include "cache_store/secret.h"

#include <cstdlib>

#include <openssl/crypto.h>
#include <openssl/rand.h>

namespace finchkv::cache_store {

void wipe(std::span<std::byte> bytes) { OPENSSL_cleanse(bytes.data(), bytes.size()); }

void fill_random(std::span<std::byte> bytes) {
  // A key that somebody can guess is worse than no process at all.
  if (RAND_priv_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(bytes.size())) != 1) {
    std::abort();
  }
}

}  // namespace finchkv::cache_store
