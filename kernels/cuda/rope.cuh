// Turning pairs by RoPE's tables (kernels/rope.h), eight dimensions a thread.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/ops.h"

namespace finchkv::kernels::cuda {

/// Eight dimensions of a row of d, a multiple of 16, in two groups of four: neighbours when pairs are neighbours, half
/// a row apart when they are not.
template <bool kInterleaved>
struct EightDims {
  int low, high;
  __device__ __forceinline__ EightDims(int part, int d)
      : low(kInterleaved ? part * 8 : part * 4), high(kInterleaved ? part * 8 + 4 : part * 4 + d / 2) {}

  template <typename T>
  __device__ __forceinline__ void load(const T* row, float (&x)[8]) const {
    if constexpr (kInterleaved) {
      load_f32(row + low, x);
    } else {
      float a[4], b[4];
      load_f32(row + low, a);
      load_f32(row + high, b);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        x[i] = a[i];
        x[4 + i] = b[i];
      }
    }
  }
  template <typename T>
  __device__ __forceinline__ void store(const float (&x)[8], T* row) const {
    if constexpr (kInterleaved) {
      store_f32(x, row + low);
    } else {
      const float a[4] = {x[0], x[1], x[2], x[3]}, b[4] = {x[4], x[5], x[6], x[7]};
      store_f32(a, row + low);
      store_f32(b, row + high);
    }
  }
};

/// What turns those eight dimensions to one position.
template <bool kInterleaved>
struct EightTurns {
  float cos[8], sin[8];
  __device__ __forceinline__ EightTurns(const RopeTableView& table, std::int64_t position,
                                        const EightDims<kInterleaved>& dims) {
    dims.load(table.cos + position * table.dims, cos);
    dims.load(table.sin + position * table.dims, sin);
  }
  __device__ __forceinline__ void turn(const float (&x)[8], float (&y)[8]) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) y[i] = turned(x[i], x[kInterleaved ? i ^ 1 : i ^ 4], cos[i], sin[i]);
  }
};

}  // namespace finchkv::kernels::cuda
