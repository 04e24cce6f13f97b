// The prompt rows' score pass: mass[g, j] = sum over the group's heads h and prompt rows r of
// w_r exp(scale q[r, h] . k[g, j] - lse[r, h]), w_r = (T - P + r + 1) / T, for the C = T - P candidates j.
//
// Bytes: K once (2 C KV D), the queries from L2; FLOPs 2 P H C D, small beside attention. A block owns some keys of one
// KV head and goes through all rows in order: one order of summation per candidate, no H x P x T matrix anywhere.
// bf16 runs on the tensor cores (mma.sync m16n8k16), f32 and odd head sizes on the FMA pipes. One H200, 256 rows on
// 5500 keys of 8 heads of 128: 23 us; with 64 keys a block 33; with 8 warps instead of 4 29; with indices divided in 64
// bits and weights in double 29.
#include "kernels/cuda/ops.h"
#include "kernels/cuda/tensor_core.cuh"
#include "kernels/cuda/tile_f32.cuh"

namespace finchkv::kernels::cuda {
namespace {

struct Shape {
  std::int64_t prompt, total, candidates;
  int group, d;
  float scale;
  std::int64_t lse_stride, mass_stride;
};

// The weight of prompt row r.
__device__ __forceinline__ float row_weight(const Shape& s, std::int64_t r) {
  const std::int64_t seen = s.total - s.prompt + r + 1;
  // Exact below 2^24, and then the quotient is the nearest f32 as on the host; division in double takes far longer.
  if (s.total < (1 << 24)) return __fdiv_rn(static_cast<float>(seen), static_cast<float>(s.total));
  return static_cast<float>(static_cast<double>(seen) / static_cast<double>(s.total));
}

// --- any type, any head size

constexpr int kThreads = kTileThreads;
constexpr int kRows = kTileRows;
constexpr int kKeys = kTileRows;

template <int kDim>
struct Shared {
  float q[kRows][kDim + 4];
  float k[kKeys][kDim + 4];
  float lse[kRows], weight[kRows];
  float partial[16][kKeys];
};

template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads)
    mass_kernel(View3<const T> q, View3<const T> k, const float* __restrict__ lse, float* __restrict__ mass, Shape s) {
  extern __shared__ __align__(16) unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared<kDim>*>(memory);
  const int g = static_cast<int>(blockIdx.y);
  const std::int64_t key0 = static_cast<std::int64_t>(blockIdx.x) * kKeys;
  const int tx = static_cast<int>(threadIdx.x % 16), ty = static_cast<int>(threadIdx.x / 16);
  load_rows<T, kDim>(k.row(g, 0), k.stride1, key0, s.candidates, s.d, shared.k);
  float sum[4] = {};
  const std::int64_t rows = s.prompt * s.group;
  for (std::int64_t row0 = 0; row0 < rows; row0 += kRows) {
    __syncthreads();
    for (int item = static_cast<int>(threadIdx.x); item < kRows * kDim; item += kThreads) {
      const int c = item % kDim;
      const std::int64_t row = row0 + item / kDim;
      const std::int64_t r = quotient(row, s.group), head = g * s.group + (row - r * s.group);
      shared.q[item / kDim][c] = row < rows && c < s.d ? to_f32(q.row(r, head)[c]) : 0.0F;
      if (c != 0) continue;
      shared.lse[item / kDim] = row < rows ? lse[r * s.lse_stride + head] : 0.0F;
      shared.weight[item / kDim] = row < rows ? row_weight(s, r) : 0.0F;
    }
    __syncthreads();
    float logit[4][4];
    multiply_rows<kDim>(shared.q, shared.k, tx, ty, logit);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float high = shared.lse[ty * 4 + i], weight = shared.weight[ty * 4 + i];
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[j] = __fmaf_rn(weight, expf(logit[i][j] * s.scale - high), sum[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) shared.partial[ty][tx + 16 * j] = sum[j];
  __syncthreads();
  const auto key = static_cast<std::int64_t>(threadIdx.x);
  if (key >= kKeys || key0 + key >= s.candidates) return;
  float total = 0;
#pragma unroll
  for (int i = 0; i < 16; ++i) total += shared.partial[i][key];
  mass[g * s.mass_stride + key0 + key] = total;
}

template <typename T, int kDim>
void launch(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& lse, const Tensor& mass, const Shape& s) {
  const auto kernel = mass_kernel<T, kDim>;
  constexpr std::size_t kBytes = sizeof(Shared<kDim>);
  rt.check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes)),
           "shared memory for the score pass");
  const dim3 grid(static_cast<unsigned>((s.candidates + kKeys - 1) / kKeys), static_cast<unsigned>(k.dim(0)));
  kernel<<<grid, kThreads, kBytes, rt.stream()>>>(view3<const T>(q), view3<const T>(k), lse.data<float>(),
                                                  mass.data<float>(), s);
  rt.launched("the score pass");
}

template <typename T>
void choose(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& lse, const Tensor& mass, const Shape& s) {
  if (s.d <= 32) return launch<T, 32>(rt, q, k, lse, mass, s);
  if (s.d <= 64) return launch<T, 64>(rt, q, k, lse, mass, s);
  if (s.d <= 128) return launch<T, 128>(rt, q, k, lse, mass, s);
  launch<T, 256>(rt, q, k, lse, mass, s);
}

// --- bf16 on the tensor cores

constexpr int kMmaKeys = 128;
constexpr int kMmaWarps = 4;

