#include "model/dequant.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include <fmt/format.h>

#include "base/dtype.h"
#include "model/dequant_blocks.h"
#include "model/gguf_value.h"

namespace finchkv::model {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF's blocks are read in place, little-endian");

using blocks::load_f16;
using Expand = void (*)(const std::uint8_t* in, std::uint64_t n_blocks, float* out);

constexpr int kHalf = 16;  // the types below have 32 elements: low nibbles are the first half, high ones the second

void f32(const std::uint8_t* in, std::uint64_t n, float* out) { std::memcpy(out, in, n * sizeof(float)); }

/// 16-bit elements may stand at odd addresses, so they pass through an aligned buffer.
template <DType kFrom>
void words(const std::uint8_t* in, std::uint64_t n, float* out) {
  constexpr std::uint64_t kChunk = 1024;
  alignas(64) std::uint16_t buffer[kChunk];
  for (std::uint64_t i = 0; i < n; i += kChunk) {
    const std::uint64_t count = std::min(kChunk, n - i);
    std::memcpy(buffer, in + i * 2, count * 2);
    convert_to_f32(kFrom, buffer, out + i, count);
  }
}

// f16 d, 16 bytes of nibbles
void q4_0(const std::uint8_t* in, std::uint64_t n, float* out) {
  for (; n > 0; --n, in += 18, out += 32) {
    const float d = load_f16(in);
    const std::uint8_t* q = in + 2;
    for (int j = 0; j < kHalf; ++j) {
      out[j] = static_cast<float>((q[j] & 15) - 8) * d;
      out[j + kHalf] = static_cast<float>((q[j] >> 4) - 8) * d;
    }
  }
}

// f16 d, f16 m, 16 bytes of nibbles
void q4_1(const std::uint8_t* in, std::uint64_t n, float* out) {
  for (; n > 0; --n, in += 20, out += 32) {
    const float d = load_f16(in);
    const float m = load_f16(in + 2);
    const std::uint8_t* q = in + 4;
    for (int j = 0; j < kHalf; ++j) {
      out[j] = static_cast<float>(q[j] & 15) * d + m;
      out[j + kHalf] = static_cast<float>(q[j] >> 4) * d + m;
    }
  }
}

/// The fifth bits of a Q5 block, element j's in bit j.
std::uint32_t load_fifth_bits(const std::uint8_t* at) {
  std::uint32_t v;
  std::memcpy(&v, at, sizeof(v));
  return v;
}

// f16 d, 32 fifth bits, 16 bytes of nibbles
void q5_0(const std::uint8_t* in, std::uint64_t n, float* out) {
  for (; n > 0; --n, in += 22, out += 32) {
    const float d = load_f16(in);
    const std::uint32_t high = load_fifth_bits(in + 2);
    const std::uint8_t* q = in + 6;
    for (int j = 0; j < kHalf; ++j) {
      const int low_half = (q[j] & 15) | static_cast<int>((high >> j & 1U) << 4);
      const int high_half = (q[j] >> 4) | static_cast<int>((high >> (j + kHalf) & 1U) << 4);
      out[j] = static_cast<float>(low_half - 16) * d;
      out[j + kHalf] = static_cast<float>(high_half - 16) * d;
    }
  }
}

// f16 d, f16 m, 32 fifth bits, 16 bytes of nibbles
void q5_1(const std::uint8_t* in, std::uint64_t n, float* out) {
  for (; n > 0; --n, in += 24, out += 32) {
    const float d = load_f16(in);
    const float m = load_f16(in + 2);
    const std::uint32_t high = load_fifth_bits(in + 4);
    const std::uint8_t* q = in + 8;
    for (int j = 0; j < kHalf; ++j) {
      const int low_half = (q[j] & 15) | static_cast<int>((high >> j & 1U) << 4);
      const int high_half = (q[j] >> 4) | static_cast<int>((high >> (j + kHalf) & 1U) << 4);
      out[j] = static_cast<float>(low_half) * d + m;
      out[j + kHalf] = static_cast<float>(high_half) * d + m;
    }
  }
}

// f16 d, 32 signed bytes
void q8_0(const std::uint8_t* in, std::uint64_t n, float* out) {
  for (; n > 0; --n, in += 34, out += 32) {
    const float d = load_f16(in);
    for (int j = 0; j < 2 * kHalf; ++j) out[j] = static_cast<float>(static_cast<std::int8_t>(in[2 + j])) * d;
  }
}

// f16 d, 16 bytes of nibbles that number levels
void iq4_nl(const std::uint8_t* in, std::uint64_t n, float* out) {
  for (; n > 0; --n, in += 18, out += 32) {
    const float d = load_f16(in);
    const std::uint8_t* q = in + 2;
    for (std::size_t j = 0; j < kHalf; ++j) {
      out[j] = d * static_cast<float>(blocks::kIq4Levels[q[j] & 15U]);
      out[j + kHalf] = d * static_cast<float>(blocks::kIq4Levels[q[j] >> 4]);
    }
  }
}

Expand expander(GgmlType type) {
  switch (type) {
    case GgmlType::kF32: return f32;
    case GgmlType::kF16: return words<DType::kF16>;
    case GgmlType::kBF16: return words<DType::kBF16>;
    case GgmlType::kQ4_0: return q4_0;
    case GgmlType::kQ4_1: return q4_1;
    case GgmlType::kQ5_0: return q5_0;
    case GgmlType::kQ5_1: return q5_1;
    case GgmlType::kQ8_0: return q8_0;
    case GgmlType::kQ2_K: return blocks::q2_k;
    case GgmlType::kQ3_K: return blocks::q3_k;
    case GgmlType::kQ4_K: return blocks::q4_k;
    case GgmlType::kQ5_K: return blocks::q5_k;
    case GgmlType::kQ6_K: return blocks::q6_k;
    case GgmlType::kIQ4_NL: return iq4_nl;
    case GgmlType::kIQ4_XS: return blocks::iq4_xs;
    case GgmlType::kQ8_1:
    case GgmlType::kQ8_K: return nullptr;  // ggml's formats for activations: no file should hold them
  }
  return nullptr;
}

}  // namespace

