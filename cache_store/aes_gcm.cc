#include "cache_store/aes_gcm.h"

#include <algorithm>
#include <cassert>

#include <openssl/err.h>
#include <openssl/evp.h>

namespace finchkv::cache_store {
namespace {

const unsigned char* raw(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
unsigned char* raw(std::span<std::byte> bytes) { return reinterpret_cast<unsigned char*>(bytes.data()); }

// Looking an algorithm up takes longer than setting up a key, so it is done once.
const EVP_CIPHER* algorithm() {
  static const EVP_CIPHER* const found = EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr);
  return found;
}

Status openssl_failed() {
  // Whatever OpenSSL has noted would otherwise be read as the cause of some later failure.
  ERR_clear_error();
  return Status::internal("OpenSSL cannot compute AES-256-GCM here: check its configuration and its default provider");
}

}  // namespace

void AesGcm::Free::operator()(evp_cipher_ctx_st* context) const { EVP_CIPHER_CTX_free(context); }

Result<AesGcm> AesGcm::create(std::span<const std::byte, kKeyBytes> key, Direction direction) {
  Context context(EVP_CIPHER_CTX_new());
  if (algorithm() == nullptr || context == nullptr ||
      EVP_CipherInit_ex2(context.get(), algorithm(), raw(key), nullptr, direction == Direction::kSeal ? 1 : 0,
                         nullptr) != 1) {
    return openssl_failed();
  }
  return AesGcm(std::move(context));
}

Status AesGcm::seal(const Nonce& nonce, std::span<const std::byte> associated, std::span<const std::byte> plain,
                    std::span<std::byte> out) {
  assert(out.size() == plain.size() + kTagBytes);
  EVP_CIPHER_CTX* context = context_.get();
  int length = 0;
  const bool done =
      EVP_CipherInit_ex2(context, nullptr, nullptr, raw(nonce), -1, nullptr) == 1 &&
      EVP_CipherUpdate(context, nullptr, &length, raw(associated), static_cast<int>(associated.size())) == 1 &&
      (plain.empty() ||
       EVP_CipherUpdate(context, raw(out), &length, raw(plain), static_cast<int>(plain.size())) == 1) &&
      EVP_CipherFinal_ex(context, raw(out.subspan(plain.size())), &length) == 1 &&
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, kTagBytes, out.data() + plain.size()) == 1;
  if (done) return Status::ok();
  wipe(out);
  return openssl_failed();
}

bool AesGcm::open(const Nonce& nonce, std::span<const std::byte> associated, std::span<const std::byte> sealed,
                  std::span<std::byte> out) {
  assert(sealed.size() == out.size() + kTagBytes);
  const auto cipher = sealed.first(out.size());
  // EVP takes the tag as something it might write to.
  std::array<std::byte, kTagBytes> tag{};
  std::copy_n(sealed.end() - kTagBytes, kTagBytes, tag.begin());
  EVP_CIPHER_CTX* context = context_.get();
  int length = 0;
  unsigned char nothing = 0;  // the end of GCM writes no bytes, but wants an address
  const bool done =
      EVP_CipherInit_ex2(context, nullptr, nullptr, raw(nonce), -1, nullptr) == 1 &&
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, kTagBytes, tag.data()) == 1 &&
      EVP_CipherUpdate(context, nullptr, &length, raw(associated), static_cast<int>(associated.size())) == 1 &&
      (cipher.empty() ||
       EVP_CipherUpdate(context, raw(out), &length, raw(cipher), static_cast<int>(cipher.size())) == 1) &&
      EVP_CipherFinal_ex(context, &nothing, &length) == 1;
  if (done) return true;
  wipe(out);
  ERR_clear_error();
  return false;
}

}  // namespace finchkv::cache_store