// Warps share the block's keys and take 16 rows at a time in turn.
template <int kDim>
__global__ void __launch_bounds__(kMmaWarps * 32)
    mass_mma_kernel(View3<const Bf16> q, View3<const Bf16> k, const float* __restrict__ lse, float* __restrict__ mass,
                    Shape s) {
  constexpr int kRowWords = kDim / 2 + 4;  // 32-bit words of a key in shared memory; the pad spreads the banks
  __shared__ __align__(16) std::uint32_t keys[kMmaKeys][kRowWords];
  __shared__ float partial[kMmaWarps][kMmaKeys];
  const int g = static_cast<int>(blockIdx.y);
  const std::int64_t key0 = static_cast<std::int64_t>(blockIdx.x) * kMmaKeys;
  constexpr int kVectors = kDim / 8;  // of 16 bytes in a row
  for (int item = static_cast<int>(threadIdx.x); item < kMmaKeys * kVectors; item += kMmaWarps * 32) {
    const int r = item / kVectors, c = item % kVectors;
    uint4 value = {0, 0, 0, 0};
    if (key0 + r < s.candidates) value = *reinterpret_cast<const uint4*>(k.row(g, key0 + r) + c * 8);
    *reinterpret_cast<uint4*>(&keys[r][c * 4]) = value;
  }
  __syncthreads();

  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  const int quad = lane / 4, in_quad = lane % 4;
  constexpr float kLog2e = 1.4426950408889634F;
  const std::int64_t rows = s.prompt * s.group;
  float sum[kMmaKeys / 8][2] = {};
  for (std::int64_t row0 = warp * 16; row0 < rows; row0 += kMmaWarps * 16) {
    // A fragment: this lane's rows are quad and quad + 8 of the tile.
    const std::uint32_t* from[2];
    float shift[2], weight[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int64_t row = min(row0 + quad + 8 * half, rows - 1);
      const std::int64_t r = quotient(row, s.group), head = g * s.group + (row - r * s.group);
      from[half] = reinterpret_cast<const std::uint32_t*>(q.row(r, head));
      shift[half] = lse[r * s.lse_stride + head] * kLog2e;
      weight[half] = row0 + quad + 8 * half < rows ? row_weight(s, r) : 0.0F;
    }
    float logit[kMmaKeys / 8][4] = {};
#pragma unroll
    for (int c = 0; c < kDim / 16; ++c) {
      const int word = c * 8 + in_quad;
      const std::uint32_t a[4] = {from[0][word], from[1][word], from[0][word + 4], from[1][word + 4]};
#pragma unroll
      for (int t = 0; t < kMmaKeys / 16; ++t) {
        std::uint32_t b[4];
        load_matrices(&keys[t * 16 + lane % 8 + lane / 16 * 8][c * 8 + lane / 8 % 2 * 4], b);
        mma(logit[2 * t], a, b[0], b[1]);
        mma(logit[2 * t + 1], a, b[2], b[3]);
      }
    }
    const float factor = s.scale * kLog2e;
#pragma unroll
    for (int t = 0; t < kMmaKeys / 8; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sum[t][i % 2] = __fmaf_rn(weight[i / 2], exp2f(__fmaf_rn(logit[t][i], factor, -shift[i / 2])), sum[t][i % 2]);
      }
    }
  }
#pragma unroll
  for (int t = 0; t < kMmaKeys / 8; ++t) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float x = sum[t][i];
      for (int step = 16; step >= 4; step /= 2) x += __shfl_xor_sync(0xffffffffU, x, step);
      if (quad == 0) partial[warp][t * 8 + in_quad * 2 + i] = x;
    }
  }
  __syncthreads();
  const auto key = static_cast<std::int64_t>(threadIdx.x);
  if (key >= kMmaKeys || key0 + key >= s.candidates) return;
  float total = 0;
#pragma unroll
  for (int i = 0; i < kMmaWarps; ++i) total += partial[i][key];
  mass[g * s.mass_stride + key0 + key] = total;
}

template <int kDim>
void launch_mma(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& lse, const Tensor& mass, const Shape& s) {
  const dim3 grid(static_cast<unsigned>((s.candidates + kMmaKeys - 1) / kMmaKeys), static_cast<unsigned>(k.dim(0)));
  mass_mma_kernel<kDim><<<grid, kMmaWarps * 32, 0, rt.stream()>>>(view3<const Bf16>(q), view3<const Bf16>(k),
                                                                  lse.data<float>(), mass.data<float>(), s);
  rt.launched("the score pass");
}

}  // namespace

void attention_mass(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& lse, float scale, const Tensor& mass) {
  const std::int64_t prompt = q.dim(0), total = k.dim(1);
  const Shape s{
      prompt, total,         total - prompt, static_cast<int>(q.dim(1) / k.dim(0)), static_cast<int>(q.dim(2)),
      scale,  lse.stride(0), mass.stride(0)};
  if (s.candidates == 0) return;
  if (s.d > kMaxHeadDim) return rt.keep(Status::unsupported("heads of more than 256 dimensions on a GPU"));
  if (q.type() == ElementType::kF32) return choose<float>(rt, q, k, lse, mass, s);
  if (rows_aligned(q) && rows_aligned(k)) {
    if (s.d == 64) return launch_mma<64>(rt, q, k, lse, mass, s);
    if (s.d == 128) return launch_mma<128>(rt, q, k, lse, mass, s);
  }
  choose<Bf16>(rt, q, k, lse, mass, s);
}

}  // namespace finchkv::kernels::cuda
