// CacheIdentity and CacheId: what a KvSet is the answer to, and the content hash that names it.
//
// Two readings share an id exactly when every field that could change a byte of the result is the same. The encoding
// that is hashed is Cap'n Proto's canonical form (identity.capnp, docs/formats.md); fields added later mean "as before"
// when they are zero. Plain values and pure functions, thread-safe. Left out: how fingerprints are made (model/).
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "base/dtype.h"
#include "base/status.h"

namespace finchkv::cache_store {

/// Whose entries these are. The default tenant has an empty name and an empty key: its ids are plain content hashes,
/// the same on every machine. A named tenant has a secret key, so that nobody else can compute or probe its ids.
struct Tenant {
  std::string name;
  std::vector<std::byte> key;

  /// invalid_argument unless both are empty, or the name is 1 to 64 of [A-Za-z0-9._-] and the key 16 bytes or more.
  [[nodiscard]] Status validate() const;
};

/// The name of an entry: 32 bytes, printed as 64 hex digits.
struct CacheId {
  std::array<std::uint8_t, 32> bytes{};

  [[nodiscard]] std::string hex() const { return to_hex(bytes); }
  /// invalid_argument unless `hex` is 64 hex digits. Shortened ids go through Store::resolve_prefix.
  [[nodiscard]] static Result<CacheId> from_hex(std::string_view hex);

  auto operator<=>(const CacheId&) const = default;
};

// Values of these enums are part of the hashed encoding: they never change.
enum class EntryKind : std::uint16_t { kPromptGuided = 0, kDocument = 1, kPassage = 2 };
enum class NumericClass : std::uint16_t { kReference = 0, kFast = 1, kFp8 = 2 };
[[nodiscard]] std::string_view entry_kind_name(EntryKind kind);           // "prompt-guided", "document", "passage"
[[nodiscard]] std::string_view numeric_class_name(NumericClass numeric);  // "reference", "fast", "fp8"

/// An adapter (LoRA) that was applied, in the order of application.
struct AdapterIdentity {
  Sha256 fingerprint{};
  std::int64_t scale_ppm = 0;  ///< strength in millionths

  bool operator==(const AdapterIdentity&) const = default;
};

inline constexpr std::uint32_t kIdentityVersion = 1;

struct CacheIdentity {
  std::uint32_t version = kIdentityVersion;
  EntryKind kind = EntryKind::kPromptGuided;

  Sha256 model_fingerprint{};      ///< canonical config + tokenizer + RoPE record
  Sha256 weights_fingerprint{};    ///< tree hash over the whole model file
  Sha256 tokenizer_fingerprint{};  ///< zero for a model without a tokenizer
  std::vector<AdapterIdentity> adapters;

  Sha256 document_hash{};  ///< token_hash of the document's ids
  Sha256 prompt_hash{};    ///< token_hash of the prompt's ids; zero for policies that ignore the prompt
  std::uint64_t doc_tokens = 0;
  std::uint64_t prompt_tokens = 0;  ///< 0 for policies that ignore the prompt

  std::string reader;  ///< "chunks", "whole"
  std::string policy;  ///< "finch-span", ...
  std::uint32_t policy_revision = 0;
  std::uint32_t model_code_revision = 0;
  std::uint64_t keep = 0;   ///< K, resolved: a ratio has become a count
  std::uint64_t chunk = 0;  ///< m, resolved; 0 where the reader has no chunks
  std::uint64_t seed = 0;   ///< 0 for policies that draw nothing
  /// Whatever else can change a byte of the result, as scaled integers: {"span", 7}, {"own_score_ppm", 15625}.
  std::map<std::string, std::int64_t> parameters;

  NumericClass numeric = NumericClass::kReference;  ///< what was asked for, not what the processor had
  DType storage = DType::kF32;                      ///< how the store keeps it

  /// invalid_argument naming the field: an unknown version or enum value, an empty or overlong name, no document,
  /// prompt-guided without a prompt, or a prompt hash without prompt tokens.
  [[nodiscard]] Status validate() const;
  bool operator==(const CacheIdentity&) const = default;
};

/// HMAC-SHA-256 under the tenant's key over the ids as little-endian 32-bit integers.
[[nodiscard]] Sha256 token_hash(std::span<const std::int32_t> ids, const Tenant& tenant);

/// The Cap'n Proto canonical form of the identity: the bytes that are hashed, stored and exported.
[[nodiscard]] std::vector<std::byte> canonical_encoding(const CacheIdentity& identity);

/// The inverse, for bytes from outside: corrupt when they are not a canonical identity, unsupported when they carry
/// fields or a version that this program does not know.
[[nodiscard]] Result<CacheIdentity> decode_identity(std::span<const std::byte> canonical);

/// HMAC-SHA-256(tenant key, "finchkv-id-1\0" || canonical encoding).
[[nodiscard]] CacheId cache_id(const CacheIdentity& identity, const Tenant& tenant);

}  // namespace finchkv::cache_store
