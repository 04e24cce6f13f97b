// Choosing entries: sums over heads, means over spans, the k highest by radix select, gathers.
//
// top_k: scores become unsigned keys of the same order (both zeros one key); four histograms of 8 bits find the k-th
// highest key and how many of its equals are wanted; one pass in index order writes what is higher and the first of the
// equals. One block a row, so its time is latency (21 us for 5500 scores; lanes with equal digits adding once for all
// of them, by __match_any_sync, took 27): rows of up to 24576 are kept as keys in shared memory meanwhile.
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/ops.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kThreads = 256;

unsigned blocks_for(std::int64_t items) { return static_cast<unsigned>((items + kThreads - 1) / kThreads); }

__device__ __forceinline__ std::int64_t global_index() {
  return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

__global__ void __launch_bounds__(kThreads)
    sum_rows_kernel(const float* __restrict__ x, float* __restrict__ sum, std::int64_t rows, std::int64_t columns,
                    std::int64_t stride) {
  const std::int64_t j = global_index();
  if (j >= columns) return;
  float total = x[j];
  for (std::int64_t r = 1; r < rows; ++r) total += x[r * stride + j];
  sum[j] = total;
}

__global__ void __launch_bounds__(kThreads)
    span_mean_kernel(const float* __restrict__ x, const std::int32_t* __restrict__ origins, float* __restrict__ y,
                     std::int64_t columns, std::int64_t x_stride, std::int64_t origin_stride, std::int64_t y_stride,
                     std::int32_t radius, float own_share) {
  const std::int64_t j = global_index();
  if (j >= columns) return;
  const float* in = x + blockIdx.y * x_stride;
  const std::int32_t* origin = origins + blockIdx.y * origin_stride;
  const std::int32_t here = origin[j];
  std::int64_t low = j, high = j + 1;
  while (low > 0 && origin[low - 1] >= here - radius) --low;
  while (high < columns && origin[high] <= here + radius) ++high;
  double sum = 0;
  for (std::int64_t i = low; i < high; ++i) sum += static_cast<double>(in[i]);
  y[blockIdx.y * y_stride + j] = static_cast<float>(sum / static_cast<double>(high - low) +
                                                    static_cast<double>(own_share) * static_cast<double>(in[j]));
}

constexpr int kSelectThreads = 1024;
constexpr std::int64_t kMostHeldKeys = 24576;  // of a row, in shared memory: 96 KiB, which every GPU since sm_80 has

__device__ __forceinline__ std::uint32_t ordered(float x) {
  const std::uint32_t bits = __float_as_uint(x == 0.0F ? 0.0F : x);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

__global__ void __launch_bounds__(kSelectThreads)
    top_k_kernel(const float* __restrict__ x, std::int32_t* __restrict__ indices, std::int64_t columns, std::int64_t k,
                 std::int64_t x_stride, std::int64_t y_stride) {
  __shared__ std::uint32_t histogram[256];
  __shared__ std::uint32_t prefix_shared;
  __shared__ std::int64_t wanted_shared;
  __shared__ std::uint32_t higher_in_warp[32], equal_in_warp[32];
  extern __shared__ std::uint32_t held[];
  const float* row = x + blockIdx.x * x_stride;
  std::int32_t* out = indices + blockIdx.x * y_stride;
  const bool holds = columns <= kMostHeldKeys;
  const auto key_at = [&](std::int64_t i) { return holds ? held[i] : ordered(row[i]); };
  if (holds) {
    for (std::int64_t i = threadIdx.x; i < columns; i += kSelectThreads) held[i] = ordered(row[i]);
  }
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);

  std::uint32_t prefix = 0;  // the bits of the k-th highest key found so far
  std::int64_t wanted = k;   // how many to take among keys that share the prefix
  for (int shift = 24; shift >= 0; shift -= 8) {
    if (threadIdx.x < 256) histogram[threadIdx.x] = 0;
    __syncthreads();
    for (std::int64_t i = threadIdx.x; i < columns; i += kSelectThreads) {
      const std::uint32_t key = key_at(i);
      if (shift == 24 || key >> (shift + 8) == prefix >> (shift + 8)) atomicAdd(&histogram[key >> shift & 255U], 1U);
    }
    __syncthreads();
    // One warp walks from the highest digit down: eight digits a lane.
    if (warp == 0) {
      std::uint32_t own = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) own += histogram[255 - lane * 8 - i];
      std::uint32_t above = own;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const std::uint32_t other = __shfl_up_sync(0xffffffffU, above, step);
        if (lane >= step) above += other;
      }
      above -= own;
      if (above < wanted && wanted <= above + own) {
        std::int64_t rest = wanted - above;
        for (int i = 0; i < 8; ++i) {
          const auto digit = static_cast<std::uint32_t>(255 - lane * 8 - i);
          if (rest <= histogram[digit]) {
            prefix_shared = prefix | digit << shift;
            wanted_shared = rest;
            break;
          }
          rest -= histogram[digit];
        }
      }
    }
    __syncthreads();
    prefix = prefix_shared;
    wanted = wanted_shared;
    __syncthreads();
  }

  std::int64_t taken = 0, equals = 0;  // written so far; equals seen so far
  for (std::int64_t base = 0; base < columns; base += kSelectThreads) {
    const std::int64_t i = base + threadIdx.x;
    const std::uint32_t key = i < columns ? key_at(i) : 0U;
    const bool higher = i < columns && key > prefix, equal = i < columns && key == prefix;
    const std::uint32_t higher_bits = __ballot_sync(0xffffffffU, higher);
    const std::uint32_t equal_bits = __ballot_sync(0xffffffffU, equal);
    if (lane == 0) {
      higher_in_warp[warp] = __popc(higher_bits);
      equal_in_warp[warp] = __popc(equal_bits);
    }
    __syncthreads();
    std::int64_t higher_before = 0, equal_before = equals, higher_all = 0, equal_all = 0;
    for (int w = 0; w < kSelectThreads / 32; ++w) {
      if (w < warp) {
        higher_before += higher_in_warp[w];
        equal_before += equal_in_warp[w];
      }
      higher_all += higher_in_warp[w];
      equal_all += equal_in_warp[w];
    }
    const std::uint32_t below = (1U << lane) - 1U;
    higher_before += __popc(higher_bits & below);
    equal_before += __popc(equal_bits & below);
    // Of the equals before this place only the first `wanted` were taken.
    const std::int64_t place = taken + higher_before + min(equal_before, wanted) - min(equals, wanted);
    if (higher || (equal && equal_before < wanted)) out[place] = static_cast<std::int32_t>(i);
    taken += higher_all + min(equals + equal_all, wanted) - min(equals, wanted);
    equals += equal_all;
    __syncthreads();
  }
}

