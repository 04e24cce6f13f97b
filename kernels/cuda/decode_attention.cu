// A decoding step's attention for many sequences at once: rotate, append, attend, merge, in one launch.
//
// Bytes: every cache's K and V once, 4 T KV D in bf16. A block takes a share of one cache's keys for one KV head and up
// to eight of its query heads; eight lanes share a key, so a load is 16 bytes a lane, and each such team keeps its own
// running softmax. The token's own key and value never come from the cache: the block of the last share has them, and
// appends them. Teams are merged, then warps, then (by the block that ends last) shares, each in a fixed order. Shares
// depend on the cache's length and the table alone, in f32 on the length alone.
//
// Where caches lie and how long they are is read from a DecodeTable, so the same launch serves other caches; blocks
// beyond a cache's shares end at once.
#include <algorithm>
#include <cassert>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/decode_table.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kLanes = 8;  // of a team
constexpr int kTeams = kThreads / kLanes;
constexpr int kMostGroup = 8;    // query heads of a block
constexpr int kMostShares = 64;  // of a cache
constexpr int kReferenceShares = 16;
constexpr std::int64_t kMinKeys = 64;  // of a share

struct Step {
  const StepView* common;
  const CacheView* caches;  // [rows]
  View3<const float> q, k, v;
  void* partials;      // ShareOfHead [rows][blocks of heads][shares][group]
  unsigned* counters;  // [rows][blocks of heads]
  int rope_dims, d, group, chunks;
  bool interleaved;
  float scale;
};

template <typename T>
__device__ __forceinline__ float power(float x) {
  return std::is_same_v<T, float> ? expf(x) : __expf(x);
}

// exp(most - high), 0 where nothing was seen.
template <typename T>
__device__ __forceinline__ float weight_of(float most, float high) {
  return most == -INFINITY ? 0.0F : power<T>(most - high);
}

// Value `at` of a head's row, rotated to the position whose cosines and sines these are.
__device__ __forceinline__ float rotated(const float* row, int at, const Step& step, const float* cos,
                                         const float* sin) {
  const int dims = step.rope_dims;
  if (at >= dims) return row[at];
  const int partner = step.interleaved ? at ^ 1 : (at < dims / 2 ? at + dims / 2 : at - dims / 2);
  return __fmaf_rn(row[at], cos[at], row[partner] * sin[at]);
}

// A lane's part of a key or value: dimensions (i / 8 * kLanes + lane) * 8 + i % 8.
template <typename T, int kOwn, bool kWhole>
struct Part {
  T at[kOwn];
  __device__ __forceinline__ void load(const T* row, int lane, int d) {
#pragma unroll
    for (int i = 0; i < kOwn; i += 8) {
      const int first = i * kLanes + lane * 8;
      if constexpr (kWhole) {
        const auto pack = *reinterpret_cast<const Pack<T, 8>*>(row + first);
#pragma unroll
        for (int j = 0; j < 8; ++j) at[i + j] = pack.at[j];
      } else {
#pragma unroll
        for (int j = 0; j < 8; ++j) at[i + j] = first + j < d ? row[first + j] : from_f32<T>(0);
      }
    }
  }
};

template <int kGroup, int kOwn>
struct Softmax {
  float most[kGroup], sum[kGroup], out[kGroup][kOwn];
};

