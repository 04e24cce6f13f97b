// Stored keys and values to a cache's: q8, q4, f16, bf16 or f32 (base/quantised.h) to the type of keys and values, keys
// rotated to their places on the way. What an element is comes from the layout alone:
//   q8: quant * scale    q4: minimum + quant * scale    (then rounded to bf16 where the set decodes to that)
// Quants have at most 8 bits and scales 11, so products are exact and one rounding is left, as on the host.
//
// Bytes: what is stored once, y once; the rotation's tables stay in L2 over the heads. A thread makes eight dimensions.
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/rope.cuh"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kGroup = 64;

__device__ __forceinline__ float f16_at(const std::uint8_t* at) {  // tiles begin anywhere
  return __half2float(__ushort_as_half(static_cast<unsigned short>(at[0] | at[1] << 8)));
}

/// Elements as they are. `row` is the entry's place over all heads.
template <typename T>
struct PlainEntries {
  const std::uint8_t* data;
  std::int64_t tokens;
  int channels;

  __device__ __forceinline__ const T* row(std::int64_t head, std::int64_t token) const {
    return reinterpret_cast<const T*>(data) + (head * tokens + token) * channels;
  }
  __device__ __forceinline__ float at(std::int64_t head, std::int64_t token, int channel) const {
    return to_f32(row(head, token)[channel]);
  }
  __device__ __forceinline__ void four(std::int64_t head, std::int64_t token, int channel, float (&to)[4]) const {
    load_f32(row(head, token) + channel, to);
  }
};

/// Bits a quant; tiles of 64 tokens with a group a channel (keys), or of one token with a group of 64 channels.
template <int kBits, bool kKeys>
struct QuantisedEntries {
  const std::uint8_t* data;
  std::int64_t head_bytes;
  int channels;
  bool to_bf16;

  __device__ __forceinline__ float at(std::int64_t head, std::int64_t token, int channel) const {
    constexpr int kHeader = kBits == 8 ? 2 : 4;
    const int groups = kKeys ? channels : (channels + kGroup - 1) / kGroup;
    const int row_bytes = kBits == 8 || kKeys ? channels : (channels + 1) / 2;
    const int rows = kKeys ? (kBits == 8 ? kGroup : kGroup / 2) : 1;
    const std::int64_t tile = kKeys ? token / kGroup : token;
    const int in_tile = kKeys ? static_cast<int>(token % kGroup) : 0;
    const std::uint8_t* base =
        data + head * head_bytes + tile * (groups * kHeader + static_cast<std::int64_t>(rows) * row_bytes);
    const int group = kKeys ? channel : channel / kGroup;
    const float scale = f16_at(base + group * 2);
    const std::uint8_t* quants = base + groups * kHeader;
    float x = 0;
    if constexpr (kBits == 8) {
      x = static_cast<float>(static_cast<std::int8_t>(quants[in_tile * row_bytes + channel])) * scale;
    } else {
      const float minimum = f16_at(base + (groups + group) * 2);
      const int pair = quants[kKeys ? in_tile / 2 * row_bytes + channel : channel / 2];
      const int quant = (kKeys ? in_tile : channel) % 2 == 0 ? pair & 15 : pair >> 4;
      x = __fmaf_rn(static_cast<float>(quant), scale, minimum);
    }
    return to_bf16 ? to_f32(from_f32<Bf16>(x)) : x;
  }
  __device__ __forceinline__ void four(std::int64_t head, std::int64_t token, int channel, float (&to)[4]) const {
#pragma unroll
    for (int k = 0; k < 4; ++k) to[k] = at(head, token, channel + k);
  }
};

template <typename Entries, typename To>
__global__ void __launch_bounds__(kThreads)
    expand_any(Entries from, View3<To> y, RopeTableView table, std::int64_t first_position, std::int64_t items,
               std::int64_t tokens, int d) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= items) return;
  const std::int64_t line = quotient(i, d), head = quotient(line, tokens), token = line - head * tokens;
  const int at = static_cast<int>(i - line * d), dims = static_cast<int>(table.dims);
  float value = from.at(head, token, at);
  if (at < dims) {
    const int partner = table.interleaved ? at ^ 1 : (at < dims / 2 ? at + dims / 2 : at - dims / 2);
    const std::int64_t entry = (first_position + token) * dims + at;
    value = turned(value, from.at(head, token, partner), table.cos[entry], table.sin[entry]);
  }
  y.row(head, token)[at] = from_f32<To>(value);
}

