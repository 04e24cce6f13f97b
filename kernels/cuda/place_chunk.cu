// Device::place_chunk in one launch: queries turned, new keys and values to the cache's type, kept ones before them,
// and all keys turned to their places.
//
// Bytes: q, k and v once in f32, queries and values once in the cache's type, keys twice (before and after RoPE), kept
// entries read once: 176 MB for 4160 rows behind 1400 kept entries, 32/8 heads of 128. A thread has eight dimensions of
// four heads of one row, so the tables are read once for four; the blocks are shared out among three kinds of rows.
#include "kernels/cuda/rope.cuh"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHeads = 4;  // of a thread

template <typename T>
struct Places {
  View3<const float> q, k, v;
  View3<const T> kept_keys, kept_values;
  View3<T> queries, plain_keys, rotated_keys, values;
  const std::int32_t* kept_origins;
  std::int32_t* origins;
  std::int64_t kept_origin_stride, origin_stride;
  RopeTableView table;
  std::int64_t n, kept;
  int heads, kv_heads, d, origin_rows;
  std::int64_t query_blocks, new_blocks;
};

// A thread's part of `rows` rows of `heads` heads; false when there is none for it.
struct Part {
  std::int64_t row = 0;
  int first_head = 0, at = 0;
  __device__ __forceinline__ bool find(std::int64_t block, std::int64_t rows, int heads, int eighths) {
    const std::int64_t i = block * kThreads + threadIdx.x;
    const int groups = (heads + kHeads - 1) / kHeads;
    const std::int64_t line = quotient(i, eighths);
    row = quotient(line, groups);
    at = static_cast<int>(i - line * eighths);
    first_head = static_cast<int>(line - row * groups) * kHeads;
    return row < rows;
  }
};

template <typename T, bool kInterleaved>
__device__ __forceinline__ void place_query(const Places<T>& p, std::int64_t block) {
  Part part;
  if (!part.find(block, p.n, p.heads, p.d / 8)) return;
  const EightDims<kInterleaved> dims(part.at, p.d);
  float x[kHeads][8];
#pragma unroll
  for (int h = 0; h < kHeads; ++h)
    if (part.first_head + h < p.heads) dims.load(p.q.row(part.row, part.first_head + h), x[h]);
  const EightTurns<kInterleaved> turns(p.table, p.kept + part.row, dims);
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    if (part.first_head + h >= p.heads) break;
    float y[8];
    turns.turn(x[h], y);
    dims.store(y, p.queries.row(part.row, part.first_head + h));
  }
}

// Entry `place` of the lists from rows that lie as k_row(head) and v_row(head) say.
template <typename T, bool kInterleaved, typename Row>
__device__ __forceinline__ void place_entry(const Places<T>& p, const Part& part, std::int64_t place, const Row& k_row,
                                            const Row& v_row) {
  const EightDims<kInterleaved> dims(part.at, p.d);
  const int in_order = part.at * 8;
  float k[kHeads][8], v[kHeads][8];
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    if (part.first_head + h >= p.kv_heads) break;
    dims.load(k_row(part.first_head + h), k[h]);
    load_f32(v_row(part.first_head + h) + in_order, v[h]);
  }
  const EightTurns<kInterleaved> turns(p.table, place, dims);
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    const int head = part.first_head + h;
    if (head >= p.kv_heads) break;
    store_f32(v[h], p.values.row(head, place) + in_order);
    dims.store(k[h], p.plain_keys.row(head, place));
    // Turned is what a kept key will be: rounded to the cache's type before.
    float y[8];
#pragma unroll
    for (float& x : k[h]) x = to_f32(from_f32<T>(x));
    turns.turn(k[h], y);
    dims.store(y, p.rotated_keys.row(head, place));
  }
}

template <typename T>
struct RowsFirst {
  View3<const T> x;
  std::int64_t row;
  __device__ __forceinline__ const T* operator()(int head) const { return x.row(row, head); }
};
template <typename T>
struct HeadsFirst {
  View3<const T> x;
  std::int64_t row;
  __device__ __forceinline__ const T* operator()(int head) const { return x.row(head, row); }
};

