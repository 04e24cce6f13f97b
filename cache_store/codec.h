// The KvSet codec: an entry as a head and numbered blocks of bytes, and back (docs/formats.md).
//
// Ordinal 0 is the table of all other blocks with their sizes and digests; its own digest, the table root, stands in
// the head. Then come, per layer, keys, values and origins, and last, optionally, the document's token ids.
// In two steps each way, so that copies need not decode: a KvSet is packed (storage dtype, delta, zstd), and a packed
// entry is finished for one put (sealed where there are keys, digests, table, head).
// Everything read is untrusted: sizes are checked before memory is taken, digests before bytes are used.
// Values and pure functions, thread-safe. Knows nothing of where blocks live. Reading: entry_reader.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/kvset.h"
#include "base/status.h"
#include "cache_store/identity.h"
#include "cache_store/put_id.h"
#include "cache_store/store.h"

namespace finchkv::cache_store {

inline constexpr std::uint32_t kHeadVersion = 2;
inline constexpr std::uint32_t kOldestHeadVersion = 1;
inline constexpr std::uint32_t kTableOrdinal = 0;

enum class BlockKind : std::uint16_t { kTable = 0, kKeys = 1, kValues = 2, kOrigins = 3, kDocumentTokens = 4 };

/// What was done to a block's layout before sealing. Stored in files: values never change.
enum class BlockEncoding : std::uint16_t {
  kPlain = 0,  ///< as docs/formats.md lays the kind out
  kZstd = 1,   ///< that, as one zstd frame
  kDelta = 2,  ///< origins only: origin_codec.h
};

struct BlockRef {
  std::uint32_t ordinal = 0;
  BlockKind kind = BlockKind::kTable;
  BlockEncoding encoding = BlockEncoding::kPlain;
  std::uint32_t layer = 0;  ///< 0 for the table and the document
  std::uint64_t stored_bytes = 0;
  std::uint64_t raw_bytes = 0;  ///< once decoded
  BlockDigest digest{};         ///< XXH3-128 of the stored bytes

  bool operator==(const BlockRef&) const = default;
};
[[nodiscard]] std::string describe(const BlockRef& ref);  ///< "block 4 (keys of layer 1)"

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
  bool own_table = false;  ///< its blocks are a RocksDB table of their own
  bool sealed = false;     ///< its blocks are encrypted under a data key, which stands wrapped in its record
  BlockRef table;

  // Not part of the message: set where a record is made or read.
  std::vector<std::byte> wrapped_key;  ///< WrappedKey::encode(); empty where nothing is sealed
  Sha256 message_digest{};             ///< of everything above: what the wrapped key is tied to

  /// The table, three blocks a layer, and the document where it is kept: ordinals 0 to block_count() - 1.
  [[nodiscard]] std::uint32_t block_count() const { return 1 + 3 * shape.n_layers + (has_document_tokens ? 1U : 0U); }
  /// What stands behind the table, in its plain encoding: stored_bytes is what the layout takes, digests are zero.
  /// corrupt when a size cannot be.
  [[nodiscard]] Result<std::vector<BlockRef>> plan_blocks() const;
};

/// Bytes of one block; `owner` keeps them alive (null where a KvSet's memory does).
struct Block {
  std::uint32_t ordinal = 0;
  BlockEncoding encoding = BlockEncoding::kPlain;
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

/// An entry in the storage dtype, neither sealed nor named: what copies and archives carry.
struct PackedEntry {
  EntryHead head;             ///< without put id, table and key; created_unix_ms 0 for a new entry
  std::vector<Block> blocks;  ///< ordinals 1 and up
  std::vector<std::shared_ptr<const void>> memory = {};  ///< of the KvSet that blocks may view
};

/// An entry as a put writes it.
struct EncodedEntry {
  EntryHead head;
  std::vector<std::byte> head_record;
  std::vector<Block> blocks;  ///< by ordinal, the table first
  std::uint64_t block_bytes = 0;
};

/// What get() will return for a set that is put under `storage`: stored, then read back. For answering from a fresh
/// set exactly as from a stored one.
[[nodiscard]] Result<KvSet> as_stored(const KvSet& set, DType storage);

/// invalid_argument when identity, set, document and label of a put do not hold together. `ids` is the tenant whose key
/// the token hashes were made with.
[[nodiscard]] Status check_put(const PutRequest& request, const Tenant& ids);
[[nodiscard]] Status check_label(const std::string& label);

/// Packs a checked request. The result shares the memory of request.set where nothing has to change.
[[nodiscard]] Result<PackedEntry> pack_entry(const PutRequest& request);

/// How a packed entry becomes one put's.
struct FinishOptions {
  PutId put_id;
  std::uint64_t now_unix_ms = 0;
  Provenance provenance = Provenance::kComputed;
  std::string_view tenant = {};                       ///< whose blocks these are: sealing is tied to it
  const KeyRing* keys = nullptr;                      ///< sealed when there are keys
  std::uint64_t own_table_bytes = ~std::uint64_t{0};  ///< from this size on the blocks get a table of their own
};
/// invalid_argument for what could not be read back. The result may point into `packed`.
[[nodiscard]] Result<EncodedEntry> finish_entry(const PackedEntry& packed, const FinishOptions& options);
/// The bytes that finish_entry will make of it, at most.
[[nodiscard]] std::uint64_t finished_bytes(const PackedEntry& packed, bool sealed);

/// Checks digest, structure and limits, and that the identity's id for this tenant is `id`.
[[nodiscard]] Result<EntryHead> decode_head(std::span<const std::byte> record, const CacheId& id, const Tenant& ids);
/// The same without the comparison of ids: for garbage collection, which holds no tenant's key.
[[nodiscard]] Result<EntryHead> decode_head_unbound(std::span<const std::byte> record);
/// The record's digest matches: these are the bytes that some program wrote, whether or not this one can read them.
[[nodiscard]] bool head_is_as_written(std::span<const std::byte> record);

/// The head as callers see it; what is kept apart from the head is the store's to fill in.
[[nodiscard]] EntryInfo make_entry_info(const CacheId& id, const EntryHead& head);

}  // namespace finchkv::cache_store
