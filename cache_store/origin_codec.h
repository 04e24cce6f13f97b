// Origins as stored bytes, and back: rows of ascending document positions, their gaps packed in as few bits as the
// largest gap of 64 needs (docs/formats.md has the bytes).
//
// A set that keeps everything takes one byte for 64 origins; one that keeps every 16th at random about 0.9 bytes an
// origin; no set of a document of up to 2^20 tokens more than 2.52 bytes an origin in whole blocks of 64: under 1 % of
// the keys and values of one head with 64 channels in bf16 (256 bytes).
// There is one encoding of a set: what decodes, encodes to the same bytes. Decoding is made for hostile bytes.
// Pure functions on memory of the caller, thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace finchkv::cache_store {

/// The sizes that `rows` rows of `per_row` origins below `limit` can have, for checks before memory is taken.
/// The product of rows and per_row must be below 2^58.
struct OriginBytes {
  std::uint64_t least = 0;
  std::uint64_t most = 0;
};
[[nodiscard]] OriginBytes origin_bytes(std::uint64_t rows, std::uint64_t per_row, std::uint64_t limit);

/// `origins` is [rows, n], strictly ascending in each row and below `limit`; else invalid_argument, saying where.
[[nodiscard]] Result<std::vector<std::byte>> encode_origins(std::span<const std::uint32_t> origins, std::uint32_t rows,
                                                            std::uint64_t limit);

/// The inverse; the caller knows how many origins there are. corrupt unless `stored` is exactly what encode_origins
/// makes of such rows; `origins` is then in part written.
[[nodiscard]] Status decode_origins(std::span<const std::byte> stored, std::uint32_t rows, std::uint64_t limit,
                                    std::span<std::uint32_t> origins);

}  // namespace finchkv::cache_store
