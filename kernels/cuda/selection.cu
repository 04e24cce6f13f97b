// Choosing entries: sums over heads, means over spans, the k highest, gathers.
//
// top_k: scores become unsigned keys of the same order (both zeros one key). The k-th highest key is found two bits at
// a time, by counting the keys that have at least 1, 2 and 3 there, until some bits part exactly k from the rest; then
// every thread counts what of its stretch is chosen, and writes it behind what the threads before it have. One block a
// row, so its time is latency; rows of up to 24576 are kept as keys in shared memory. One H200, 4900 scores: 18 us
// through all 32 bits; histograms of 8 bits 19 (most scores share their first digit, so their additions wait for each
// other), and 27 for 5500 scores with such additions joined by __match_any_sync.
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/ops.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kThreads = kItemThreads;

__global__ void __launch_bounds__(kThreads)
    sum_rows_kernel(const float* __restrict__ x, float* __restrict__ sum, std::int64_t rows, std::int64_t columns,
                    std::int64_t stride) {
  const std::int64_t j = item_index();
  if (j >= columns) return;
  float total = x[j];
  for (std::int64_t r = 1; r < rows; ++r) total += x[r * stride + j];
  sum[j] = total;
}

__global__ void __launch_bounds__(kThreads)
    span_mean_kernel(const float* __restrict__ x, const std::int32_t* __restrict__ origins, float* __restrict__ y,
                     std::int64_t columns, std::int64_t x_stride, std::int64_t origin_stride, std::int64_t y_stride,
                     std::int32_t radius, float own_share) {
  const std::int64_t j = item_index();
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

// The sum of each of three counts over the block, in every thread. `counts` is not read any more by the time that the
// call after the next one writes it.
__device__ __forceinline__ void sum_over_block(std::uint32_t (&count)[3],
                                               std::uint32_t (*counts)[kSelectThreads / 32]) {
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    const std::uint32_t in_warp = __reduce_add_sync(0xffffffffU, count[i]);
    if (lane == 0) counts[i][warp] = in_warp;
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 3; ++i) count[i] = __reduce_add_sync(0xffffffffU, counts[i][lane]);
}

// What threads before this one have in all, of two counts at once.
__device__ __forceinline__ std::uint64_t sum_before(std::uint64_t own, std::uint64_t (&in_warps)[kSelectThreads / 32]) {
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  std::uint64_t up_to = own;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const std::uint64_t other = __shfl_up_sync(0xffffffffU, up_to, step);
    if (lane >= step) up_to += other;
  }
  if (lane == 31) in_warps[warp] = up_to;
  __syncthreads();
  std::uint64_t before = up_to - own;
  for (int w = 0; w < warp; ++w) before += in_warps[w];
  return before;
}

__global__ void __launch_bounds__(kSelectThreads)
    top_k_kernel(const float* __restrict__ x, std::int32_t* __restrict__ indices, std::uint32_t columns,
                 std::uint32_t k, std::int64_t x_stride, std::int64_t y_stride) {
  __shared__ std::uint32_t counts[2][3][kSelectThreads / 32];
  __shared__ std::uint64_t in_warps[kSelectThreads / 32];
  extern __shared__ std::uint32_t held[];
  const float* row = x + blockIdx.x * x_stride;
  std::int32_t* out = indices + blockIdx.x * y_stride;
  const bool holds = columns <= kMostHeldKeys;
  const auto key_at = [&](std::uint32_t i) { return holds ? held[i] : ordered(row[i]); };
  if (holds) {
    for (std::uint32_t i = threadIdx.x; i < columns; i += kSelectThreads) held[i] = ordered(row[i]);
    __syncthreads();
  }

  std::uint32_t limit = 0;   // the bits of the k-th highest key found so far
  std::uint32_t higher = 0;  // keys above all that begin with these bits
  for (int shift = 30, turn = 0; shift >= 0; shift -= 2, turn ^= 1) {
    // How many keys have at least 1, 2, 3 for their next two bits.
    std::uint32_t count[3] = {0, 0, 0};
#pragma unroll 4
    for (std::uint32_t i = threadIdx.x; i < columns; i += kSelectThreads) {
      const std::uint32_t key = key_at(i);
#pragma unroll
      for (std::uint32_t digit = 1; digit < 4; ++digit) count[digit - 1] += key >= (limit | digit << shift) ? 1U : 0U;
    }
    sum_over_block(count, counts[turn]);
    const std::uint32_t digit = count[2] >= k ? 3 : count[1] >= k ? 2 : count[0] >= k ? 1 : 0;
    limit |= digit << shift;
    if (digit < 3) higher = digit == 2 ? count[2] : digit == 1 ? count[1] : count[0];
    if (digit > 0 && (digit == 3 ? count[2] : digit == 2 ? count[1] : count[0]) == k) {
      limit -= 1;  // all that have these bits, and nothing else: the rest of the bits decide nothing
      higher = k;
      break;
    }
  }

  // Every thread has neighbours, so that one sum over the threads says where its own are written.
  const std::uint32_t wanted = k - higher;  // of those that equal the k-th
  const std::uint32_t share = (columns + kSelectThreads - 1) / kSelectThreads;
  const std::uint32_t first = min(threadIdx.x * share, columns), end = min(first + share, columns);
  std::uint64_t own = 0;  // higher ones, and equals above 32 bits
  for (std::uint32_t i = first; i < end; ++i) {
    const std::uint32_t key = key_at(i);
    own += key > limit ? 1U : key == limit ? std::uint64_t{1} << 32 : 0U;
  }
  const std::uint64_t before = sum_before(own, in_warps);
  auto above = static_cast<std::uint32_t>(before), equal = static_cast<std::uint32_t>(before >> 32);
  for (std::uint32_t i = first; i < end; ++i) {
    const std::uint32_t key = key_at(i);
    const std::uint32_t place = above + min(equal, wanted);
    if (key > limit || (key == limit && equal < wanted)) out[place] = static_cast<std::int32_t>(i);
    above += key > limit ? 1U : 0U;
    equal += key == limit ? 1U : 0U;
  }
}

