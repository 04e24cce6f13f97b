// A decoding step's attention for many sequences at once: rotate, append, attend, merge, in two launches.
//
// Bytes: every slot's K and V once, 4 T KV D each. A block takes a share of one slot's keys for one KV head and its
// group of query heads; eight lanes share a key, so a load is 16 bytes a lane, and each such team keeps its own running
// softmax. The block of the last share writes the new key and value first. Shares depend on the longest slot and the
// GPU alone; teams, then blocks, are merged in a fixed order.
#include <algorithm>

#include "kernels/cuda/attention_partial.cuh"
#include "kernels/cuda/ops.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kLanes = 8;  // of a team
constexpr int kTeams = kThreads / kLanes;
constexpr int kMaxGroup = 8;
constexpr int kMinKeys = 64;
constexpr int kMaxSlots = 32;  // of one launch: their places travel as its parameters

struct Slot {
  Bf16* keys;
  Bf16* values;
  std::int64_t key_stride, value_stride;  // from KV head to KV head
  std::int32_t used, position;
};

struct Step {
  Slot slots[kMaxSlots];
  View3<const float> q, k, v;
  RopeTableView table;
  std::int64_t keys_per_block;
  int group;
  float scale;
};

__device__ __forceinline__ float rotated(const float* row, int at, int dims, const RopeTableView& table,
                                         std::int64_t position) {
  const int partner = table.interleaved ? at ^ 1 : (at < dims / 2 ? at + dims / 2 : at - dims / 2);
  const std::int64_t entry = position * dims + at;
  return __fmaf_rn(row[at], table.cos[entry], row[partner] * table.sin[entry]);
}

template <int kDim, int kGroup>
__global__ void __launch_bounds__(kThreads) decode_kernel(const __grid_constant__ Step step, Partial<kDim>* partials) {
  constexpr int kOwn = kDim / kLanes;  // dimensions of a lane
  __shared__ float queries[kGroup][kDim];
  __shared__ float team_most[kTeams][kGroup], team_sum[kTeams][kGroup];
  __shared__ float merged[kGroup][kDim];
  const int split = static_cast<int>(blockIdx.x), kv = static_cast<int>(blockIdx.y), row = static_cast<int>(blockIdx.z);
  const Slot& slot = step.slots[row];
  const int team = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
  Bf16* keys = slot.keys + kv * slot.key_stride;
  Bf16* values = slot.values + kv * slot.value_stride;
  const std::int64_t total = slot.used + 1, first = split * step.keys_per_block;
  const std::int64_t end = min(first + step.keys_per_block, total);

  for (int i = static_cast<int>(threadIdx.x); i < kGroup * kDim; i += kThreads) {
    const int head = i / kDim, at = i % kDim;
    queries[head][at] =
        head < step.group
            ? rotated(step.q.row(row, kv * step.group + head), at, kDim, step.table, slot.position) * step.scale
            : 0.0F;
    merged[head][at] = 0;
  }
  if (first < total && end == total) {
    for (int at = static_cast<int>(threadIdx.x); at < kDim; at += kThreads) {
      keys[slot.used * kDim + at] = from_f32<Bf16>(rotated(step.k.row(row, kv), at, kDim, step.table, slot.position));
      values[slot.used * kDim + at] = from_f32<Bf16>(step.v.row(row, kv)[at]);
    }
  }
  __syncthreads();

  float most[kGroup], sum[kGroup], out[kGroup][kOwn];
#pragma unroll
  for (int r = 0; r < kGroup; ++r) {
    most[r] = -INFINITY;
    sum[r] = 0;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) out[r][i] = 0;
  }
  // Every lane of a warp takes part in the shuffles: teams past the end look at the last key and drop it.
  for (std::int64_t base = first; base < end; base += kTeams) {
    const std::int64_t wanted = base + team;
    const std::int64_t key = min(wanted, end - 1);
    float k_part[kOwn], v_part[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; i += 8) {
      float part[8];
      load_f32(keys + key * kDim + (i * kLanes + lane * 8), part);
#pragma unroll
      for (int j = 0; j < 8; ++j) k_part[i + j] = part[j];
      load_f32(values + key * kDim + (i * kLanes + lane * 8), part);
#pragma unroll
      for (int j = 0; j < 8; ++j) v_part[i + j] = part[j];
    }
#pragma unroll
    for (int r = 0; r < kGroup; ++r) {
      float logit = 0;
#pragma unroll
      for (int i = 0; i < kOwn; i += 8) {
#pragma unroll
        for (int j = 0; j < 8; ++j) logit = __fmaf_rn(queries[r][i * kLanes + lane * 8 + j], k_part[i + j], logit);
      }
#pragma unroll
      for (int step_size = kLanes / 2; step_size > 0; step_size /= 2)
        logit += __shfl_xor_sync(0xffffffffU, logit, step_size);
      if (wanted >= end) continue;
      const float next = fmaxf(most[r], logit);
      const float keep = __expf(most[r] - next), p = __expf(logit - next);
      most[r] = next;
      sum[r] = sum[r] * keep + p;
#pragma unroll
      for (int i = 0; i < kOwn; ++i) out[r][i] = __fmaf_rn(p, v_part[i], out[r][i] * keep);
    }
  }
