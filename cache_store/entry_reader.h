// EntryReader: the way back from numbered blocks to a KvSet, layer by layer.
//
// A BlockSource is where blocks live; an EntryReader knows one entry's head and table and makes tensors of its blocks.
// What can be used as it is stored is read straight to its place, in memory that the caller may choose; the rest goes
// through a piece of pooled memory.
// Internal to cache_store. An EntryReader is immutable once opened and may be used from many threads, each with a
// BlockSource of its own. A missing block is not_found (the caller knows whether the entry went away meanwhile);
// everything else that is wrong is corrupt.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "cache_store/codec.h"
#include "cache_store/secret.h"

namespace finchkv::cache_store {

/// Bytes before and behind a block's place that a source may overwrite.
inline constexpr std::size_t kReadSlack = 64;

/// What a reader does to a block's bytes where they lie, while they are in cache.
class BlockWork {
 public:
  virtual ~BlockWork() = default;
  /// The first `there` bytes stand at their place and count in the digest already: from now on they are the work's to
  /// change. Comes with the block's size at last.
  virtual void arrived(std::size_t there) = 0;
  /// The block is about to be put there once more, from its first byte on.
  virtual void again() = 0;
};

class BlockSource {
 public:
  virtual ~BlockSource() = default;
  /// Puts the block's stored bytes into `into`, which has ref.stored_bytes and kReadSlack around it, and checks them
  /// against ref.digest while they are in cache. not_found, corrupt; deadline_exceeded when a lease has run out.
  [[nodiscard]] virtual Status read(const BlockRef& ref, std::span<std::byte> into) = 0;
  /// The same, with `work` done on the bytes as they come. What it has made of them counts only when this is ok: the
  /// digest is known at the end. A source that cannot do better reads first and lets work follow.
  [[nodiscard]] virtual Status read_with(const BlockRef& ref, std::span<std::byte> into, BlockWork& work) {
    FINCHKV_RETURN_IF_ERROR(read(ref, into));
    work.arrived(into.size());
    return Status::ok();
  }
};

class EntryReader {
 public:
  /// Reads the table. permission_denied when the blocks are sealed and `keys` has not the key that opens them.
  [[nodiscard]] static Result<EntryReader> open(EntryHead head, std::string tenant, const KeyRing* keys,
                                                BlockSource& source);
  /// For checking digests only, which needs no key.
  [[nodiscard]] static Result<EntryReader> open_sealed(EntryHead head, BlockSource& source);

  [[nodiscard]] const EntryHead& head() const { return head_; }
  /// Everything of the set but its layers.
  [[nodiscard]] KvSet empty_set() const;

  using Layer = OwnedLayer;
  /// Half a layer, which is what one thread reads: its keys, or its values and origins.
  struct Half {
    std::span<const std::byte> tensor;
    std::span<const std::uint32_t> origins;  ///< with the values
    std::shared_ptr<const void> memory;
  };
  [[nodiscard]] Result<Half> read_half(std::uint32_t layer, BlockKind kind, BlockSource& source,
                                       const StreamOptions& options) const;
  [[nodiscard]] Layer join(std::uint32_t layer, const Half& keys, const Half& values) const;
  [[nodiscard]] Result<Layer> read_layer(std::uint32_t layer, BlockSource& source,
                                         const StreamOptions& options = {}) const;
  [[nodiscard]] Result<std::vector<std::vector<std::uint32_t>>> read_origins(BlockSource& source) const;
  /// not_found when there are none; corrupt when they are not what the identity says (hashed with the key of `ids`).
  [[nodiscard]] Result<std::vector<std::int32_t>> read_document_tokens(const Tenant& ids, BlockSource& source) const;
  /// All blocks without their seals.
  [[nodiscard]] Result<PackedEntry> read_packed(BlockSource& source) const;
  /// Reads every block, decodes it, and checks all that can be checked.
  [[nodiscard]] Status verify(const Tenant& ids, BlockSource& source) const;
  /// Reads every block and checks its digest.
  [[nodiscard]] Status verify_digests(BlockSource& source) const;

 private:
  EntryReader(EntryHead head, std::string tenant) : head_(std::move(head)), tenant_(std::move(tenant)) {}
  Status read_table(BlockSource& source);
  [[nodiscard]] std::uint64_t payload_bytes(const BlockRef& ref) const;
  /// Bytes of a tensor in this form.
  [[nodiscard]] std::uint64_t tensor_bytes(const BlockRef& ref, LayerForm form) const;
  /// Its payload is the tensor as it is wanted.
  [[nodiscard]] bool is_tensor(const BlockRef& ref, LayerForm form) const {
    const bool as_wanted = form == LayerForm::kStored || head_.identity.storage == head_.decoded;
    return as_wanted && ref.encoding == BlockEncoding::kPlain;
  }
  /// What reading a tensor to its place may write there.
  [[nodiscard]] std::uint64_t room_of(const BlockRef& ref, LayerForm form) const {
    const std::uint64_t bytes = tensor_bytes(ref, form);
    return is_tensor(ref, form) ? std::max(bytes, ref.stored_bytes) : bytes;
  }
  Status read_sealed(const BlockRef& ref, BlockSource& source, std::span<std::byte> into) const;
  [[nodiscard]] Result<Block> read_payload(const BlockRef& ref, BlockSource& source) const;
  [[nodiscard]] Status read_tensor(const BlockRef& ref, BlockSource& source, LayerForm form,
                                   std::span<std::byte> out) const;
  [[nodiscard]] Status read_layer_origins(std::uint32_t layer, BlockSource& source, std::span<std::uint32_t> out) const;
  [[nodiscard]] const BlockRef& ref_of(std::uint32_t layer, BlockKind kind) const {
    return refs_[std::size_t{3} * layer + static_cast<std::size_t>(kind) - 1];
  }

  EntryHead head_;
  std::string tenant_;
  std::shared_ptr<const DataKey> key_;  // null where nothing is sealed
  std::vector<BlockRef> refs_;          // ordinals 1 and up
};

}  // namespace finchkv::cache_store
