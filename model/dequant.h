// Dequantising ggml tensor types to f32.
//
// Layouts: ggml's ggml-quants (block_q4_0 ... block_iq4_xs). Results equal ggml's own dequantize_row_* bit for bit
// (products and sums in f32 in its order). Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/status.h"
#include "model/gguf.h"

namespace finchkv::model {

struct GgmlBlock {
  std::uint32_t elements = 0;  ///< per block; 1 for plain types
  std::uint32_t bytes = 0;
};

/// The block of a type; elements = 0 when its size is not known here. Q8_1 and Q8_K have a size but cannot be expanded.
[[nodiscard]] GgmlBlock ggml_block(GgmlType type);

/// Expands rows [first_row, first_row + n_rows) of the tensor to out, f32 [n_rows, row_length].
/// unsupported (type, by name), invalid_argument (rows beyond the tensor, `out` of another size, `data` that does not
/// fill `dims`).
[[nodiscard]] Status dequantize_rows(const GgufTensor& tensor, std::uint64_t first_row, std::uint64_t n_rows,
                                     std::span<float> out);

}  // namespace finchkv::model