#pragma unroll
  for (int r = 0; r < kGroup; ++r) {
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
      for (int r = 0; r < kGroup; ++r) {
        float high = -INFINITY;
        for (int other = 0; other < kTeams; ++other) high = fmaxf(high, team_most[other][r]);
        const float factor = most[r] == -INFINITY ? 0.0F : __expf(most[r] - high);
#pragma unroll
        for (int i = 0; i < kOwn; ++i) merged[r][(i / 8 * kLanes + lane) * 8 + i % 8] += out[r][i] * factor;
      }
    }
    __syncthreads();
  }
  const std::int64_t place = (static_cast<std::int64_t>(row) * gridDim.x + split) * gridDim.y + kv;
  for (int i = static_cast<int>(threadIdx.x); i < kGroup * kDim; i += kThreads) {
    const int head = i / kDim;
    Partial<kDim>& to = partials[place * kGroup + head];
    to.out[i % kDim] = merged[head][i % kDim];
    if (i % kDim != 0) continue;
    float high = -INFINITY, all = 0;
    for (int t = 0; t < kTeams; ++t) high = fmaxf(high, team_most[t][head]);
    for (int t = 0; t < kTeams; ++t)
      all += team_most[t][head] == -INFINITY ? 0.0F : team_sum[t][head] * __expf(team_most[t][head] - high);
    to.most = high;
    to.sum = all;
  }
}

// partials [slots][splits][KV][kGroup]
template <int kDim, int kGroup>
__global__ void __launch_bounds__(kDim)
    merge_slots(const Partial<kDim>* __restrict__ partials, int splits, int group, View3<Bf16> out) {
  const int kv = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y), row = static_cast<int>(blockIdx.z);
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kGroup;
  const Partial<kDim>* from = partials + static_cast<std::int64_t>(row) * splits * step + kv * kGroup + head;
  float high = -INFINITY;
  for (int s = 0; s < splits; ++s) high = fmaxf(high, from[s * step].most);
  float sum = 0, value = 0;
  for (int s = 0; s < splits; ++s) {
    const Partial<kDim>& part = from[s * step];
    const float factor = part.most == -INFINITY ? 0.0F : __expf(part.most - high);
    sum += part.sum * factor;
    value = __fmaf_rn(part.out[threadIdx.x], factor, value);
  }
  out.row(row, kv * group + head)[threadIdx.x] = from_f32<Bf16>(value / sum);
}

