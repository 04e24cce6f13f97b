// A few rows of bf16 against W [out, in] in bf16: decoding. Bytes: W once, 2 in out; everything else is small.
//
// On the tensor cores, with W as the left side: a piece of 16 outputs takes up to 32 rows of x at once, so one reading
// of W serves them all. A lane loads 16 bytes of two outputs, eight values along k; which of the products' k a value
// takes is free as long as x goes the same way, so no shuffling is needed. The warps of a block share k out among them
// and add up in a fixed order; a row's sum has the same order whatever the number of rows. The first loads of W are
// under way before the kernel that makes x has ended.
#include <cstdlib>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/tensor_core.cuh"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kTile = 16;  // outputs of a piece
constexpr int kStep = 32;  // of k, that a warp loads at once

struct Args {
  const Bf16* x;
  const Bf16* w;
  void* y;
  std::int64_t n, out, in, x_stride, y_stride;
  bool accumulate;
};

__device__ __forceinline__ uint4 load_once(const Bf16* from) {
  uint4 to;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(to.x), "=r"(to.y), "=r"(to.z), "=r"(to.w)
               : "l"(from));
  return to;
}

// kPieces of 16 outputs (gated: 8 of gate and the same 8 of up) by kColumns times 8 rows of x.
template <int kPieces, int kColumns, bool kGated>
__global__ void __launch_bounds__(kThreads, 2) few_rows_kernel(const __grid_constant__ Args args) {
  constexpr int kDeep = 4 / kPieces;                  // steps that are loaded together
  constexpr int kOutputs = kGated ? kTile / 2 : kTile;  // of a piece
  __shared__ float shares[kWarps][kPieces][kColumns * 8][kTile + 1];
  start_next();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int quad = lane / 4, part = lane % 4 * 8;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * (kPieces * kOutputs);
  const std::int64_t outputs = kGated ? args.out / 2 : args.out;
  const Bf16* rows[kPieces][2];
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const std::int64_t low = min(first + p * kOutputs + quad, outputs - 1);
    const std::int64_t high = kGated ? outputs + low : min(first + p * kOutputs + quad + 8, outputs - 1);
    rows[p][0] = args.w + low * args.in + part;
    rows[p][1] = args.w + high * args.in + part;
  }
  const std::int64_t steps = args.in / kStep, share = (steps + kWarps - 1) / kWarps;
  const std::int64_t begin = min(warp * share, steps), end = min(begin + share, steps);
  uint4 weights[kDeep][kPieces][2];
  const auto load = [&](std::int64_t step) {
#pragma unroll
    for (int u = 0; u < kDeep; ++u) {
      if (step + u >= end) continue;
#pragma unroll
      for (int p = 0; p < kPieces; ++p) {
        weights[u][p][0] = load_once(rows[p][0] + (step + u) * kStep);
        weights[u][p][1] = load_once(rows[p][1] + (step + u) * kStep);
      }
    }
  };
  load(begin);
  wait_for_inputs();

  float sum[kPieces][kColumns][4] = {};
  for (std::int64_t step = begin; step < end; step += kDeep) {
    uint4 now[kDeep][kPieces][2];
    uint4 x[kDeep][kColumns];
#pragma unroll
    for (int u = 0; u < kDeep; ++u) {
#pragma unroll
      for (int p = 0; p < kPieces; ++p) {
        now[u][p][0] = weights[u][p][0];
        now[u][p][1] = weights[u][p][1];
      }
    }
    load(step + kDeep);
#pragma unroll
    for (int u = 0; u < kDeep; ++u) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        x[u][c] = {};
        const std::int64_t row = c * 8 + quad;
        if (step + u < end && row < args.n)
          x[u][c] = *reinterpret_cast<const uint4*>(args.x + row * args.x_stride + (step + u) * kStep + part);
      }
    }