// Takes up to kKeys keys into a team's running softmax. Every lane of the warp calls it; a team has `count` of them.
template <typename T, int kDim, int kGroup, int kKeys, typename OwnPart>
__device__ __forceinline__ void take(const OwnPart (&keys)[kKeys], const OwnPart (&values)[kKeys],
                                     const float (*queries)[kDim], int lane, std::int64_t count,
                                     Softmax<kGroup, kDim / kLanes>& state) {
  constexpr int kOwn = kDim / kLanes;
#pragma unroll
  for (int r = 0; r < kGroup; ++r) {
    float logits[kKeys] = {};
#pragma unroll
    for (int i = 0; i < kOwn; i += 8) {
      float query[8];
      load_f32(&queries[r][i * kLanes + lane * 8], query);
#pragma unroll
      for (int key = 0; key < kKeys; ++key) {
#pragma unroll
        for (int j = 0; j < 8; ++j) logits[key] = __fmaf_rn(query[j], to_f32(keys[key].at[i + j]), logits[key]);
      }
    }
    float next = state.most[r];
#pragma unroll
    for (int key = 0; key < kKeys; ++key) {
#pragma unroll
      for (int other = kLanes / 2; other > 0; other /= 2)
        logits[key] += __shfl_xor_sync(0xffffffffU, logits[key], other);
      if (key >= count) logits[key] = -INFINITY;
      next = fmaxf(next, logits[key]);
    }
    if (count <= 0) continue;
    const float keep = power<T>(state.most[r] - next);
    state.most[r] = next;
    state.sum[r] *= keep;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) state.out[r][i] *= keep;
#pragma unroll
    for (int key = 0; key < kKeys; ++key) {
      const float p = power<T>(logits[key] - next);
      state.sum[r] += p;
#pragma unroll
      for (int i = 0; i < kOwn; ++i) state.out[r][i] = __fmaf_rn(p, to_f32(values[key].at[i]), state.out[r][i]);
    }
  }
}

// What a block leaves of a query head: weighted values, the highest logit, the sum of exp(logit - most).
template <int kDim>
struct alignas(16) ShareOfHead {
  float out[kDim];
  float most, sum;
};

// The block that ends last merges the shares of its heads.
template <typename T, int kDim, int kGroup, bool kWhole>
__device__ void merge_shares(const ShareOfHead<kDim>* from, int shares, int heads, int d, std::int64_t row,
                             std::int64_t first_head, View3<T> out) {
  __shared__ float most[kMostShares][kGroup], sums[kMostShares][kGroup], weights[kMostShares][kGroup];
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < shares * kGroup; i += kThreads) {
    most[i / kGroup][i % kGroup] = __ldcg(&from[i].most);
    sums[i / kGroup][i % kGroup] = __ldcg(&from[i].sum);
  }
  __syncthreads();
  for (int i = thread; i < shares * heads; i += kThreads) {
    const int head = i % heads;
    float high = -INFINITY;
    for (int s = 0; s < shares; ++s) high = fmaxf(high, most[s][head]);
    weights[i / heads][head] = weight_of<T>(most[i / heads][head], high);
  }
  __syncthreads();
  for (int i = thread * 4; i < heads * kDim; i += kThreads * 4) {
    const int head = i / kDim, at = i % kDim;
    float sum = 0;
    float value[4] = {};
#pragma unroll 16
    for (int s = 0; s < shares; ++s) {
      const float weight = weights[s][head];
      const float4 part = __ldcg(reinterpret_cast<const float4*>(&from[s * kGroup + head].out[at]));
      sum += sums[s][head] * weight;
      value[0] = __fmaf_rn(part.x, weight, value[0]);
      value[1] = __fmaf_rn(part.y, weight, value[1]);
      value[2] = __fmaf_rn(part.z, weight, value[2]);
      value[3] = __fmaf_rn(part.w, weight, value[3]);
    }
    T* to = out.row(row, first_head + head) + at;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (kWhole || at + j < d) to[j] = from_f32<T>(value[j] / sum);
    }
  }
}