template <int kDim, int kGroup>
void launch(Runtime& rt, const Step& step, std::int64_t slots, std::int64_t longest, std::int64_t kv_heads,
            const Tensor& out) {
  const std::int64_t splits = (longest + step.keys_per_block - 1) / step.keys_per_block;
  const auto memory = rt.scratch(static_cast<std::size_t>(slots * splits * kv_heads * kGroup) * sizeof(Partial<kDim>));
  if (memory == nullptr) return;
  auto* partials = static_cast<Partial<kDim>*>(memory.get());
  const auto n = static_cast<unsigned>(slots), heads = static_cast<unsigned>(kv_heads);
  decode_kernel<kDim, kGroup>
      <<<dim3(static_cast<unsigned>(splits), heads, n), kThreads, 0, rt.stream()>>>(step, partials);
  rt.launched("attention of a decoding step");
  merge_slots<kDim, kGroup><<<dim3(heads, static_cast<unsigned>(step.group), n), kDim, 0, rt.stream()>>>(
      partials, static_cast<int>(splits), step.group, view3<Bf16>(out));
  rt.launched("merging a decoding step");
}

template <int kDim>
void choose(Runtime& rt, const Step& step, std::int64_t slots, std::int64_t longest, std::int64_t kv_heads,
            const Tensor& out) {
  if (step.group <= 1) return launch<kDim, 1>(rt, step, slots, longest, kv_heads, out);
  if (step.group <= 2) return launch<kDim, 2>(rt, step, slots, longest, kv_heads, out);
  if (step.group <= 4) return launch<kDim, 4>(rt, step, slots, longest, kv_heads, out);
  launch<kDim, kMaxGroup>(rt, step, slots, longest, kv_heads, out);
}

}  // namespace

bool decode_batch_takes(const RopeTableView& table, const Tensor& q, std::span<const DecodeSlot> slots) {
  const std::int64_t d = q.dim(2);
  if ((d != 64 && d != 128) || table.dims != d) return false;
  return std::all_of(slots.begin(), slots.end(), [&](const DecodeSlot& slot) {
    return slot.keys.type() == ElementType::kBF16 && q.dim(1) / slot.keys.dim(0) <= kMaxGroup &&
           slot.keys.stride(1) == d && slot.values.stride(1) == d && rows_aligned(slot.keys) &&
           rows_aligned(slot.values);
  });
}

void decode_batch(Runtime& rt, const RopeTableView& table, const Tensor& q, const Tensor& k, const Tensor& v,
                  std::span<const DecodeSlot> slots, float scale, const Tensor& out) {
  const std::int64_t kv_heads = k.dim(1), d = q.dim(2);
  for (std::size_t at = 0; at < slots.size(); at += kMaxSlots) {
    const std::size_t count = std::min<std::size_t>(kMaxSlots, slots.size() - at);
    const auto first = static_cast<std::int64_t>(at), n = static_cast<std::int64_t>(count);
    Step step{};
    std::int64_t longest = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const DecodeSlot& slot = slots[at + i];
      step.slots[i] = {slot.keys.data<Bf16>(),
                       slot.values.data<Bf16>(),
                       slot.keys.stride(0),
                       slot.values.stride(0),
                       static_cast<std::int32_t>(slot.used),
                       static_cast<std::int32_t>(slot.position)};
      longest = std::max(longest, slot.used + 1);
    }
    step.q = view3<const float>(q.slice(0, first, n));
    step.k = view3<const float>(k.slice(0, first, n));
    step.v = view3<const float>(v.slice(0, first, n));
    step.table = table;
    step.group = static_cast<int>(q.dim(1) / kv_heads);
    step.scale = scale;
    const std::int64_t wanted = std::max<std::int64_t>(1, 2 * rt.processors() / (kv_heads * n));
    const std::int64_t keys = std::max<std::int64_t>(kMinKeys, (longest + wanted - 1) / wanted);
    step.keys_per_block = (keys + kTeams - 1) / kTeams * kTeams;
    const Tensor rows = out.slice(0, first, n);
    if (d == 64)
      choose<64>(rt, step, n, longest, kv_heads, rows);
    else
      choose<128>(rt, step, n, longest, kv_heads, rows);
  }
}

}  // namespace finchkv::kernels::cuda