#pragma unroll
    for (int u = 0; u < kDeep; ++u) {
      if (step + u >= end) continue;  // the same for the whole warp
#pragma unroll
      for (int p = 0; p < kPieces; ++p) {
        const uint4 low = now[u][p][0], high = now[u][p][1];
        const std::uint32_t a[4] = {low.x, high.x, low.y, high.y}, b[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          mma(sum[p][c], a, x[u][c].x, x[u][c].y);
          mma(sum[p][c], b, x[u][c].z, x[u][c].w);
        }
      }
    }
  }
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int row = c * 8 + lane % 4 * 2;
      shares[warp][p][row][quad] = sum[p][c][0];
      shares[warp][p][row + 1][quad] = sum[p][c][1];
      shares[warp][p][row][quad + 8] = sum[p][c][2];
      shares[warp][p][row + 1][quad + 8] = sum[p][c][3];
    }
  }
  __syncthreads();
  const auto whole = [&](int piece, int row, int at) {
    float all = 0;
#pragma unroll
    for (int other = 0; other < kWarps; ++other) all += shares[other][piece][row][at];
    return all;
  };
  for (int i = static_cast<int>(threadIdx.x); i < kPieces * kOutputs * kColumns * 8; i += kThreads) {
    const int at = i % kOutputs, piece = i / kOutputs % kPieces, row = i / (kOutputs * kPieces);
    const std::int64_t output = first + piece * kOutputs + at;
    if (row >= args.n || output >= outputs) continue;
    if constexpr (kGated) {
      const float gate = whole(piece, row, at), up = whole(piece, row, at + 8);
      static_cast<Bf16*>(args.y)[row * args.y_stride + output] = from_f32<Bf16>(gate / (1.0F + __expf(-gate)) * up);
    } else {
      float* to = static_cast<float*>(args.y) + row * args.y_stride + output;
      const float value = whole(piece, row, at);
      *to = args.accumulate ? *to + value : value;
    }
  }
}

template <int kPieces, int kColumns, bool kGated>
void launch(Runtime& rt, const Args& args) {
  constexpr std::int64_t kOutputs = kPieces * (kGated ? kTile / 2 : kTile);
  const std::int64_t outputs = kGated ? args.out / 2 : args.out;
  launch_early(rt, "a product of few rows", few_rows_kernel<kPieces, kColumns, kGated>,
               dim3(static_cast<unsigned>((outputs + kOutputs - 1) / kOutputs)), kThreads, args);
}

// More rows of x take more outputs at once, so that reading x does not cost more than reading W.
template <bool kGated>
void choose(Runtime& rt, const Args& args) {
  if (args.n <= 8) return launch<1, 1, kGated>(rt, args);
  if (args.n <= 16) return launch<2, 2, kGated>(rt, args);
  launch<2, 4, kGated>(rt, args);
}

}  // namespace

bool few_rows_takes(const Tensor& x, const Tensor& w) {
  return x.type() == ElementType::kBF16 && x.dim(0) <= (std::getenv("FINCHKV_X_ROWS") ? std::atoi(std::getenv("FINCHKV_X_ROWS")) : kFewRows) && x.dim(1) % kStep == 0 && rows_aligned(x) &&
         rows_aligned(w);
}

void few_rows(Runtime& rt, const Tensor& x, const Tensor& w, const Tensor& y, bool accumulate) {
  choose<false>(rt, {x.data<Bf16>(), w.data<Bf16>(), y.data(), x.dim(0), w.dim(0), w.dim(1), x.stride(0), y.stride(0),
                     accumulate});
}

void few_rows_swiglu(Runtime& rt, const Tensor& x, const Tensor& w, const Tensor& y) {
  choose<true>(rt, {x.data<Bf16>(), w.data<Bf16>(), y.data(), x.dim(0), w.dim(0), w.dim(1), x.stride(0), y.stride(0),
                    false});
}

}  // namespace finchkv::kernels::cuda