// kDim: head dimension where kWhole (16-byte accesses), else at least it.
template <typename T, int kDim, int kGroup, bool kWhole>
__global__ void __launch_bounds__(kThreads) decode_kernel(const __grid_constant__ Step step, View3<T> to) {
  constexpr int kOwn = kDim / kLanes;
  constexpr int kKeys = kWhole && kGroup * sizeof(T) <= 8 ? 2 : 1;  // of a team at once: what registers hold
  using OwnPart = Part<T, kOwn, kWhole>;
  __shared__ alignas(16) float queries[kGroup][kDim];
  __shared__ alignas(16) T fresh_key[kDim], fresh_value[kDim];
  __shared__ float warp_most[kWarps][kGroup], warp_total[kWarps][kGroup];
  __shared__ float warp_out[kWarps][kGroup][kDim];
  __shared__ bool last;
  start_next();
  const int share = static_cast<int>(blockIdx.x), row = static_cast<int>(blockIdx.z);
  const int kv = static_cast<int>(blockIdx.y) / step.chunks, chunk = static_cast<int>(blockIdx.y) % step.chunks;
  const int thread = static_cast<int>(threadIdx.x), team = thread / kLanes, lane = thread % kLanes;
  const CacheView cache = step.caches[row];
  const std::int64_t used = cache.used, total = used + 1;
  std::int64_t keys_per_share = max(kMinKeys, (total + gridDim.x - 1) / gridDim.x);
  keys_per_share = (keys_per_share + kTeams - 1) / kTeams * kTeams;
  const int shares = static_cast<int>((total + keys_per_share - 1) / keys_per_share);
  if (share >= shares) return;
  const std::int64_t first = share * keys_per_share, end = min(first + keys_per_share, used);
  T* keys = static_cast<T*>(cache.keys) + kv * cache.key_stride;
  T* values = static_cast<T*>(cache.values) + kv * cache.value_stride;
  const int d = step.d, first_head = kv * step.group + chunk * kGroup;
  const int heads = min(kGroup, step.group - chunk * kGroup);

  // Entries of earlier steps may be read before this step's projections are there.
  OwnPart next_keys[kKeys] = {}, next_values[kKeys] = {};
  const auto load = [&](std::int64_t at) {
#pragma unroll
    for (int key = 0; key < kKeys; ++key, at += kTeams) {
      if (at >= end) continue;
      next_keys[key].load(keys + at * d, lane, d);
      next_values[key].load(values + at * d, lane, d);
    }
  };
  load(first + team);
  const float* cos = step.common->cos + static_cast<std::int64_t>(cache.position) * step.rope_dims;
  const float* sin = step.common->sin + static_cast<std::int64_t>(cache.position) * step.rope_dims;
  wait_for_inputs();
  for (int i = thread; i < kGroup * kDim; i += kThreads) {
    const int head = i / kDim, at = i % kDim;
    queries[head][at] =
        head < heads && at < d ? rotated(step.q.row(row, first_head + head), at, step, cos, sin) * step.scale : 0.0F;
  }
  if (share == shares - 1) {
    for (int at = thread; at < kDim; at += kThreads) {
      fresh_key[at] = from_f32<T>(at < d ? rotated(step.k.row(row, kv), at, step, cos, sin) : 0.0F);
      fresh_value[at] = from_f32<T>(at < d ? step.v.row(row, kv)[at] : 0.0F);
      if (at >= d || chunk != 0) continue;
      keys[used * d + at] = fresh_key[at];
      values[used * d + at] = fresh_value[at];
    }
  }
  __syncthreads();

  Softmax<kGroup, kOwn> state;
#pragma unroll
  for (int r = 0; r < kGroup; ++r) {
    state.most[r] = -INFINITY;
    state.sum[r] = 0;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) state.out[r][i] = 0;
  }
  for (std::int64_t base = first + team; base - team < end; base += kTeams * kKeys) {
    OwnPart now_keys[kKeys], now_values[kKeys];
#pragma unroll
    for (int key = 0; key < kKeys; ++key) {
      now_keys[key] = next_keys[key];
      now_values[key] = next_values[key];
    }
    load(base + kTeams * kKeys);
    take<T, kDim, kGroup>(now_keys, now_values, queries, lane, (end - base + kTeams - 1) / kTeams, state);
  }
  if (share == shares - 1) {
    OwnPart own_key[1], own_value[1];
    own_key[0].load(fresh_key, lane, kDim);
    own_value[0].load(fresh_value, lane, kDim);
    take<T, kDim, kGroup>(own_key, own_value, queries, lane, team == 0 ? 1 : 0, state);
  }

