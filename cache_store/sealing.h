// Sealing: the blocks of one put encrypted and authenticated, in segments, under a key that serves this put alone.
//
// A sealed block is its plain bytes cut into segments of 64 KiB, each followed by its tag of 16 bytes; an empty block
// is one empty segment. Associated data tie every segment to tenant, put, block ordinal, plain length of the block, its
// own number and whether it is the last, so that nothing can be reordered, cut off, or moved to another block, put or
// tenant. A segment stands for itself: a reader that wants tiles opens one, uses it while it is in cache, and takes the
// next.
//
// **One key, one put, one content.** Nonces follow from ordinal and segment, so sealing other bytes at the same place
// under the same key would give both away. Whoever starts a put again draws a new DataKey.
//
// Functions are thread-safe; a BlockSealer or BlockOpener belongs to one thread at a time, and threads that share a
// block's segments have an opener each. Nothing unauthenticated is ever left in memory of the caller's.
// Left out: where the key is kept (key_ring.h), and digests of stored bytes (codec.h), which need no key.
//
// Rates of one Xeon core (AVX-512, OpenSSL 3.0, which has no code for VAES): 5.4 GB/s both ways at 1 MiB; at 64 MiB,
// from memory to memory, seal 3.6, open 3.7, open in place 3.9 and segment by segment into one tile 4.1 GB/s. Segments
// of 4 KiB gave 3.0 there, 16 KiB 3.4, 32 KiB 3.6, and 128 KiB to 1 MiB no more than 64 KiB, which leaves room in a
// core's second-level cache for what a reader makes of it. From a file in the page cache, in tiles of 256 KiB (process
// time, 16 MiB): read 6.3, read and digested 5.0, opened once all was there 2.2, tile by tile (InPlaceOpener) 2.4.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "cache_store/aes_gcm.h"
#include "cache_store/put_id.h"
#include "cache_store/secret.h"

namespace finchkv::cache_store {

inline constexpr std::uint64_t kSegmentBytes = 64 << 10;     ///< part of the format
inline constexpr std::uint64_t kMaxPlainBytes = 1ULL << 40;  ///< of a block; segments are counted in 32 bits
inline constexpr std::size_t kMaxRecordBytes = 64 << 10;     ///< of a record, plain
inline constexpr std::size_t kRecordOverhead = kNonceBytes + kTagBytes;

/// Whose bytes these are: what every seal of a put is tied to.
struct PutContext {
  std::string_view tenant;  ///< its name; empty for the default tenant
  PutId put_id;
};

[[nodiscard]] constexpr std::uint64_t segment_count(std::uint64_t plain) {
  return plain == 0 ? 1 : (plain - 1) / kSegmentBytes + 1;
}
/// Of at most kMaxPlainBytes.
[[nodiscard]] constexpr std::uint64_t sealed_bytes(std::uint64_t plain) {
  return plain + segment_count(plain) * kTagBytes;
}
/// The inverse; nullopt when no block has this size once sealed.
[[nodiscard]] std::optional<std::uint64_t> plain_bytes(std::uint64_t sealed);

/// Seals a whole block. `out` has sealed_bytes(plain.size()) bytes and lies elsewhere.
[[nodiscard]] Status seal_block(const DataKey& key, const PutContext& put, std::uint32_t ordinal,
                                std::span<const std::byte> plain, std::span<std::byte> out);

/// Opens a whole block. `out` has the plain size and lies elsewhere. corrupt when `sealed` has another size or does not
/// authenticate; `out` is zeroes then.
[[nodiscard]] Status open_block(const DataKey& key, const PutContext& put, std::uint32_t ordinal,
                                std::span<const std::byte> sealed, std::span<std::byte> out);

/// The same over the sealed bytes themselves: the first `plain` of `bytes` are the block, what is behind them is of no
/// use. When it fails, all of `bytes` are zeroes.
[[nodiscard]] Status open_block_in_place(const DataKey& key, const PutContext& put, std::uint32_t ordinal,
                                         std::span<std::byte> bytes, std::uint64_t plain);

/// What the segments of one block share: where they lie, and what they are tied to.
class BlockSegments {
 public:
  struct Range {
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
  };

  [[nodiscard]] std::uint64_t count() const { return segment_count(plain_); }
  [[nodiscard]] Range plain_range(std::uint64_t segment) const;
  [[nodiscard]] Range sealed_range(std::uint64_t segment) const;

 protected:
  BlockSegments(const PutContext& put, std::uint32_t ordinal, std::uint64_t plain);

