// Copies, conversions, bias, SwiGLU, embedding rows: all bound by memory, 16 bytes an access where rows allow it.
#include <type_traits>

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/ops.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kThreads = kItemThreads;

// N elements a thread; `packs` of them in a row.
template <typename From, typename To, int N>
__global__ void __launch_bounds__(kThreads)
    copy_rows(View3<const From> x, View3<To> y, std::int64_t items, std::int64_t columns, std::int64_t packs) {
  const std::int64_t i = item_index();
  if (i >= items) return;
  const std::int64_t row = quotient(i, packs), at = (i - row * packs) * N;
  const std::int64_t first = quotient(row, columns), second = row - first * columns;
  const From* from = x.row(first, second) + at;
  To* to = y.row(first, second) + at;
  if constexpr (std::is_same_v<From, To>) {
    *reinterpret_cast<Pack<To, N>*>(to) = *reinterpret_cast<const Pack<From, N>*>(from);
  } else {
    float values[N];
    load_f32(from, values);
    store_f32(values, to);
  }
}

template <typename From, typename To>
void launch_copy(Runtime& rt, const Tensor& x, const Tensor& y) {
  constexpr int kWide = sizeof(From) == 2 && sizeof(To) == 2 ? 8 : 4;
  const std::int64_t rows = x.dim(0) * x.dim(1), d = x.dim(2);
  if (rows * d == 0) return;
  if (d % kWide == 0 && rows_aligned(x) && rows_aligned(y)) {
    const std::int64_t packs = d / kWide;
    copy_rows<From, To, kWide><<<item_blocks(rows * packs), kThreads, 0, rt.stream()>>>(
        view3<const From>(x), view3<To>(y), rows * packs, x.dim(1), packs);
  } else {
    copy_rows<From, To, 1><<<item_blocks(rows * d), kThreads, 0, rt.stream()>>>(view3<const From>(x), view3<To>(y),
                                                                                rows * d, x.dim(1), d);
  }
  rt.launched("a copy on the GPU");
}

__global__ void __launch_bounds__(kThreads)
    bias_kernel(float* x, const float* __restrict__ b, std::int64_t items, std::int64_t d, std::int64_t stride) {
  const std::int64_t i = item_index();
  if (i < items) x[i / d * stride + i % d] += b[i % d];
}

__device__ __forceinline__ float silu(float x) { return x / (1.0F + __expf(-x)); }
__device__ __forceinline__ float silu_exact(float x) { return x / (1.0F + expf(-x)); }

template <typename T, int N>
__global__ void __launch_bounds__(kThreads)
    swiglu_kernel(const T* __restrict__ x, T* __restrict__ y, std::int64_t items, std::int64_t ffn,
                  std::int64_t x_stride, std::int64_t y_stride) {
  const std::int64_t i = item_index();
  if (i >= items) return;
  const std::int64_t packs = ffn / N, row = quotient(i, packs), at = (i - row * packs) * N;
  float gate[N], up[N];
  load_f32(x + row * x_stride + at, gate);
  load_f32(x + row * x_stride + ffn + at, up);
#pragma unroll
  for (int k = 0; k < N; ++k) gate[k] = (sizeof(T) == 2 ? silu(gate[k]) : silu_exact(gate[k])) * up[k];
  store_f32(gate, y + row * y_stride + at);
}