#pragma unroll
  for (int r = 0; r < kGroup; ++r) {
#pragma unroll
    for (int other = kLanes; other < 32; other *= 2) {
      const float their_most = __shfl_xor_sync(0xffffffffU, state.most[r], other);
      const float their_sum = __shfl_xor_sync(0xffffffffU, state.sum[r], other);
      const float high = fmaxf(state.most[r], their_most);
      const float mine = weight_of<T>(state.most[r], high), theirs = weight_of<T>(their_most, high);
      state.most[r] = high;
      state.sum[r] = state.sum[r] * mine + their_sum * theirs;
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const float out = __shfl_xor_sync(0xffffffffU, state.out[r][i], other);
        state.out[r][i] = state.out[r][i] * mine + out * theirs;
      }
    }
    if (thread % 32 < kLanes) {
#pragma unroll
      for (int i = 0; i < kOwn; ++i) warp_out[thread / 32][r][(i / 8 * kLanes + lane) * 8 + i % 8] = state.out[r][i];
      if (lane == 0) {
        warp_most[thread / 32][r] = state.most[r];
        warp_total[thread / 32][r] = state.sum[r];
      }
    }
  }
  __syncthreads();
  const std::int64_t place = static_cast<std::int64_t>(row) * gridDim.y + blockIdx.y;
  auto* partials = static_cast<ShareOfHead<kDim>*>(step.partials) + place * gridDim.x * kGroup;
  for (int i = thread; i < heads * kDim; i += kThreads) {
    const int head = i / kDim, at = i % kDim;
    float high = -INFINITY, sum = 0, all = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) high = fmaxf(high, warp_most[w][head]);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float weight = weight_of<T>(warp_most[w][head], high);
      sum += warp_total[w][head] * weight;
      all = __fmaf_rn(warp_out[w][head][at], weight, all);
    }
    if (shares == 1) {
      if (at < d) to.row(row, first_head + head)[at] = from_f32<T>(all / sum);
      continue;
    }
    ShareOfHead<kDim>& partial = partials[share * kGroup + head];
    partial.out[at] = all;
    if (at != 0) continue;
    partial.most = high;
    partial.sum = sum;
  }
  if (shares == 1) return;
  __threadfence();
  __syncthreads();
  if (thread == 0) {
    last = atomicAdd(step.counters + place, 1U) == static_cast<unsigned>(shares - 1);
    if (last) step.counters[place] = 0;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  merge_shares<T, kDim, kGroup, kWhole>(partials, shares, heads, d, row, first_head, to);
}

// How a shape is cut into blocks.
struct Cut {
  bool whole;  // 16-byte accesses
  int dim;     // compiled for
  int group;   // query heads of a block, compiled for
  int chunks;  // blocks of heads per KV head
};

Cut cut_of(const DecodeShape& shape) {
  const auto group = static_cast<int>(shape.heads / shape.kv_heads);
  Cut cut{};
  cut.whole = shape.head_dim == 64 || shape.head_dim == 128;
  cut.dim = cut.whole ? static_cast<int>(shape.head_dim) : static_cast<int>(kMaxHeadDim);
  const int most = cut.whole ? kMostGroup : 2;
  cut.group = group <= 1 ? 1 : group <= 2 ? 2 : group <= 4 ? 4 : 8;
  cut.group = std::min(cut.group, most);
  cut.chunks = (group + cut.group - 1) / cut.group;
  return cut;
}

template <typename T>
void choose(Runtime& rt, const Cut& cut, dim3 blocks, const Step& step, const Tensor& out) {
  const auto start = [&](auto* kernel) {
    launch_early(rt, "attention of a decoding step", kernel, blocks, kThreads, 0, step, view3<T>(out));
  };
  if (!cut.whole) {
    if (cut.group == 1) return start(decode_kernel<T, kMaxHeadDim, 1, false>);
    return start(decode_kernel<T, kMaxHeadDim, 2, false>);
  }
  if (cut.dim == 64) {
    if (cut.group == 1) return start(decode_kernel<T, 64, 1, true>);
    if (cut.group == 2) return start(decode_kernel<T, 64, 2, true>);
    if (cut.group == 4) return start(decode_kernel<T, 64, 4, true>);
    return start(decode_kernel<T, 64, 8, true>);
  }
  if (cut.group == 1) return start(decode_kernel<T, 128, 1, true>);
  if (cut.group == 2) return start(decode_kernel<T, 128, 2, true>);
  if (cut.group == 4) return start(decode_kernel<T, 128, 4, true>);
  start(decode_kernel<T, 128, 8, true>);
}

}  // namespace

