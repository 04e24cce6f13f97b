// Numbers of llama.cpp's sequence states that writing and reading share, and the turning of [heads, n, head_dim] into
// rows of cells and back. Internal to cache_store.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

#include "base/dtype.h"

namespace finchkv::cache_store {

inline constexpr std::uint32_t kLlamaDataMagic = 0xaf143cd8;  // io_magic of llama-context.cpp
inline constexpr std::uint32_t kLlamaFileMagicNumber = 0x67677371;
inline constexpr std::uint32_t kLlamaFileVersion = 3;
/// llama-server's list of tokens begins with a number that is no token's, and its own version (server-common.cpp,
/// server_tokens::serialize); it takes a plain list too.
inline constexpr std::int32_t kLlamaServerMark = -1;
inline constexpr std::uint32_t kLlamaServerVersion = 1;
inline constexpr std::uint32_t kLlamaMostStreams = 256;  // LLAMA_MAX_SEQ
inline constexpr std::uint64_t kLlamaMostPosition = 0x7ffffffe;
inline constexpr std::size_t kLlamaCellBytes = 12;  // position, number of sequences (1), the sequence

/// ggml's number of an element type (ggml.h, enum ggml_type).
[[nodiscard]] constexpr std::int32_t ggml_type_of(DType dtype) {
  switch (dtype) {
    case DType::kF16: return 1;
    case DType::kBF16: return 30;
    default: return 0;
  }
}
[[nodiscard]] constexpr std::optional<DType> dtype_of_ggml(std::int32_t type) {
  for (const DType d : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (ggml_type_of(d) == type) return d;
  }
  return std::nullopt;
}

/// Where the element (head, entry, dimension) of a [heads, n, head_dim] tensor lies among a layer's cells: in rows of
/// one cell, [n, heads * head_dim], or transposed, [heads * head_dim, n].
struct CellLayout {
  std::size_t heads = 0, n = 0, dim = 0, element_bytes = 0;
  bool transposed = false;

  [[nodiscard]] std::size_t bytes() const { return heads * n * dim * element_bytes; }

  /// Calls move(at in the tensor, at in the cells, bytes) for every piece that lies together in both.
  /// `cell_of(i)`: the cell that entry i is in.
  template <typename CellOf, typename Move>
  void each(const CellOf& cell_of, const Move& move) const {
    const std::size_t run = (transposed ? 1 : dim) * element_bytes;
    for (std::size_t h = 0; h < heads; ++h) {
      for (std::size_t i = 0; i < n; ++i) {
        const std::size_t from = (h * n + i) * dim * element_bytes;
        const std::size_t cell = cell_of(i);
        if (!transposed) {
          move(from, (cell * heads + h) * dim * element_bytes, run);
          continue;
        }
        for (std::size_t d = 0; d < dim; ++d) {
          move(from + d * element_bytes, ((h * dim + d) * n + cell) * element_bytes, run);
        }
      }
    }
  }
};

}  // namespace finchkv::cache_store
