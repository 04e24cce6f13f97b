// A few rows of bf16 against W [out, in]: decoding. Bytes: W once, 2 in out (1 in 8 bits); everything else is small.
//
// On the tensor cores, with W as the left side: a piece of 16 outputs takes up to 32 rows of x at once, so one reading
// of W serves them all. A lane loads 16 bytes of two outputs, neighbours along k; which of the products' k a value
// takes is free as long as x goes the same way, so no shuffling is needed. 8-bit weights (e4m3, a scale per output)
// become bf16 on the way, which is exact. The warps of a block share k out among them
// and add up in a fixed order; a row's sum has the same order whatever the number of rows. Each lane copies its own
// pieces of W to shared memory some steps ahead, so enough is on its way without holding registers or waiting for other
// lanes; the first of it before the kernel that makes x has ended.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/tensor_core.cuh"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kTile = 16;   // outputs of a piece
constexpr int kStages = 8;  // of W on its way to a block, by pieces: 64 KiB

using E4m3 = std::uint8_t;

template <typename T>
constexpr int kWide = 16 / static_cast<int>(sizeof(T));  // weights that a lane loads at once
template <typename T>
constexpr int kStep = 4 * kWide<T>;  // of k, that a warp loads at once

struct Args {
  const Bf16* x;
  const void* w;
  const float* scales;  // of 8-bit outputs
  void* y;
  std::int64_t n, out, in, x_stride, y_stride;
  bool accumulate;
};

// As tensor_core.cuh's, but for memory that only this lane reads: nothing else keeps accesses in order.
__device__ __forceinline__ void copy_ahead(uint4* shared, const void* global) {
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;\n" ::"r"(at), "l"(global) : "memory");
}
template <int kOpen>
__device__ __forceinline__ void wait_ahead() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kOpen) : "memory");
}

// Four weights as two pairs of bf16.
__device__ __forceinline__ void widen(const uint4& from, int at, std::uint32_t& low, std::uint32_t& high, Bf16) {
  low = at == 0 ? from.x : from.z;
  high = at == 0 ? from.y : from.w;
}
// e4m3's exponent and mantissa, moved to their places in bf16, are 2^-120 times the value, subnormal ones too.
__device__ __forceinline__ std::uint32_t widen_pair(std::uint32_t bytes_in_high_halves) {
  const std::uint32_t bits = (bytes_in_high_halves & 0x80008000U) | (bytes_in_high_halves >> 4 & 0x07f007f0U);
  const __nv_bfloat162 up = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&bits),
                                    __nv_bfloat162{__ushort_as_bfloat16(0x7b80), __ushort_as_bfloat16(0x7b80)});
  return *reinterpret_cast<const std::uint32_t*>(&up);
}
__device__ __forceinline__ void widen(const uint4& from, int at, std::uint32_t& low, std::uint32_t& high, E4m3) {
  const std::uint32_t four = at == 0 ? from.x : at == 1 ? from.y : at == 2 ? from.z : from.w;
  low = widen_pair(__byte_perm(four, 0, 0x1404));
  high = widen_pair(__byte_perm(four, 0, 0x3424));
}

// kPieces of 16 outputs (gated: 8 of gate and the same 8 of up) by kColumns times 8 rows of x.
template <typename T, int kPieces, int kColumns, bool kGated>
__global__ void __launch_bounds__(kThreads, kPieces == 1 && sizeof(T) == 2 ? 3 : 2)
    few_rows_kernel(const __grid_constant__ Args args) {
  constexpr int kVectors = kWide<T> / 8;  // 16 bytes of x that go with 16 bytes of W
  constexpr int kDeep = kColumns * kVectors > 4 ? 1 : kColumns * kVectors > 2 ? 2 : 4;  // steps of x held at once
  constexpr int kOutputs = kGated ? kTile / 2 : kTile;                                  // of a piece
  constexpr int kAhead = kStages / kPieces;
  __shared__ float shares[kWarps][kPieces][kColumns * 8][kTile + 1];
  extern __shared__ uint4 ring[];  // [kAhead][kPieces][2][kThreads]
  start_next();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int quad = lane / 4, part = lane % 4 * kWide<T>;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * (kPieces * kOutputs);
  const std::int64_t outputs = kGated ? args.out / 2 : args.out;
  const std::int64_t steps = args.in / kStep<T>, share = (steps + kWarps - 1) / kWarps;
  const int begin = static_cast<int>(min(warp * share, steps)), end = static_cast<int>(min(begin + share, steps));
  const T* rows[kPieces][2];
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const std::int64_t low = min(first + p * kOutputs + quad, outputs - 1);
    const std::int64_t high = kGated ? outputs + low : min(first + p * kOutputs + quad + 8, outputs - 1);
    rows[p][0] = static_cast<const T*>(args.w) + low * args.in + part;
    rows[p][1] = static_cast<const T*>(args.w) + high * args.in + part;
  }
  const auto place = [&](int stage, int p, int half) -> uint4* {
    return ring + ((stage * kPieces + p) * 2 + half) * kThreads + threadIdx.x;
  };
  const auto fetch = [&](int step, int stage) {
    if (step < end) {
#pragma unroll
      for (int p = 0; p < kPieces; ++p) {
        copy_ahead(place(stage, p, 0), rows[p][0] + static_cast<std::int64_t>(step) * kStep<T>);
        copy_ahead(place(stage, p, 1), rows[p][1] + static_cast<std::int64_t>(step) * kStep<T>);
      }
    }
    commit_copies();
  };
