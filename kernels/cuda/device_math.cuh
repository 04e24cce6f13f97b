// Small pieces that several kernels share: conversions, vector loads, sums over a warp or a block.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/tensor.h"

namespace finchkv::kernels::cuda {

using Bf16 = __nv_bfloat16;

__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(Bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_f32(__half x) { return __half2float(x); }
template <typename T>
__device__ __forceinline__ T from_f32(float x);
template <>
__device__ __forceinline__ float from_f32<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ Bf16 from_f32<Bf16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half from_f32<__half>(float x) {
  return __float2half_rn(x);
}

/// One dimension of a rotated pair; tables hold every dimension, and the first of a pair has its sine negated.
__device__ __forceinline__ float turned(float x, float partner, float cos, float sin) {
  return __fmaf_rn(x, cos, partner * sin);
}

/// N elements that travel in one or two accesses of 16 bytes.
template <typename T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T at[N];
};

template <typename T, int N>
__device__ __forceinline__ void load_f32(const T* from, float (&to)[N]) {
  const auto pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = to_f32(pack.at[i]);
}
template <typename T, int N>
__device__ __forceinline__ void store_f32(const float (&from)[N], T* to) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.at[i] = from_f32<T>(from[i]);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

/// The sum over the warp's lanes, in every lane; the order is fixed.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffU, x, step);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, step));
  return x;
}

/// a / b of numbers that are not negative: in 32 bits where they fit, which is several times faster.
__device__ __forceinline__ std::int64_t quotient(std::int64_t a, std::int64_t b) {
  if (((a | b) >> 32) == 0) return static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b);
  return a / b;
}

/// One-dimensional launches: an item a thread.
inline constexpr int kItemThreads = 256;
inline unsigned item_blocks(std::int64_t items) {
  return static_cast<unsigned>((items + kItemThreads - 1) / kItemThreads);
}
__device__ __forceinline__ std::int64_t item_index() {
  return static_cast<std::int64_t>(blockIdx.x) * kItemThreads + threadIdx.x;
}

/// A view as a kernel takes it: strides of the first two of three dimensions, the last dense.
template <typename T>
struct View3 {
  T* data;
  std::int64_t stride0, stride1;
  __device__ __forceinline__ T* row(std::int64_t i, std::int64_t j) const { return data + i * stride0 + j * stride1; }
};

template <typename T>
View3<T> view3(const Tensor& t) {
  return {t.data<T>(), t.stride(0), t.stride(1)};
}

inline Tensor as_rank3(const Tensor& t) { return t.rank() == 3 ? t : t.split_last(1, t.dim(t.rank() - 1)); }

/// Whether every row starts on 16 bytes: what 16-byte accesses need.
inline bool rows_aligned(const Tensor& t) {
  const auto size = static_cast<std::int64_t>(element_size(t.type()));
  return reinterpret_cast<std::uintptr_t>(t.data()) % 16 == 0 && t.stride(0) * size % 16 == 0 &&
         (t.rank() < 3 || t.stride(1) * size % 16 == 0);
}

}  // namespace finchkv::kernels::cuda