  [[nodiscard]] Nonce nonce(std::uint64_t segment) const;
  /// Good until the next call.
  [[nodiscard]] std::span<const std::byte> associated(std::uint64_t segment);

  std::uint32_t ordinal_;
  std::uint64_t plain_;

 private:
  std::vector<std::byte> associated_;
};

/// Seals a block as its bytes come into being.
class BlockSealer : public BlockSegments {
 public:
  /// invalid_argument for a block or a tenant's name that is too long.
  [[nodiscard]] static Result<BlockSealer> create(const DataKey& key, const PutContext& put, std::uint32_t ordinal,
                                                  std::uint64_t plain);

  /// Segments come in order and once each, so that no nonce is used twice. `plain` has plain_range().bytes of the
  /// segment, `out` sealed_range().bytes; they are disjoint or begin at the same byte.
  [[nodiscard]] Status seal_next(std::span<const std::byte> plain, std::span<std::byte> out);

 private:
  BlockSealer(const PutContext& put, std::uint32_t ordinal, std::uint64_t plain, AesGcm cipher)
      : BlockSegments(put, ordinal, plain), cipher_(std::move(cipher)) {}

  AesGcm cipher_;
  std::uint64_t next_ = 0;
};

/// Opens the segments of one block, in any order and as often as wanted.
class BlockOpener : public BlockSegments {
 public:
  /// `plain` is what the block is said to have: a wrong number makes every segment fail.
  [[nodiscard]] static Result<BlockOpener> create(const DataKey& key, const PutContext& put, std::uint32_t ordinal,
                                                  std::uint64_t plain);

  /// `sealed` has sealed_range(segment).bytes, `out` plain_range(segment).bytes; they are disjoint or begin at the same
  /// byte. corrupt when it does not authenticate; `out` is zeroes then.
  [[nodiscard]] Status open_segment(std::uint64_t segment, std::span<const std::byte> sealed, std::span<std::byte> out);

 private:
  BlockOpener(const PutContext& put, std::uint32_t ordinal, std::uint64_t plain, AesGcm cipher)
      : BlockSegments(put, ordinal, plain), cipher_(std::move(cipher)) {}

  AesGcm cipher_;
};

/// Opens a block over its own sealed bytes, each segment once it is all there: a reader that takes digests as bytes
/// arrive opens them while they are still in cache. The bytes are zeroes afterwards unless finish() was ok.
class InPlaceOpener {
 public:
  /// `bytes` is where the sealed block will be, and outlives this. corrupt when no block of `plain` has its size.
  [[nodiscard]] static Result<InPlaceOpener> create(const DataKey& key, const PutContext& put, std::uint32_t ordinal,
                                                    std::span<std::byte> bytes, std::uint64_t plain);
  ~InPlaceOpener() { wipe(bytes_); }
  InPlaceOpener(InPlaceOpener&& other) noexcept
      : opener_(std::move(other.opener_)),
        bytes_(std::exchange(other.bytes_, {})),
        next_(other.next_),
        failed_(std::move(other.failed_)) {}
  InPlaceOpener& operator=(InPlaceOpener&&) = delete;

  /// The first `there` of the bytes have been put there. Opens what that completes; a failure shows in finish().
  void advance(std::uint64_t there);
  /// The sealed bytes are put there once more, from the first on.
  void restart();
  /// ok when every segment was opened: the first `plain` bytes are the block then, what is behind them is of no use.
  [[nodiscard]] Status finish();

 private:
  InPlaceOpener(BlockOpener opener, std::span<std::byte> bytes) : opener_(std::move(opener)), bytes_(bytes) {}

  BlockOpener opener_;
  std::span<std::byte> bytes_;  // none once they are the caller's
  std::uint64_t next_ = 0;
  Status failed_;
};

/// A small thing that may change while the entry lives (a label), under the put's key: a random nonce, the ciphertext,
/// its tag. `purpose` is part of what it is tied to; a record opens under the purpose it was sealed for.
/// invalid_argument when it is too long.
[[nodiscard]] Result<std::vector<std::byte>> seal_record(const DataKey& key, const PutContext& put,
                                                         std::string_view purpose, std::span<const std::byte> plain);
/// corrupt when it does not authenticate.
[[nodiscard]] Result<std::vector<std::byte>> open_record(const DataKey& key, const PutContext& put,
                                                         std::string_view purpose, std::span<const std::byte> record);

}  // namespace finchkv::cache_store