#pragma unroll
  for (int i = 0; i < kAhead; ++i) fetch(begin + i, i);
  wait_for_inputs();

  uint4 next_x[kDeep][kColumns][kVectors];
  const auto load_x = [&](int step) {
#pragma unroll
    for (int u = 0; u < kDeep; ++u) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const std::int64_t row = c * 8 + quad;
        const auto* from = reinterpret_cast<const uint4*>(args.x + row * args.x_stride + (step + u) * kStep<T> + part);
#pragma unroll
        for (int i = 0; i < kVectors; ++i) next_x[u][c][i] = step + u < end && row < args.n ? from[i] : uint4{};
      }
    }
  };
  load_x(begin);
  float sum[kPieces][kColumns][4] = {};
  int stage = 0;
  for (int step = begin; step < end; step += kDeep) {
    uint4 x[kDeep][kColumns][kVectors];
#pragma unroll
    for (int u = 0; u < kDeep; ++u) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int i = 0; i < kVectors; ++i) x[u][c][i] = next_x[u][c][i];
      }
    }
    load_x(step + kDeep);
#pragma unroll
    for (int u = 0; u < kDeep; ++u) {
      if (step + u >= end) continue;  // the same for the whole warp
      wait_ahead<kAhead - 1>();       // a lane reads what it copied itself
#pragma unroll
      for (int p = 0; p < kPieces; ++p) {
        const uint4 low = *place(stage, p, 0), high = *place(stage, p, 1);
#pragma unroll
        for (int i = 0; i < 2 * kVectors; ++i) {  // four weights of each of the two outputs
          std::uint32_t a[4];
          widen(low, i, a[0], a[2], T{});
          widen(high, i, a[1], a[3], T{});
#pragma unroll
          for (int c = 0; c < kColumns; ++c) {
            const uint4& right = x[u][c][i / 2];
            mma(sum[p][c], a, i % 2 == 0 ? right.x : right.z, i % 2 == 0 ? right.y : right.w);
          }
        }
      }
      fetch(step + u + kAhead, stage);
      stage = stage + 1 == kAhead ? 0 : stage + 1;
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
  const auto whole = [&](int piece, int row, int at, std::int64_t output) {
    float all = 0;
#pragma unroll
    for (int other = 0; other < kWarps; ++other) all += shares[other][piece][row][at];
    return sizeof(T) == 1 ? all * args.scales[output] : all;
  };
  for (int i = static_cast<int>(threadIdx.x); i < kPieces * kOutputs * kColumns * 8; i += kThreads) {
    const int at = i % kOutputs, piece = i / kOutputs % kPieces, row = i / (kOutputs * kPieces);
    const std::int64_t output = first + piece * kOutputs + at;
    if (row >= args.n || output >= outputs) continue;
    if constexpr (kGated) {
      const float gate = whole(piece, row, at, output), up = whole(piece, row, at + 8, outputs + output);
      static_cast<Bf16*>(args.y)[row * args.y_stride + output] = from_f32<Bf16>(gate / (1.0F + __expf(-gate)) * up);
    } else {
      float* to = static_cast<float*>(args.y) + row * args.y_stride + output;
      const float value = whole(piece, row, at, output);
      *to = args.accumulate ? *to + value : value;
    }
  }
}

template <typename T, int kPieces, int kColumns, bool kGated>
void launch(Runtime& rt, const Args& args) {
  constexpr std::int64_t kOutputs = kPieces * (kGated ? kTile / 2 : kTile);
  const std::int64_t outputs = kGated ? args.out / 2 : args.out;
  constexpr int kRing = kStages * 2 * kThreads * static_cast<int>(sizeof(uint4));
  const auto kernel = few_rows_kernel<T, kPieces, kColumns, kGated>;
  rt.check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kRing),
           "shared memory for a product of few rows");
  launch_early(rt, "a product of few rows", kernel, dim3(static_cast<unsigned>((outputs + kOutputs - 1) / kOutputs)),
               kThreads, kRing, args);
}

// More rows of x take more outputs at once, so that reading x does not cost more than reading W.
template <typename T, bool kGated>
void choose(Runtime& rt, const Args& args) {
  if (args.n <= 8) return launch<T, 1, 1, kGated>(rt, args);
  if (args.n <= 16) return launch<T, 2, 2, kGated>(rt, args);
  launch<T, 2, 4, kGated>(rt, args);
}

template <bool kGated>
void start(Runtime& rt, const Tensor& x, const WeightView& w, const Tensor& y, bool accumulate) {
  const Args args{x.data<Bf16>(), w.data, w.scales,    y.data(),    x.dim(0),
                  w.out,          w.in,   x.stride(0), y.stride(0), accumulate};
  if (w.scales == nullptr)
    choose<Bf16, kGated>(rt, args);
  else
    choose<E4m3, kGated>(rt, args);
}

}  // namespace

bool few_rows_takes(const Tensor& x, const WeightView& w) {
  const int step = w.scales == nullptr ? kStep<Bf16> : kStep<E4m3>;
  return x.type() == ElementType::kBF16 && x.dim(0) <= kFewRows && w.in % step == 0 && rows_aligned(x) &&
         reinterpret_cast<std::uintptr_t>(w.data) % 16 == 0;
}

void few_rows(Runtime& rt, const Tensor& x, const WeightView& w, const Tensor& y, bool accumulate) {
  start<false>(rt, x, w, y, accumulate);
}

void few_rows_swiglu(Runtime& rt, const Tensor& x, const WeightView& w, const Tensor& y) {
  start<true>(rt, x, w, y, false);
}

}  // namespace finchkv::kernels::cuda