template <typename T>
struct Gather {
  View3<const T> keys, values;
  View3<T> to_keys, to_values;
  const std::int32_t *origins, *indices;
  std::int32_t* to_origins;
  std::int64_t origin_stride, index_stride, to_origin_stride;
  std::int64_t entries, packs;
  unsigned origin_rows;
};

// N elements of a key and a value a thread; the first of an entry's also brings its origin.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads) gather_kernel(Gather<T> g) {
  const std::int64_t i = item_index();
  const std::int64_t entry = quotient(i, g.packs), at = (i - entry * g.packs) * N;
  if (entry >= g.entries) return;
  const unsigned head = blockIdx.y, row = g.origin_rows == 1 ? 0 : head;
  const std::int64_t from = g.indices[row * g.index_stride + entry];
  const auto key = *reinterpret_cast<const Pack<T, N>*>(g.keys.row(head, from) + at);
  const auto value = *reinterpret_cast<const Pack<T, N>*>(g.values.row(head, from) + at);
  *reinterpret_cast<Pack<T, N>*>(g.to_keys.row(head, entry) + at) = key;
  *reinterpret_cast<Pack<T, N>*>(g.to_values.row(head, entry) + at) = value;
  if (at == 0 && head < g.origin_rows) {
    g.to_origins[head * g.to_origin_stride + entry] = g.origins[head * g.origin_stride + from];
  }
}

template <typename T>
void launch_gather(Runtime& rt, const EntryLists& from, const Tensor& indices, const EntryLists& to) {
  constexpr int kWide = 16 / sizeof(T);
  const std::int64_t k = indices.dim(1), d = from.keys.dim(2);
  if (k == 0) return;
  bool wide = d % kWide == 0;
  for (const Tensor* t : {&from.keys, &from.values, &to.keys, &to.values}) wide = wide && rows_aligned(*t);
  const std::int64_t packs = wide ? d / kWide : d;
  const Gather<T> g{view3<const T>(from.keys),
                    view3<const T>(from.values),
                    view3<T>(to.keys),
                    view3<T>(to.values),
                    from.origins.data<std::int32_t>(),
                    indices.data<std::int32_t>(),
                    to.origins.data<std::int32_t>(),
                    from.origins.stride(0),
                    indices.stride(0),
                    to.origins.stride(0),
                    k,
                    packs,
                    static_cast<unsigned>(indices.dim(0))};
  const dim3 grid(item_blocks(k * packs), static_cast<unsigned>(from.keys.dim(0)));
  const auto kernel = wide ? gather_kernel<T, kWide> : gather_kernel<T, 1>;
  kernel<<<grid, kThreads, 0, rt.stream()>>>(g);
  rt.launched("gathering entries");
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
  sum_rows_kernel<<<item_blocks(x.dim(1)), kThreads, 0, rt.stream()>>>(x.data<float>(), sum.data<float>(), x.dim(0),
                                                                       x.dim(1), x.stride(0));
  rt.launched("summing scores");
}

void span_mean(Runtime& rt, const Tensor& x, const Tensor& origins, std::int32_t radius, float own_share,
               const Tensor& y) {
  if (x.dim(1) == 0) return;
  span_mean_kernel<<<dim3(item_blocks(x.dim(1)), static_cast<unsigned>(x.dim(0))), kThreads, 0, rt.stream()>>>(
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
      x.data<float>(), indices.data<std::int32_t>(), static_cast<std::uint32_t>(x.dim(1)),
      static_cast<std::uint32_t>(k), x.stride(0), indices.stride(0));
  rt.launched("choosing entries");
}

void gather(Runtime& rt, const EntryLists& from, const Tensor& indices, const EntryLists& to) {
  if (from.keys.type() == ElementType::kBF16)
    launch_gather<std::uint16_t>(rt, from, indices, to);
  else
    launch_gather<std::uint32_t>(rt, from, indices, to);
}

void argmax(Runtime& rt, const Tensor& x, const Tensor& indices) {
  if (x.dim(0) == 0) return;
  argmax_kernel<<<static_cast<unsigned>(x.dim(0)), kSelectThreads, 0, rt.stream()>>>(
      x.data<float>(), x.dim(1), x.stride(0), indices.data<std::int32_t>());
  rt.launched("the likeliest token");
}

}  // namespace finchkv::kernels::cuda
