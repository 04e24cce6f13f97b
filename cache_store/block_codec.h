// One layer's tensors as stored bytes, and back: the part of the codec that knows the storage dtypes.
//
// Internal to cache_store. Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/kvset.h"
#include "base/status.h"
#include "cache_store/codec.h"

namespace finchkv::cache_store {

/// Bytes of the keys or values of n entries; nullopt when that is more than a block may hold.
[[nodiscard]] std::optional<std::uint64_t> stored_tensor_bytes(DType storage, BlockKind kind, const KvShape& shape,
                                                               std::uint32_t n_kept);
[[nodiscard]] std::optional<std::uint64_t> raw_tensor_bytes(DType dtype, const KvShape& shape, std::uint32_t n_kept);

/// Encodes keys or values of `dtype` as `storage`. The block views `tensor` itself where nothing has to change.
[[nodiscard]] Result<Block> encode_tensor(std::span<const std::byte> tensor, DType dtype, DType storage, BlockKind kind,
                                          const KvShape& shape, std::uint32_t n_kept);

/// `stored` and `out` have the sizes of the two functions above.
[[nodiscard]] Status decode_tensor(std::span<const std::byte> stored, DType storage, BlockKind kind,
                                   const KvShape& shape, std::uint32_t n_kept, DType decoded, std::span<std::byte> out);
/// Whether decode_tensor() would take it.
[[nodiscard]] Status check_tensor(std::span<const std::byte> stored, DType storage, BlockKind kind,
                                  const KvShape& shape, std::uint32_t n_kept);

}  // namespace finchkv::cache_store
