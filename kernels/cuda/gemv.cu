// A few rows of bf16 against W [out, in]: decoding. Bytes: W once, 2 in out (1 in 8 bits); everything else is small.
//
// One warp an output (two when gated: gate and up together, so their product needs no second pass), 16 bytes a lane
// and load, four loads in flight. Lanes add up in a fixed order.
#include <cuda_fp8.h>

#include <type_traits>

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/ops.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kWarps = 8;

// What a lane loads of W at once: 16 bytes.
template <typename T>
constexpr int kWide = 16 / static_cast<int>(sizeof(T));

using E4m3 = std::uint8_t;

__device__ __forceinline__ void load_weights(const Bf16* from, float (&to)[8]) { load_f32(from, to); }
__device__ __forceinline__ void load_weights(const E4m3* from, float (&to)[16]) {
  const auto pack = *reinterpret_cast<const Pack<std::uint16_t, 8>*>(from);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const __half2 both(__nv_cvt_fp8x2_to_halfraw2(pack.at[i], __NV_E4M3));
    const float2 wide = __half22float2(both);
    to[2 * i] = wide.x;
    to[2 * i + 1] = wide.y;
  }
}

template <typename T, int kRows>
__device__ __forceinline__ void dot_rows(const T* __restrict__ w, const Bf16* __restrict__ x, std::int64_t in,
                                         std::int64_t x_stride, int lane, float (&sum)[kRows]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) sum[r] = 0;
#pragma unroll 4
  for (std::int64_t at = lane * kWide<T>; at < in; at += 32 * kWide<T>) {
    float weights[kWide<T>];
    load_weights(w + at, weights);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int part = 0; part < kWide<T>; part += 8) {
        float values[8];
        load_f32(x + r * x_stride + at + part, values);
#pragma unroll
        for (int k = 0; k < 8; ++k) sum[r] = __fmaf_rn(weights[part + k], values[k], sum[r]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) sum[r] = warp_sum(sum[r]);
}

template <typename T, int kRows>
__global__ void __launch_bounds__(kWarps * 32)
    gemv_kernel(const Bf16* __restrict__ x, const T* __restrict__ w, const float* __restrict__ scales,
                float* __restrict__ y, std::int64_t out, std::int64_t in, std::int64_t x_stride, std::int64_t y_stride,
                bool accumulate) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (column >= out) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  float sum[kRows];
  dot_rows(w + column * in, x, in, x_stride, lane, sum);
  if (lane != 0) return;
  const float scale = scales == nullptr ? 1.0F : scales[column];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    float* to = y + r * y_stride + column;
    *to = accumulate ? *to + sum[r] * scale : sum[r] * scale;
  }
}

template <typename T, int kRows>
__global__ void __launch_bounds__(kWarps * 32)
    gemv_swiglu_kernel(const Bf16* __restrict__ x, const T* __restrict__ w, const float* __restrict__ scales,
                       Bf16* __restrict__ y, std::int64_t ffn, std::int64_t in, std::int64_t x_stride,
                       std::int64_t y_stride) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (column >= ffn) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  float gate[kRows], up[kRows];
  dot_rows(w + column * in, x, in, x_stride, lane, gate);
  dot_rows(w + (ffn + column) * in, x, in, x_stride, lane, up);
  if (lane != 0) return;
  const float gate_scale = scales == nullptr ? 1.0F : scales[column];
  const float up_scale = scales == nullptr ? 1.0F : scales[ffn + column];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float g = gate[r] * gate_scale;
    y[r * y_stride + column] = from_f32<Bf16>(g / (1.0F + __expf(-g)) * (up[r] * up_scale));
  }
}

unsigned blocks_for(std::int64_t columns) { return static_cast<unsigned>((columns + kWarps - 1) / kWarps); }

// Calls use with the number of rows as a constant, and W's elements.
template <typename Use>
void with_rows(std::int64_t n, const WeightView& w, const Use& use) {
  const auto with_type = [&](auto rows) {
    if (w.scales == nullptr)
      use(rows, static_cast<const Bf16*>(w.data));
    else
      use(rows, static_cast<const E4m3*>(w.data));
  };
  switch (n) {
    case 1: return with_type(std::integral_constant<int, 1>());
    case 2: return with_type(std::integral_constant<int, 2>());
    case 3: return with_type(std::integral_constant<int, 3>());
    default: return with_type(std::integral_constant<int, 4>());
  }
}

}  // namespace

void gemv(Runtime& rt, const Tensor& x, const WeightView& w, const Tensor& y, bool accumulate) {
  with_rows(x.dim(0), w, [&](auto rows, const auto* data) {
    using T = std::remove_cvref_t<decltype(*data)>;
    gemv_kernel<T, decltype(rows)::value><<<blocks_for(w.out), kWarps * 32, 0, rt.stream()>>>(
        x.data<Bf16>(), data, w.scales, y.data<float>(), w.out, w.in, x.stride(0), y.stride(0), accumulate);
  });
  rt.launched("a product of few rows");
}

void gemv_swiglu(Runtime& rt, const Tensor& x, const WeightView& w, const Tensor& y) {
  const std::int64_t ffn = w.out / 2;
  with_rows(x.dim(0), w, [&](auto rows, const auto* data) {
    using T = std::remove_cvref_t<decltype(*data)>;
    gemv_swiglu_kernel<T, decltype(rows)::value><<<blocks_for(ffn), kWarps * 32, 0, rt.stream()>>>(
        x.data<Bf16>(), data, w.scales, y.data<Bf16>(), ffn, w.in, x.stride(0), y.stride(0));
  });
  rt.launched("a gated product of few rows");
}

}  // namespace finchkv::kernels::cuda
