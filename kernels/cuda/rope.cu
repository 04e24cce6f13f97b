// RoPE from tables: a pair (a, b) becomes (a cos - b sin, b cos + a sin); dimensions past the rotated ones are copied.
//
// Bytes: each x once, each y once; the tables (8 bytes a dimension and position) stay in L2 over the heads. Four pairs
// a thread where rows allow 16-byte accesses.
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/ops.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ std::int64_t global_index() {
  return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

template <typename From, typename To>
__global__ void __launch_bounds__(kThreads)
    rotate_any(View3<const From> x, View3<To> y, RopeTableView table, std::int64_t first_position, std::int64_t items,
               int heads, int d) {
  const std::int64_t i = global_index();
  if (i >= items) return;
  const std::int64_t row = i / d / heads;
  const int head = static_cast<int>(i / d % heads), at = static_cast<int>(i % d);
  const From* from = x.row(row, head);
  const int dims = static_cast<int>(table.dims);
  float value = to_f32(from[at]);
  if (at < dims) {
    const int partner = table.interleaved ? at ^ 1 : (at < dims / 2 ? at + dims / 2 : at - dims / 2);
    const std::int64_t entry = (first_position + row) * dims + at;
    value = turned(value, to_f32(from[partner]), table.cos[entry], table.sin[entry]);
  }
  y.row(row, head)[at] = from_f32<To>(value);
}

// All dimensions rotate, d a multiple of 16, rows on 16 bytes: a thread turns eight dimensions.
template <typename From, typename To>
__global__ void __launch_bounds__(kThreads)
    rotate_aligned(View3<const From> x, View3<To> y, RopeTableView table, std::int64_t first_position,
                   std::int64_t items, int heads, int d) {
  const std::int64_t i = global_index();
  if (i >= items) return;
  const int eighths = d / 8;
  const std::int64_t line = quotient(i, eighths), row = quotient(line, heads);
  const int head = static_cast<int>(line - row * heads), part = static_cast<int>(i - line * eighths);
  // Two groups of four: neighbours when pairs are neighbours, half a row apart when they are not.
  const int low = table.interleaved ? part * 8 : part * 4;
  const int high = table.interleaved ? low + 4 : low + d / 2;
  const From* from = x.row(row, head);
  To* to = y.row(row, head);
  const float* cos = table.cos + (first_position + row) * d;
  const float* sin = table.sin + (first_position + row) * d;
  float a[4], b[4], cos_a[4], cos_b[4], sin_a[4], sin_b[4], out_a[4], out_b[4];
  load_f32(from + low, a);
  load_f32(from + high, b);
  load_f32(cos + low, cos_a);
  load_f32(cos + high, cos_b);
  load_f32(sin + low, sin_a);
  load_f32(sin + high, sin_b);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    out_a[k] = turned(a[k], table.interleaved ? a[k ^ 1] : b[k], cos_a[k], sin_a[k]);
    out_b[k] = turned(b[k], table.interleaved ? b[k ^ 1] : a[k], cos_b[k], sin_b[k]);
  }
  store_f32(out_a, to + low);
  store_f32(out_b, to + high);
}

template <typename From, typename To>
void launch(Runtime& rt, const RopeTableView& table, const Tensor& x, std::int64_t first_position, const Tensor& y) {
  const std::int64_t rows = x.dim(0) * x.dim(1);
  const int heads = static_cast<int>(x.dim(1)), d = static_cast<int>(x.dim(2));
  if (rows == 0) return;
  const bool aligned = d % 16 == 0 && table.dims == d && rows_aligned(x) && rows_aligned(y);
  const std::int64_t items = rows * (aligned ? d / 8 : d);
  const auto blocks = static_cast<unsigned>((items + kThreads - 1) / kThreads);
  const auto kernel = aligned ? rotate_aligned<From, To> : rotate_any<From, To>;
  kernel<<<blocks, kThreads, 0, rt.stream()>>>(view3<const From>(x), view3<To>(y), table, first_position, items, heads,
                                               d);
  rt.launched("rotating to positions");
}

}  // namespace

void rotate(Runtime& rt, const RopeTableView& table, const Tensor& x, std::int64_t first_position, const Tensor& y) {
  const bool from_narrow = x.type() == ElementType::kBF16, to_narrow = y.type() == ElementType::kBF16;
  if (from_narrow && to_narrow) return launch<Bf16, Bf16>(rt, table, x, first_position, y);
  if (from_narrow) return launch<Bf16, float>(rt, table, x, first_position, y);
  if (to_narrow) return launch<float, Bf16>(rt, table, x, first_position, y);
  launch<float, float>(rt, table, x, first_position, y);
}

}  // namespace finchkv::kernels::cuda
