// Products of 64 x 64 rows in f32 by a block of 256 threads: what attention and the score pass do where the tensor
// cores are not for them. Thread (tx, ty) of 16 x 16 has rows 4 ty to 4 ty + 3 against columns tx, tx + 16, tx + 32, tx
// + 48; every sum goes through the dimensions in order.
#pragma once

#include "kernels/cuda/device_math.cuh"

namespace finchkv::kernels::cuda {

inline constexpr int kTileRows = 64;
inline constexpr int kTileThreads = 256;

/// Rows [first, first + 64) of a strided matrix as f32; zero past `rows` and past dimension d.
template <typename T, int kDim, int kStride>
__device__ __forceinline__ void load_rows(const T* __restrict__ from, std::int64_t stride, std::int64_t first,
                                          std::int64_t rows, int d, float (*to)[kStride]) {
  for (int item = static_cast<int>(threadIdx.x); item < kTileRows * kDim; item += kTileThreads) {
    const int r = item / kDim, c = item % kDim;
    to[r][c] = first + r < rows && c < d ? to_f32(from[(first + r) * stride + c]) : 0.0F;
  }
}

/// product[i][j] = row 4 ty + i of a times row tx + 16 j of b, over kDim dimensions.
template <int kDim, int kStride>
__device__ __forceinline__ void multiply_rows(const float (*a)[kStride], const float (*b)[kStride], int tx, int ty,
                                              float (&product)[4][4]) {
#pragma unroll
  for (auto& row : product) {
#pragma unroll
    for (float& x : row) x = 0;
  }
  for (int c = 0; c < kDim; c += 4) {
    float4 left[4], right[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) left[i] = *reinterpret_cast<const float4*>(&a[ty * 4 + i][c]);
#pragma unroll
    for (int j = 0; j < 4; ++j) right[j] = *reinterpret_cast<const float4*>(&b[tx + 16 * j][c]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float x = product[i][j];
        x = __fmaf_rn(left[i].x, right[j].x, x);
        x = __fmaf_rn(left[i].y, right[j].y, x);
        x = __fmaf_rn(left[i].z, right[j].z, x);
        product[i][j] = __fmaf_rn(left[i].w, right[j].w, x);
      }
    }
  }
}

}  // namespace finchkv::kernels::cuda
