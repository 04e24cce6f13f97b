// The KvSet codec: an entry as a head and numbered blocks of bytes, and back (docs/formats.md).
//
// Ordinal 0 is the table of all other blocks with their sizes and digests; its own digest, the table root, stands in
// the head. Then come, per layer, keys, values and origins, and last, optionally, the document's token ids.
// Everything read is untrusted: sizes are checked before memory is taken, digests before bytes are used.
// Pure functions and values, thread-safe. Knows nothing of where blocks live.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/kvset.h"
#include "base/status.h"
#include "cache_store/identity.h"
#include "cache_store/store.h"

namespace finchkv::cache_store {

inline constexpr std::uint32_t kHeadVersion = 1;
inline constexpr std::uint32_t kTableOrdinal = 0;

/// Names the blocks of one put. Random, so that a put never meets another's blocks.
struct PutId {
  std::array<std::uint8_t, 16> bytes{};

  [[nodiscard]] static PutId random();
  auto operator<=>(const PutId&) const = default;
};

enum class BlockKind : std::uint16_t { kTable = 0, kKeys = 1, kValues = 2, kOrigins = 3, kDocumentTokens = 4 };

struct BlockRef {
  std::uint32_t ordinal = 0;
  BlockKind kind = BlockKind::kTable;
  std::uint32_t layer = 0;  ///< 0 for the table and the document
  std::uint64_t stored_bytes = 0;
  std::uint64_t raw_bytes = 0;  ///< once decoded
  BlockDigest digest{};         ///< XXH3-128 of the stored bytes

  bool operator==(const BlockRef&) const = default;
};

struct EntryHead {
  CacheIdentity identity;
  PutId put_id;
  KvShape shape;
  DType decoded = DType::kF32;  ///< identity.storage for f32, f16, bf16; f32 or bf16 for q8 and q4
  std::vector<std::uint32_t> n_kept;
  KeyForm key_form = KeyForm::kPreRope;
  std::uint64_t next_position = 0;
  RopeRecord rope;
  Provenance provenance = Provenance::kComputed;
  std::uint64_t created_unix_ms = 0;
  std::uint64_t compress_ms = 0;
  std::uint64_t stored_bytes = 0;
  std::uint64_t raw_bytes = 0;
  bool has_document_tokens = false;
  BlockRef table;

  /// The table, three blocks a layer, and the document where it is kept: ordinals 0 to block_count() - 1.
  [[nodiscard]] std::uint32_t block_count() const { return 1 + 3 * shape.n_layers + (has_document_tokens ? 1U : 0U); }
  /// What stands behind the table, without digests. corrupt when a size cannot be.
  [[nodiscard]] Result<std::vector<BlockRef>> plan_blocks() const;
};

/// Bytes of one block; `owner` keeps them alive (null where the caller's KvSet does).
struct Block {
  std::uint32_t ordinal = 0;
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

struct EncodedEntry {
  EntryHead head;
  std::vector<std::byte> head_record;
  std::vector<Block> blocks;  ///< by ordinal; views into request.set where its dtype is the stored one
  std::uint64_t block_bytes = 0;
};

/// What get() will return for a set that is put under `storage`: stored, then read back. For answering from a fresh
/// set exactly as from a stored one.
[[nodiscard]] Result<KvSet> as_stored(const KvSet& set, DType storage);

/// invalid_argument when identity, set, document and label of a put do not hold together.
[[nodiscard]] Status check_put(const PutRequest& request, const Tenant& tenant);
/// Encodes a checked request. The result may point into request.set.
[[nodiscard]] Result<EncodedEntry> encode_entry(const PutRequest& request, const PutId& put_id,
                                                std::uint64_t created_unix_ms);

/// Checks digest, structure and limits, and that the identity's id for this tenant is `id`.
[[nodiscard]] Result<EntryHead> decode_head(std::span<const std::byte> record, const CacheId& id, const Tenant& tenant);
/// The same without the comparison of ids: for garbage collection, which holds no tenant's key.
[[nodiscard]] Result<EntryHead> decode_head_unbound(std::span<const std::byte> record);
/// The record's digest matches: these are the bytes that some program wrote, whether or not this one can read them.
[[nodiscard]] bool head_is_as_written(std::span<const std::byte> record);

/// Gives the bytes of one block to `use`, which must not keep them. not_found when there is no such block.
using BlockReader =
    std::function<Status(std::uint32_t ordinal, const std::function<Status(std::span<const std::byte>)>& use)>;

/// Readers over blocks. A missing block is not_found (the caller knows whether the entry went away meanwhile);
/// everything else that is wrong is corrupt.
[[nodiscard]] Result<std::vector<BlockRef>> read_table(const EntryHead& head, const BlockReader& read);
[[nodiscard]] Result<KvSet> read_kvset(const EntryHead& head, const BlockReader& read);
[[nodiscard]] Result<std::vector<std::vector<std::uint32_t>>> read_origins(const EntryHead& head,
                                                                           const BlockReader& read);
[[nodiscard]] Result<std::vector<std::int32_t>> read_document_tokens(const EntryHead& head, const Tenant& tenant,
                                                                     const BlockReader& read);

/// Reads every block, decodes it, and checks all that can be checked.
[[nodiscard]] Status verify_entry(const EntryHead& head, const Tenant& tenant, const BlockReader& read);

/// The head as callers see it; label, hits and last use are the store's to fill in.
[[nodiscard]] EntryInfo make_entry_info(const CacheId& id, const EntryHead& head);

}  // namespace finchkv::cache_store
