// y = x W^T (+ y) in true f32, for the reference class.
//
// Bound by arithmetic: 2 n in out FLOPs on the FMA pipes. Every result is one chain of fused multiply-adds over k in
// ascending order, whatever n is and wherever the row lies in its tile, so a row's bytes never depend on its company.
// That is why no library product is used here: libraries choose the split of k by shape.
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/ops.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kTile = 128;  // rows and columns of a block
constexpr int kDepth = 16;  // k per step
constexpr int kThreads = 256;
constexpr int kPad = 4;

// Loads a [kTile, kDepth] piece of a row-major matrix, transposed to [kDepth][kTile]; zero past its ends.
__device__ __forceinline__ void load_tile(const float* __restrict__ from, std::int64_t stride, std::int64_t first,
                                          std::int64_t rows, std::int64_t k0, std::int64_t depth,
                                          float (*to)[kTile + kPad]) {
#pragma unroll
  for (int i = 0; i < kTile * kDepth / kThreads; ++i) {
    const int item = i * kThreads + static_cast<int>(threadIdx.x);
    const int k = item % kDepth, r = item / kDepth;
    const bool inside = first + r < rows && k0 + k < depth;
    to[k][r] = inside ? from[(first + r) * stride + k0 + k] : 0.0F;
  }
}

__global__ void __launch_bounds__(kThreads)
    gemm_kernel(const float* __restrict__ x, const float* __restrict__ w, float* __restrict__ y, std::int64_t n,
                std::int64_t out, std::int64_t in, std::int64_t x_stride, std::int64_t y_stride, bool accumulate) {
  __shared__ float xs[kDepth][kTile + kPad];
  __shared__ float ws[kDepth][kTile + kPad];
  const std::int64_t row0 = static_cast<std::int64_t>(blockIdx.y) * kTile;
  const std::int64_t col0 = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const int tx = static_cast<int>(threadIdx.x % 16), ty = static_cast<int>(threadIdx.x / 16);
  float sum[8][8] = {};
  for (std::int64_t k0 = 0; k0 < in; k0 += kDepth) {
    load_tile(x, x_stride, row0, n, k0, in, xs);
    load_tile(w, in, col0, out, k0, in, ws);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      float a[8], b[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) a[i] = xs[k][ty * 4 + i % 4 + i / 4 * 64];
#pragma unroll
      for (int j = 0; j < 8; ++j) b[j] = ws[k][tx * 4 + j % 4 + j / 4 * 64];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[i][j] = __fmaf_rn(a[i], b[j], sum[i][j]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const std::int64_t row = row0 + ty * 4 + i % 4 + i / 4 * 64;
    if (row >= n) continue;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const std::int64_t col = col0 + tx * 4 + j % 4 + j / 4 * 64;
      if (col >= out) continue;
      float* to = y + row * y_stride + col;
      *to = accumulate ? *to + sum[i][j] : sum[i][j];
    }
  }
}

}  // namespace

void gemm_f32(Runtime& rt, const Tensor& x, const Tensor& w, const Tensor& y, bool accumulate) {
  const std::int64_t n = x.dim(0), out = w.dim(0), in = w.dim(1);
  if (n == 0) return;
  const dim3 grid(static_cast<unsigned>((out + kTile - 1) / kTile), static_cast<unsigned>((n + kTile - 1) / kTile));
  gemm_kernel<<<grid, kThreads, 0, rt.stream()>>>(x.data<float>(), w.data<float>(), y.data<float>(), n, out, in,
                                                  x.stride(0), y.stride(0), accumulate);
  rt.launched("an f32 product");
}

}  // namespace finchkv::kernels::cuda