template <typename T, int N>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(View3<const T> x, const std::int32_t* __restrict__ indices, std::int64_t index_stride, View3<T> y,
                  std::int64_t items, std::int64_t packs) {
  const std::int64_t i = global_index();
  if (i >= items) return;
  const std::int64_t entry = quotient(i, packs), at = (i - entry * packs) * N;
  const std::int64_t from = indices[blockIdx.y * index_stride + entry];
  *reinterpret_cast<Pack<T, N>*>(y.row(blockIdx.y, entry) + at) =
      *reinterpret_cast<const Pack<T, N>*>(x.row(blockIdx.y, from) + at);
}

template <typename T>
void launch_gather(Runtime& rt, const Tensor& x, const Tensor& indices, const Tensor& y) {
  constexpr int kWide = 16 / sizeof(T);
  const std::int64_t k = indices.dim(1), d = x.dim(2), index_stride = indices.dim(0) == 1 ? 0 : indices.stride(0);
  if (k == 0) return;
  const auto heads = static_cast<unsigned>(x.dim(0));
  const auto* index = indices.data<std::int32_t>();
  if (d % kWide == 0 && rows_aligned(x) && rows_aligned(y)) {
    const std::int64_t packs = d / kWide;
    gather_kernel<T, kWide><<<dim3(blocks_for(k * packs), heads), kThreads, 0, rt.stream()>>>(
        view3<const T>(x), index, index_stride, view3<T>(y), k * packs, packs);
  } else {
    gather_kernel<T, 1><<<dim3(blocks_for(k * d), heads), kThreads, 0, rt.stream()>>>(
        view3<const T>(x), index, index_stride, view3<T>(y), k * d, d);
  }
  rt.launched("gathering entries");
}

__global__ void __launch_bounds__(kThreads)
    gather_origins_kernel(const std::int32_t* __restrict__ x, const std::int32_t* __restrict__ indices,
                          std::int32_t* __restrict__ y, std::int64_t k, std::int64_t x_stride,
                          std::int64_t index_stride, std::int64_t y_stride) {
  const std::int64_t i = global_index();
  if (i < k) y[blockIdx.y * y_stride + i] = x[blockIdx.y * x_stride + indices[blockIdx.y * index_stride + i]];
}