Status dequantize_rows(const GgufTensor& tensor, std::uint64_t first_row, std::uint64_t n_rows, std::span<float> out) {
  const Expand expand = expander(tensor.type);
  const GgmlBlock block = ggml_block(tensor.type);
  if (expand == nullptr || block.elements == 0) {
    return Status::unsupported(fmt::format("tensor {} has the type {}, which cannot be read; requantise the model",
                                           quoted(tensor.name),
                                           ggml_type_name(static_cast<std::uint32_t>(tensor.type))));
  }
  const std::uint64_t rows = tensor.rows();
  const std::uint64_t blocks_per_row = tensor.row_length() / block.elements;
  if (first_row > rows || n_rows > rows - first_row) {
    return Status::invalid_argument(fmt::format("tensor {} has {} rows; {} rows from row {} on were asked for",
                                                quoted(tensor.name), rows, n_rows, first_row));
  }
  if (tensor.row_length() % block.elements != 0 || tensor.data.size() / block.bytes != rows * blocks_per_row) {
    return Status::invalid_argument(fmt::format("tensor {} holds {} bytes, which are not {} rows of {} elements of {}",
                                                quoted(tensor.name), tensor.data.size(), rows, tensor.row_length(),
                                                ggml_type_name(static_cast<std::uint32_t>(tensor.type))));
  }
  if (out.size() != n_rows * tensor.row_length()) {
    return Status::invalid_argument(fmt::format("{} rows of tensor {} are {} values; there is room for {}", n_rows,
                                                quoted(tensor.name), n_rows * tensor.row_length(), out.size()));
  }
  if (n_rows == 0) return Status::ok();
  const auto* in = reinterpret_cast<const std::uint8_t*>(tensor.data.data());
  expand(in + first_row * blocks_per_row * block.bytes, n_rows * blocks_per_row, out.data());
  return Status::ok();
}

}  // namespace finchkv::model