Result<std::unique_ptr<CudaDecodeTable>> CudaDecodeTable::create(Runtime& rt, const DecodeShape& shape,
                                                                 ElementType type) {
  std::unique_ptr<CudaDecodeTable> table(new CudaDecodeTable(shape));
  const Cut cut = cut_of(shape);
  const std::int64_t places = shape.rows * shape.kv_heads * cut.chunks;
  table->shares_ = type == ElementType::kF32
                       ? kReferenceShares
                       : static_cast<int>(std::clamp<std::int64_t>(4 * rt.processors() / places, 1, kMostShares));
  const auto bytes = [](std::int64_t count, std::size_t size) { return static_cast<std::size_t>(count) * size; };
  table->host_.resize(sizeof(StepView) + bytes(shape.layers * shape.rows, sizeof(CacheView)));
  FINCHKV_ASSIGN_OR_RETURN(table->memory_, rt.allocate(table->host_.size()));
  FINCHKV_ASSIGN_OR_RETURN(table->partials_,
                           rt.allocate(bytes(places * table->shares_ * cut.group * (4 + cut.dim), sizeof(float))));
  FINCHKV_ASSIGN_OR_RETURN(table->counters_, rt.allocate(bytes(places, sizeof(unsigned))));
  rt.check(cudaMemsetAsync(table->counters_.get(), 0, bytes(places, sizeof(unsigned)), rt.stream()),
           "a table of decoding caches");
  return Result<std::unique_ptr<CudaDecodeTable>>(std::move(table));
}

const CacheView* CudaDecodeTable::caches(std::int64_t layer) const {
  const auto* first = static_cast<const std::byte*>(memory_.get()) + sizeof(StepView);
  return reinterpret_cast<const CacheView*>(first) + layer * shape_.rows;
}

void CudaDecodeTable::write(Runtime& rt, const RopeTableView& rope, std::span<const DecodeSlot> slots) {
  const StepView common{rope.cos, rope.sin};
  std::memcpy(host_.data(), &common, sizeof(common));
  std::byte* to = host_.data() + sizeof(common);
  for (const DecodeSlot& slot : slots) {
    assert(slot.keys.stride(1) == shape_.head_dim && slot.values.stride(1) == shape_.head_dim);
    assert(slot.used < slot.keys.dim(1) && rows_aligned(slot.keys) && rows_aligned(slot.values));
    const CacheView view{slot.keys.data(),
                         slot.values.data(),
                         slot.keys.stride(0),
                         slot.values.stride(0),
                         static_cast<std::int32_t>(slot.used),
                         static_cast<std::int32_t>(slot.position)};
    std::memcpy(to, &view, sizeof(view));
    to += sizeof(view);
  }
  rt.upload(host_.data(), memory_.get(), host_.size());
}

void decode_attention(Runtime& rt, const CudaDecodeTable& table, std::int64_t layer, const Tensor& q, const Tensor& k,
                      const Tensor& v, float scale, const Tensor& out) {
  const DecodeShape& shape = table.shape();
  const Cut cut = cut_of(shape);
  Step step{};
  step.common = table.step();
  step.caches = table.caches(layer);
  step.q = view3<const float>(q);
  step.k = view3<const float>(k);
  step.v = view3<const float>(v);
  step.partials = table.partials();
  step.counters = table.counters();
  step.rope_dims = static_cast<int>(shape.rope.inv_freq.size()) * 2;
  step.d = static_cast<int>(shape.head_dim);
  step.group = static_cast<int>(shape.heads / shape.kv_heads);
  step.chunks = cut.chunks;
  step.interleaved = shape.rope.interleaved;
  step.scale = scale;
  const dim3 blocks(static_cast<unsigned>(table.shares()), static_cast<unsigned>(shape.kv_heads * cut.chunks),
                    static_cast<unsigned>(shape.rows));
  if (out.type() == ElementType::kBF16)
    choose<Bf16>(rt, cut, blocks, step, out);
  else
    choose<float>(rt, cut, blocks, step, out);
}

}  // namespace finchkv::kernels::cuda
