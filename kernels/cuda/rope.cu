// RoPE from tables: a pair (a, b) becomes (a cos - b sin, b cos + a sin); dimensions past the rotated ones are copied.
//
// Bytes: each x once, each y once; the tables (8 bytes a dimension and position) stay in L2 over the heads. Four pairs
// a thread where rows allow 16-byte accesses.
#include "kernels/cuda/rope.cuh"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kThreads = kItemThreads;

template <typename From, typename To>
__global__ void __launch_bounds__(kThreads)
    rotate_any(View3<const From> x, View3<To> y, RopeTableView table, std::int64_t first_position, std::int64_t items,
               int heads, int d) {
  const std::int64_t i = item_index();
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
template <typename From, typename To, bool kInterleaved>
__global__ void __launch_bounds__(kThreads)
    rotate_aligned(View3<const From> x, View3<To> y, RopeTableView table, std::int64_t first_position,
                   std::int64_t items, int heads, int d) {
  const std::int64_t i = item_index();
  if (i >= items) return;
  const int eighths = d / 8;
  const std::int64_t line = quotient(i, eighths), row = quotient(line, heads);
  const int head = static_cast<int>(line - row * heads);
  const EightDims<kInterleaved> dims(static_cast<int>(i - line * eighths), d);
  const EightTurns<kInterleaved> turns(table, first_position + row, dims);
  float from[8], to[8];
  dims.load(x.row(row, head), from);
  turns.turn(from, to);
  dims.store(to, y.row(row, head));
}

template <typename From, typename To>
void launch(Runtime& rt, const RopeTableView& table, const Tensor& x, std::int64_t first_position, const Tensor& y) {
  const std::int64_t rows = x.dim(0) * x.dim(1);
  const int heads = static_cast<int>(x.dim(1)), d = static_cast<int>(x.dim(2));
  if (rows == 0) return;
  const bool aligned = d % 16 == 0 && table.dims == d && rows_aligned(x) && rows_aligned(y);
  const std::int64_t items = rows * (aligned ? d / 8 : d);
  const auto blocks = static_cast<unsigned>((items + kThreads - 1) / kThreads);
  const auto kernel = !aligned            ? rotate_any<From, To>
                      : table.interleaved ? rotate_aligned<From, To, true>
                                          : rotate_aligned<From, To, false>;
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