template <typename T>
void launch_swiglu(Runtime& rt, const Tensor& x, const Tensor& y) {
  const std::int64_t ffn = y.dim(1);
  const std::int64_t values = y.dim(0) * ffn;
  constexpr int kWide = 16 / sizeof(T);
  if (values == 0) return;
  if (ffn % kWide == 0 && rows_aligned(x) && rows_aligned(y)) {
    swiglu_kernel<T, kWide><<<item_blocks(values / kWide), kThreads, 0, rt.stream()>>>(
        x.data<T>(), y.data<T>(), values / kWide, ffn, x.stride(0), y.stride(0));
  } else {
    swiglu_kernel<T, 1><<<item_blocks(values), kThreads, 0, rt.stream()>>>(x.data<T>(), y.data<T>(), values, ffn,
                                                                           x.stride(0), y.stride(0));
  }
  rt.launched("SwiGLU");
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    embed_kernel(const T* __restrict__ table, const std::int32_t* ids, float* __restrict__ y, std::int64_t width,
                 std::int64_t y_stride) {
  const T* row = table + ids[blockIdx.x] * width;
  for (std::int64_t i = threadIdx.x; i < width; i += kThreads) y[blockIdx.x * y_stride + i] = to_f32(row[i]);
}

__global__ void __launch_bounds__(kThreads)
    narrow_kernel(const float* __restrict__ x, Bf16* __restrict__ y, std::int64_t count) {
  const std::int64_t i = item_index();
  if (i < count) y[i] = from_f32<Bf16>(x[i]);
}

// splitmix64: every place's bits from its number.
__device__ __forceinline__ std::uint64_t mix(std::uint64_t z) {
  z += 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    random_kernel(T* y, std::int64_t count, std::uint64_t seed, float deviation) {
  const std::int64_t i = item_index();
  if (i >= count) return;
  const std::uint64_t bits = mix(mix(seed) + static_cast<std::uint64_t>(i));
  // The sum of four uniform 16-bit numbers: variance 4/12 before scaling.
  float sum = -2.0F;
#pragma unroll
  for (int k = 0; k < 4; ++k) sum += static_cast<float>((bits >> (16 * k)) & 0xffffU) * (1.0F / 65536.0F);
  y[i] = from_f32<T>(sum * 1.7320508F * deviation);
}

}  // namespace

void copy(Runtime& rt, const Tensor& x, const Tensor& y) {
  const bool from_narrow = x.type() == ElementType::kBF16, to_narrow = y.type() == ElementType::kBF16;
  if (from_narrow && to_narrow) return launch_copy<std::uint16_t, std::uint16_t>(rt, x, y);
  if (from_narrow) return launch_copy<Bf16, float>(rt, x, y);
  if (to_narrow) return launch_copy<float, Bf16>(rt, x, y);
  launch_copy<std::uint32_t, std::uint32_t>(rt, x, y);
}

void add_bias(Runtime& rt, const Tensor& x, const Tensor& b) {
  const std::int64_t items = x.dim(0) * x.dim(1);
  if (items == 0) return;
  bias_kernel<<<item_blocks(items), kThreads, 0, rt.stream()>>>(x.data<float>(), b.data<float>(), items, x.dim(1),
                                                                x.stride(0));
  rt.launched("adding a bias");
}

void swiglu(Runtime& rt, const Tensor& x, const Tensor& y) {
  if (y.type() == ElementType::kBF16)
    launch_swiglu<Bf16>(rt, x, y);
  else
    launch_swiglu<float>(rt, x, y);
}

void embed(Runtime& rt, const Tensor& table, const Tensor& ids, const Tensor& y) {
  const auto rows = static_cast<unsigned>(y.dim(0));
  if (rows == 0) return;
  if (table.type() == ElementType::kBF16)
    embed_kernel<<<rows, kThreads, 0, rt.stream()>>>(table.data<Bf16>(), ids.data<std::int32_t>(), y.data<float>(),
                                                     y.dim(1), y.stride(0));
  else
    embed_kernel<<<rows, kThreads, 0, rt.stream()>>>(table.data<float>(), ids.data<std::int32_t>(), y.data<float>(),
                                                     y.dim(1), y.stride(0));
  rt.launched("looking up embeddings");
}

void narrow(Runtime& rt, const float* x, void* y, std::int64_t count) {
  if (count == 0) return;
  narrow_kernel<<<item_blocks(count), kThreads, 0, rt.stream()>>>(x, static_cast<Bf16*>(y), count);
  rt.launched("narrowing weights");
}

void fill_random(Runtime& rt, const Tensor& y, std::uint64_t seed, float deviation) {
  const std::int64_t count = y.elements();
  if (count == 0) return;
  if (y.type() == ElementType::kBF16)
    random_kernel<<<item_blocks(count), kThreads, 0, rt.stream()>>>(y.data<Bf16>(), count, seed, deviation);
  else
    random_kernel<<<item_blocks(count), kThreads, 0, rt.stream()>>>(y.data<float>(), count, seed, deviation);
  rt.launched("random weights");
}

}  // namespace finchkv::kernels::cuda