template <typename T, bool kInterleaved>
__global__ void __launch_bounds__(kThreads) place_kernel(Places<T> p) {
  std::int64_t block = blockIdx.x;
  if (block < p.query_blocks) return place_query<T, kInterleaved>(p, block);
  block -= p.query_blocks;
  Part part;
  if (block < p.new_blocks) {
    if (!part.find(block, p.n, p.kv_heads, p.d / 8)) return;
    return place_entry<T, kInterleaved>(p, part, p.kept + part.row, RowsFirst<float>{p.k, part.row},
                                        RowsFirst<float>{p.v, part.row});
  }
  block -= p.new_blocks;
  if (!part.find(block, p.kept, p.kv_heads, p.d / 8)) return;
  place_entry<T, kInterleaved>(p, part, part.row, HeadsFirst<T>{p.kept_keys, part.row},
                               HeadsFirst<T>{p.kept_values, part.row});
  if (part.first_head != 0) return;
  for (int r = part.at; r < p.origin_rows; r += p.d / 8)
    p.origins[r * p.origin_stride + part.row] = p.kept_origins[r * p.kept_origin_stride + part.row];
}

template <typename T>
void launch(Runtime& rt, const RopeTableView& table, const ChunkRows& c) {
  const std::int64_t n = c.q.dim(0), kept = c.kept_keys.dim(1);
  const int heads = static_cast<int>(c.q.dim(1)), kv_heads = static_cast<int>(c.k.dim(1));
  const int d = static_cast<int>(c.q.dim(2));
  const auto blocks_for = [&](std::int64_t rows, int of_heads) {
    return (rows * ((of_heads + kHeads - 1) / kHeads) * (d / 8) + kThreads - 1) / kThreads;
  };
  Places<T> p{};
  p.q = view3<const float>(c.q);
  p.k = view3<const float>(c.k);
  p.v = view3<const float>(c.v);
  p.kept_keys = view3<const T>(c.kept_keys);
  p.kept_values = view3<const T>(c.kept_values);
  p.queries = view3<T>(c.queries);
  p.plain_keys = view3<T>(c.plain_keys);
  p.rotated_keys = view3<T>(c.rotated_keys);
  p.values = view3<T>(c.values);
  p.kept_origins = c.kept_origins.data<std::int32_t>();
  p.origins = c.origins.data<std::int32_t>();
  p.kept_origin_stride = c.kept_origins.stride(0);
  p.origin_stride = c.origins.stride(0);
  p.table = table;
  p.n = n;
  p.kept = kept;
  p.heads = heads;
  p.kv_heads = kv_heads;
  p.d = d;
  p.origin_rows = static_cast<int>(c.origins.dim(0));
  p.query_blocks = blocks_for(n, heads);
  p.new_blocks = blocks_for(n, kv_heads);
  const auto blocks = static_cast<unsigned>(p.query_blocks + p.new_blocks + blocks_for(kept, kv_heads));
  if (blocks == 0) return;
  const auto kernel = table.interleaved ? place_kernel<T, true> : place_kernel<T, false>;
  kernel<<<blocks, kThreads, 0, rt.stream()>>>(p);
  rt.launched("bringing a chunk's rows to their places");
}

}  // namespace

bool place_chunk_takes(const RopeTableView& table, const ChunkRows& c) {
  if (c.q.type() != ElementType::kF32 || c.q.dim(2) % 16 != 0 || table.dims != c.q.dim(2)) return false;
  for (const Tensor* t :
       {&c.q, &c.k, &c.v, &c.kept_keys, &c.kept_values, &c.queries, &c.plain_keys, &c.rotated_keys, &c.values})
    if (!rows_aligned(*t)) return false;
  return true;
}

void place_chunk(Runtime& rt, const RopeTableView& table, const ChunkRows& c) {
  if (c.values.type() == ElementType::kBF16)
    launch<Bf16>(rt, table, c);
  else
    launch<float>(rt, table, c);
}

}  // namespace finchkv::kernels::cuda