// No dimension rotates or all do, d a multiple of 16, rows on 16 bytes.
template <typename Entries, typename To>
__global__ void __launch_bounds__(kThreads)
    expand_aligned(Entries from, View3<To> y, RopeTableView table, std::int64_t first_position, std::int64_t items,
                   std::int64_t tokens, int d) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= items) return;
  const int eighths = d / 8;
  const std::int64_t line = quotient(i, eighths), head = quotient(line, tokens), token = line - head * tokens;
  const int part = static_cast<int>(i - line * eighths);
  const bool together = table.dims == 0 || table.interleaved;  // else pairs are half a row apart
  const int low = together ? part * 8 : part * 4;
  const int high = together ? low + 4 : low + d / 2;
  float a[4], b[4];
  from.four(head, token, low, a);
  from.four(head, token, high, b);
  if (table.dims != 0) {
    const float* cos = table.cos + (first_position + token) * d;
    const float* sin = table.sin + (first_position + token) * d;
    float cos_a[4], cos_b[4], sin_a[4], sin_b[4], out_a[4], out_b[4];
    load_f32(cos + low, cos_a);
    load_f32(cos + high, cos_b);
    load_f32(sin + low, sin_a);
    load_f32(sin + high, sin_b);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      out_a[k] = turned(a[k], table.interleaved ? a[k ^ 1] : b[k], cos_a[k], sin_a[k]);
      out_b[k] = turned(b[k], table.interleaved ? b[k ^ 1] : a[k], cos_b[k], sin_b[k]);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      a[k] = out_a[k];
      b[k] = out_b[k];
    }
  }
  To* to = y.row(head, token);
  store_f32(a, to + low);
  store_f32(b, to + high);
}

template <typename To, typename Entries>
void launch(Runtime& rt, const Entries& from, const RopeTableView& table, std::int64_t first_position,
            const Tensor& y) {
  const std::int64_t rows = y.dim(0) * y.dim(1);
  const int d = static_cast<int>(y.dim(2));
  const bool aligned = d % 16 == 0 && (table.dims == 0 || table.dims == d) && rows_aligned(y);
  const std::int64_t items = rows * (aligned ? d / 8 : d);
  const auto blocks = static_cast<unsigned>((items + kThreads - 1) / kThreads);
  const auto kernel = aligned ? expand_aligned<Entries, To> : expand_any<Entries, To>;
  kernel<<<blocks, kThreads, 0, rt.stream()>>>(from, view3<To>(y), table, first_position, items, y.dim(1), d);
  rt.launched("expanding stored entries");
}

template <typename To>
void expand_to(Runtime& rt, const StoredView& from, const RopeTableView& table, std::int64_t first, const Tensor& y) {
  const std::int64_t n = y.dim(1), bytes = from.head_bytes;
  const int d = static_cast<int>(y.dim(2));
  const bool keys = from.axis == GroupAxis::kTokens, to_bf16 = from.to_bf16;
  const std::uint8_t* data = from.data;
  switch (from.layout) {
    case DType::kF32: return launch<To>(rt, PlainEntries<float>{data, n, d}, table, first, y);
    case DType::kF16: return launch<To>(rt, PlainEntries<__half>{data, n, d}, table, first, y);
    case DType::kBF16: return launch<To>(rt, PlainEntries<Bf16>{data, n, d}, table, first, y);
    case DType::kQ8:
      if (keys) return launch<To>(rt, QuantisedEntries<8, true>{data, bytes, d, to_bf16}, table, first, y);
      return launch<To>(rt, QuantisedEntries<8, false>{data, bytes, d, to_bf16}, table, first, y);
    case DType::kQ4:
      if (keys) return launch<To>(rt, QuantisedEntries<4, true>{data, bytes, d, to_bf16}, table, first, y);
      return launch<To>(rt, QuantisedEntries<4, false>{data, bytes, d, to_bf16}, table, first, y);
  }
}

}  // namespace

void expand(Runtime& rt, const StoredView& from, const RopeTableView& table, std::int64_t first_position,
            const Tensor& y) {
  if (y.elements() == 0) return;
  if (y.type() == ElementType::kBF16) return expand_to<Bf16>(rt, from, table, first_position, y);
  if (y.type() == ElementType::kF16) return expand_to<__half>(rt, from, table, first_position, y);
  expand_to<float>(rt, from, table, first_position, y);
}

}  // namespace finchkv::kernels::cuda
