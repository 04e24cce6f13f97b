// Rows to 8 bits (e4m3) with one scale a row, for weights (a row is an output channel) and activations (a token).
//
// q = x / s, s = max|x| / 448 (kernels/e4m3.h is the same on a CPU). Bytes: x twice (the second time from L2), q once:
// 2 + 1 a value for bf16. A block a row.
#include <cuda_fp8.h>

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/e4m3.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWide = 8;

template <typename T>
__global__ void __launch_bounds__(kThreads) quantise_kernel(const T* __restrict__ x, std::int64_t stride, int width,
                                                            std::uint8_t* __restrict__ q, float* __restrict__ scales) {
  const T* from = x + blockIdx.x * stride;
  std::uint8_t* to = q + static_cast<std::int64_t>(blockIdx.x) * width;
  float most = 0;
  for (int at = static_cast<int>(threadIdx.x) * kWide; at < width; at += kThreads * kWide) {
    float values[kWide];
    load_f32(from + at, values);
#pragma unroll
    for (int i = 0; i < kWide; ++i) most = fmaxf(most, fabsf(values[i]));
  }
  __shared__ float partial[kThreads / 32];
  most = warp_max(most);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = most;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) most = fmaxf(most, partial[i]);
  const float scale = most > kNoE4m3Row ? most / kLargestE4m3 : 1.0F;
  const float inverse = 1.0F / scale;
  if (threadIdx.x == 0) scales[blockIdx.x] = scale;
  for (int at = static_cast<int>(threadIdx.x) * kWide; at < width; at += kThreads * kWide) {
    float values[kWide];
    load_f32(from + at, values);
    Pack<std::uint8_t, kWide> pack;
#pragma unroll
    for (int i = 0; i < kWide; i += 2) {
      const auto both = __nv_cvt_float2_to_fp8x2(make_float2(values[i] * inverse, values[i + 1] * inverse),
                                                 __NV_SATFINITE, __NV_E4M3);
      pack.at[i] = static_cast<std::uint8_t>(both & 0xffU);
      pack.at[i + 1] = static_cast<std::uint8_t>(both >> 8);
    }
    *reinterpret_cast<Pack<std::uint8_t, kWide>*>(to + at) = pack;
  }
}

}  // namespace

bool quantise_rows_takes(const Tensor& x) { return x.dim(1) % 16 == 0 && rows_aligned(x); }

void quantise_rows(Runtime& rt, const Tensor& x, std::uint8_t* q, float* scales) {
  const auto rows = static_cast<unsigned>(x.dim(0));
  const int width = static_cast<int>(x.dim(1));
  if (rows == 0) return;
  if (x.type() == ElementType::kBF16)
    quantise_kernel<Bf16><<<rows, kThreads, 0, rt.stream()>>>(x.data<Bf16>(), x.stride(0), width, q, scales);
  else
    quantise_kernel<float><<<rows, kThreads, 0, rt.stream()>>>(x.data<float>(), x.stride(0), width, q, scales);
  rt.launched("rounding to 8 bits");
}

}  // namespace finchkv::kernels::cuda
