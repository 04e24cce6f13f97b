// Attention of a few bf16 query rows against many keys (decoding): the keys are split over the GPU.
//
// Bytes: K and V once, 4 T KV D. A block takes one KV head's share of the keys for all rows of its query group; eight
// lanes share a key, so a load is 16 bytes a lane, and each such team keeps its own running softmax. Teams, then
// blocks, are merged in a fixed order; the number of blocks depends on T and the GPU alone.
#include "kernels/cuda/attention_partial.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/ops.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kLanes = 8;  // of a team
constexpr int kTeams = kThreads / kLanes;
constexpr int kMaxRows = 8;  // query rows of one KV head: n times the heads of its group
constexpr int kMinKeys = 64;

struct Shape {
  std::int64_t n, total, keys_per_block;
  int group;
  float scale;
};

template <int kDim, int kRows>
__global__ void __launch_bounds__(kThreads)
    split_kernel(View3<const Bf16> q, View3<const Bf16> k, View3<const Bf16> v, Partial<kDim>* partials, Shape shape) {
  constexpr int kOwn = kDim / kLanes;  // dimensions of a lane
  __shared__ float queries[kRows][kDim];
  __shared__ float team_most[kTeams][kRows], team_sum[kTeams][kRows];
  __shared__ float merged[kRows][kDim];
  const int kv = static_cast<int>(blockIdx.y), split = static_cast<int>(blockIdx.x);
  const int team = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
  const int used = static_cast<int>(shape.n) * shape.group;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kDim; i += kThreads) {
    const int row = i / kDim;
    queries[row][i % kDim] =
        row < used ? to_f32(q.row(row / shape.group, kv * shape.group + row % shape.group)[i % kDim]) * shape.scale
                   : 0.0F;
    merged[row][i % kDim] = 0;
  }
  __syncthreads();

  float most[kRows], sum[kRows], out[kRows][kOwn];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    most[r] = -INFINITY;
    sum[r] = 0;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) out[r][i] = 0;
  }
  const std::int64_t first = split * shape.keys_per_block;
  const std::int64_t end = min(first + shape.keys_per_block, shape.total);
  // Every lane of a warp takes part in the shuffles: teams past the end look at the last key and drop it.
  for (std::int64_t base = first; base < end; base += kTeams) {
    const std::int64_t wanted = base + team;
    const std::int64_t key = min(wanted, end - 1);
    float keys[kOwn], values[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; i += 8) {
      float part[8];
      load_f32(k.row(kv, key) + (i * kLanes + lane * 8), part);
#pragma unroll
      for (int j = 0; j < 8; ++j) keys[i + j] = part[j];
      load_f32(v.row(kv, key) + (i * kLanes + lane * 8), part);
#pragma unroll
      for (int j = 0; j < 8; ++j) values[i + j] = part[j];
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float logit = 0;
#pragma unroll
      for (int i = 0; i < kOwn; i += 8) {
#pragma unroll
        for (int j = 0; j < 8; ++j) logit = __fmaf_rn(queries[r][i * kLanes + lane * 8 + j], keys[i + j], logit);
      }
#pragma unroll
      for (int step = kLanes / 2; step > 0; step /= 2) logit += __shfl_xor_sync(0xffffffffU, logit, step);
      const std::int64_t seen = shape.total - shape.n + r / shape.group + 1;
      if (wanted >= end || wanted >= seen) continue;
      const float next = fmaxf(most[r], logit);
      const float keep = __expf(most[r] - next), p = __expf(logit - next);
      most[r] = next;
      sum[r] = sum[r] * keep + p;
#pragma unroll
      for (int i = 0; i < kOwn; ++i) out[r][i] = __fmaf_rn(p, values[i], out[r][i] * keep);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (lane == 0) {
      team_most[team][r] = most[r];
      team_sum[team][r] = sum[r];
    }
  }
  __syncthreads();
  // One team after the other adds its share.
  for (int t = 0; t < kTeams; ++t) {
    if (t == team) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float high = -INFINITY;
        for (int other = 0; other < kTeams; ++other) high = fmaxf(high, team_most[other][r]);
        const float factor = most[r] == -INFINITY ? 0.0F : __expf(most[r] - high);
#pragma unroll
        for (int i = 0; i < kOwn; ++i) merged[r][(i / 8 * kLanes + lane) * 8 + i % 8] += out[r][i] * factor;
      }
    }
    __syncthreads();
  }
  const int heads_rows = static_cast<int>(gridDim.y) * kRows;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kDim; i += kThreads) {
    const int row = i / kDim;
    Partial<kDim>& to = partials[static_cast<std::int64_t>(split) * heads_rows + kv * kRows + row];
    to.out[i % kDim] = merged[row][i % kDim];
    if (i % kDim != 0) continue;
    float high = -INFINITY, total = 0;
    for (int t = 0; t < kTeams; ++t) high = fmaxf(high, team_most[t][row]);
    for (int t = 0; t < kTeams; ++t)
      total += team_most[t][row] == -INFINITY ? 0.0F : team_sum[t][row] * __expf(team_most[t][row] - high);
    to.most = high;
    to.sum = total;
  }
}

template <int kDim, int kRows>
void launch(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
            const Tensor& lse) {
  const std::int64_t n = q.dim(0), total = k.dim(1), kv_heads = k.dim(0);
  const int group = static_cast<int>(q.dim(1) / kv_heads);
  const std::int64_t wanted = std::max<std::int64_t>(1, 2 * rt.processors() / kv_heads);
  std::int64_t keys = std::max<std::int64_t>(kMinKeys, (total + wanted - 1) / wanted);
  keys = (keys + kTeams - 1) / kTeams * kTeams;
  const std::int64_t splits = (total + keys - 1) / keys;
  const auto memory = rt.scratch(static_cast<std::size_t>(splits * kv_heads * kRows) * sizeof(Partial<kDim>));
  if (memory == nullptr) return;
  auto* partials = static_cast<Partial<kDim>*>(memory.get());
  const dim3 grid(static_cast<unsigned>(splits), static_cast<unsigned>(kv_heads));
  split_kernel<kDim, kRows><<<grid, kThreads, 0, rt.stream()>>>(
      view3<const Bf16>(q), view3<const Bf16>(k), view3<const Bf16>(v), partials, Shape{n, total, keys, group, scale});
  merge_partials<kDim>(rt, partials, splits, kRows, n, group, static_cast<int>(kv_heads), out, lse);
  rt.launched("attention of few rows");
}

template <int kDim>
void choose(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
            const Tensor& lse) {
  const std::int64_t rows = q.dim(0) * (q.dim(1) / k.dim(0));
  if (rows <= 1) return launch<kDim, 1>(rt, q, k, v, scale, out, lse);
  if (rows <= 2) return launch<kDim, 2>(rt, q, k, v, scale, out, lse);
  if (rows <= 4) return launch<kDim, 4>(rt, q, k, v, scale, out, lse);
  launch<kDim, 8>(rt, q, k, v, scale, out, lse);
}

}  // namespace

bool attention_split_takes(const Tensor& q, const Tensor& k) {
  return q.type() == ElementType::kBF16 && (q.dim(2) == 64 || q.dim(2) == 128) &&
         q.dim(0) * (q.dim(1) / k.dim(0)) <= kMaxRows && rows_aligned(k);
}

void attention_split(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
                     const Tensor& lse) {
  if (q.dim(2) == 64)
    choose<64>(rt, q, k, v, scale, out, lse);
  else
    choose<128>(rt, q, k, v, scale, out, lse);
}

}  // namespace finchkv::kernels::cuda