// One block a row. A row with a number that is not finite has none.
__global__ void __launch_bounds__(kSelectThreads)
    argmax_kernel(const float* __restrict__ x, std::int64_t count, std::int64_t stride, std::int32_t* indices) {
  __shared__ float best_value[kSelectThreads];
  __shared__ std::int32_t best_index[kSelectThreads];
  const float* row = x + blockIdx.x * stride;
  const auto items = static_cast<std::int32_t>(count);
  float value = -INFINITY;
  std::int32_t index = items;
  bool finite = true;
  for (std::int32_t i = static_cast<std::int32_t>(threadIdx.x); i < items; i += kSelectThreads) {
    const float here = row[i];
    finite = finite && isfinite(here);
    if (here > value) {
      value = here;
      index = i;
    }
  }
  best_value[threadIdx.x] = value;
  best_index[threadIdx.x] = index;
  finite = __syncthreads_and(finite) != 0;
  for (int step = kSelectThreads / 2; step > 0; step /= 2) {
    if (threadIdx.x < step) {
      const float other = best_value[threadIdx.x + step];
      const std::int32_t other_index = best_index[threadIdx.x + step];
      if (other > best_value[threadIdx.x] ||
          (other == best_value[threadIdx.x] && other_index < best_index[threadIdx.x])) {
        best_value[threadIdx.x] = other;
        best_index[threadIdx.x] = other_index;
      }
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) indices[blockIdx.x] = finite ? best_index[0] : -1;
}

}  // namespace

void sum_rows(Runtime& rt, const Tensor& x, const Tensor& sum) {
  if (x.dim(1) == 0) return;
  sum_rows_kernel<<<blocks_for(x.dim(1)), kThreads, 0, rt.stream()>>>(x.data<float>(), sum.data<float>(), x.dim(0),
                                                                      x.dim(1), x.stride(0));
  rt.launched("summing scores");
}

void span_mean(Runtime& rt, const Tensor& x, const Tensor& origins, std::int32_t radius, float own_share,
               const Tensor& y) {
  if (x.dim(1) == 0) return;
  span_mean_kernel<<<dim3(blocks_for(x.dim(1)), static_cast<unsigned>(x.dim(0))), kThreads, 0, rt.stream()>>>(
      x.data<float>(), origins.data<std::int32_t>(), y.data<float>(), x.dim(1), x.stride(0), origins.stride(0),
      y.stride(0), radius, own_share);
  rt.launched("means over spans");
}

void top_k(Runtime& rt, const Tensor& x, const Tensor& indices) {
  const std::int64_t k = indices.dim(1);
  assert(k <= x.dim(1));
  if (k == 0) return;
  const std::size_t held = x.dim(1) <= kMostHeldKeys ? static_cast<std::size_t>(x.dim(1)) * sizeof(std::uint32_t) : 0;
  rt.check(cudaFuncSetAttribute(top_k_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                static_cast<int>(kMostHeldKeys * sizeof(std::uint32_t))),
           "shared memory for choosing entries");
  top_k_kernel<<<static_cast<unsigned>(x.dim(0)), kSelectThreads, held, rt.stream()>>>(
      x.data<float>(), indices.data<std::int32_t>(), x.dim(1), k, x.stride(0), indices.stride(0));
  rt.launched("choosing entries");
}

void gather(Runtime& rt, const Tensor& x, const Tensor& indices, const Tensor& y) {
  if (x.type() == ElementType::kBF16)
    launch_gather<std::uint16_t>(rt, x, indices, y);
  else
    launch_gather<std::uint32_t>(rt, x, indices, y);
}

void gather_origins(Runtime& rt, const Tensor& x, const Tensor& indices, const Tensor& y) {
  if (indices.dim(1) == 0) return;
  gather_origins_kernel<<<dim3(blocks_for(indices.dim(1)), static_cast<unsigned>(indices.dim(0))), kThreads, 0,
                          rt.stream()>>>(x.data<std::int32_t>(), indices.data<std::int32_t>(), y.data<std::int32_t>(),
                                         indices.dim(1), x.stride(0), indices.stride(0), y.stride(0));
  rt.launched("gathering origins");
}

void argmax(Runtime& rt, const Tensor& x, const Tensor& indices) {
  if (x.dim(0) == 0) return;
  argmax_kernel<<<static_cast<unsigned>(x.dim(0)), kSelectThreads, 0, rt.stream()>>>(
      x.data<float>(), x.dim(1), x.stride(0), indices.data<std::int32_t>());
  rt.launched("the likeliest token");
}

}  // namespace finchkv::kernels::cuda
