// Bottom-right causal attention of many bf16 rows on Hopper's warpgroup products, any lengths, without a plan (after
// Shah et al., "FlashAttention-3", 2024).
//
// A block takes 128 rows of one head: one warp copies tiles of 128 keys and values into a ring of two by TMA, two
// groups of 64 rows multiply. A group asks for the logits of the next keys and for the values of the last ones
// together, and computes probabilities while the latter run. Blocks walk through (rows, head), the longest first and
// back and forth, so that their shares are alike. FLOPs: 4 n T H D less the causal half; logits and sums in f32, one
// order of sums per row.
//
// One H200, 32/8 heads of 128: 4160 rows on 4930 keys 629 TFLOP/s, where cuDNN 9.19 has 560 and wants 50 ms for a plan
// of every new shape. Letting the two groups take turns (one multiplies while the other exponentiates) gained nothing.
#include <algorithm>

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/tensor_core.cuh"
#include "kernels/cuda/tensor_map.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kGroupRows = 64;
constexpr int kGroups = 2;
constexpr int kRows = kGroupRows * kGroups;
constexpr int kKeys = 128;
constexpr int kStages = 2;
constexpr int kThreads = 128 * (kGroups + 1);
constexpr int kColumn = kBoxColumns;
constexpr float kLog2e = 1.4426950408889634F;
constexpr float kLn2 = 0.6931471805599453F;

struct Shape {
  std::int64_t n, total;
  int heads, group, items;  // items: row tiles times heads
  float scale;              // of logits, times log2(e)
  std::int64_t lse_stride;
};

template <int kDim>
struct Shared {
  Bf16 q[kDim / kColumn][kRows][kColumn];
  Bf16 k[kStages][kDim / kColumn][kKeys][kColumn];
  Bf16 v[kStages][kDim / kColumn][kKeys][kColumn];
  std::uint64_t q_full, q_empty;
  std::uint64_t k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
};

#if FINCHKV_HOPPER

// What a block works on in its turn `round`.
struct Item {
  int head;
  std::int64_t row0;
  int tiles;  // of keys, the last of which its last rows see
  __device__ __forceinline__ Item(const Shape& shape, int index) {
    const int row_tiles = shape.items / shape.heads;
    head = index % shape.heads;
    row0 = static_cast<std::int64_t>(row_tiles - 1 - index / shape.heads) * kRows;
    const std::int64_t end = shape.total - shape.n + min(row0 + kRows, shape.n);
    tiles = static_cast<int>((end + kKeys - 1) / kKeys);
  }
};
// Back and forth: who got the longest of one round gets the shortest of the next.
__device__ __forceinline__ int item_index(int round) {
  const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  return round * blocks + (round % 2 == 0 ? block : blocks - 1 - block);
}

// The place of the i-th tile in a ring, and the parity of its phase.
__device__ __forceinline__ int slot_of(int i) { return i % kStages; }
__device__ __forceinline__ std::uint32_t parity_of(int i) { return static_cast<std::uint32_t>(i / kStages) & 1U; }

template <int kDim>
__device__ __forceinline__ void produce(Shared<kDim>& s, const CUtensorMap& q, const CUtensorMap& k,
                                        const CUtensorMap& v, const Shape& shape) {
  int loaded = 0;  // tiles of keys, and of values, before this item
  const auto load = [&](const CUtensorMap& map, auto& ring, std::uint64_t* full, std::uint64_t* empty, int i, int tile,
                        int kv) {
    const int slot = slot_of(i);
    wait_barrier(&empty[slot], parity_of(i) ^ 1U);
    expect_bytes(&full[slot], sizeof(ring[slot]));
    for (int c = 0; c < kDim / kColumn; ++c) load_box(map, ring[slot][c], &full[slot], c * kColumn, tile * kKeys, kv);
  };
  for (int round = 0; item_index(round) < shape.items; ++round) {
    const Item item(shape, item_index(round));
    const int kv = item.head / shape.group;
    wait_barrier(&s.q_empty, (static_cast<std::uint32_t>(round) & 1U) ^ 1U);
    expect_bytes(&s.q_full, sizeof(s.q));
    for (int c = 0; c < kDim / kColumn; ++c)
      load_box(q, s.q[c], &s.q_full, c * kColumn, static_cast<std::int32_t>(item.row0), item.head);
    for (int j = 0; j <= item.tiles; ++j) {
      if (j < item.tiles) load(k, s.k, s.k_full, s.k_empty, loaded + j, item.tiles - 1 - j, kv);
      if (j > 0) load(v, s.v, s.v_full, s.v_empty, loaded + j - 1, item.tiles - j, kv);
    }
    loaded += item.tiles;
  }
}

// Running softmax of this thread's two rows.
struct Softmax {
  float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};  // most: of scaled logits

  // Logits become probabilities; keep: what was summed before counts that much.
  __device__ __forceinline__ void step(float (&logit)[kKeys / 2], float scale, float (&keep)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float high = -INFINITY;
#pragma unroll
      for (int t = 0; t < kKeys / 8; ++t)
        high = fmaxf(high, fmaxf(logit[4 * t + 2 * half], logit[4 * t + 2 * half + 1]));
      high = fmaxf(high, __shfl_xor_sync(0xffffffffU, high, 1));
      high = fmaxf(high, __shfl_xor_sync(0xffffffffU, high, 2));
      high = fmaxf(most[half], high * scale);
      // A row that sees none of these keys keeps -infinity; 0 stands in so that no difference is a NaN.
      const float base = high == -INFINITY ? 0.0F : high;
      keep[half] = fast_exp2(most[half] - base);
      most[half] = high;
      float added = 0;
#pragma unroll
      for (int t = 0; t < kKeys / 8; ++t) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& x = logit[4 * t + 2 * half + i];
          x = fast_exp2(__fmaf_rn(x, scale, -base));
          added += x;
        }
      }
      sum[half] = __fmaf_rn(sum[half], keep[half], added);
    }
  }
  static __device__ __forceinline__ float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
  }
};

// Four words of each of four lanes, turned: lane l gets word l of all four, in order.
__device__ __forceinline__ void turn_quad(std::uint32_t (&w)[4], int in_quad) {
  const bool odd = in_quad % 2 != 0, upper = in_quad / 2 != 0;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const std::uint32_t got = __shfl_xor_sync(0xffffffffU, odd ? w[i] : w[i + 1], 1);
    if (odd)
      w[i] = got;
    else
      w[i + 1] = got;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t got = __shfl_xor_sync(0xffffffffU, upper ? w[i] : w[i + 2], 2);
    if (upper)
      w[i] = got;
    else
      w[i + 2] = got;
  }
}

template <int kDim>
__device__ __forceinline__ void consume(Shared<kDim>& s, View3<Bf16> out, float* lse, const Shape& shape, int group) {
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32 % 4);
  const int quad = lane / 4, in_quad = lane % 4;
  const std::int64_t before = shape.total - shape.n;
  const auto done_with = [&](std::uint64_t* empty) {
    if (lane == 0) arrive(empty);
  };

  int used = 0;  // tiles before this item
  for (int round = 0; item_index(round) < shape.items; ++round) {
    const Item item(shape, item_index(round));
    const std::int64_t group_row0 = item.row0 + group * kGroupRows;
    const std::int64_t row0 = group_row0 + warp * 16 + quad;  // and row0 + 8
    Softmax softmax;
    float sums[kDim / 2];
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) sums[i] = 0;
    float logit[kKeys / 2];
    std::uint32_t p[kKeys / 16][4];

    const auto ask_logits = [&](int i) {
#pragma unroll
      for (int c = 0; c < kDim / 16; ++c) {
        const int column = c * 16 / kColumn, at = c * 16 % kColumn;
        multiply(logit, tile_descriptor(&s.q[column][group * kGroupRows][at]),
                 tile_descriptor(&s.k[slot_of(i)][column][0][at]), c != 0);
      }
      commit_products();
    };
    const auto ask_sums = [&](int i) {
#pragma unroll
      for (int t = 0; t < kKeys / 16; ++t)
        multiply_transposed(sums, p[t], transposed_descriptor(&s.v[slot_of(i)][0][t * 16][0], kKeys * 128));
      commit_products();
    };
    const auto mask = [&](int tile) {
      const std::int64_t key0 = static_cast<std::int64_t>(tile) * kKeys;
      if (key0 + kKeys <= before + group_row0 + 1) return;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const auto visible = static_cast<int>(max(before + row0 + 8 * half + 1 - key0, std::int64_t{0}));
#pragma unroll
        for (int t = 0; t < kKeys / 8; ++t) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            if (t * 8 + in_quad * 2 + i >= visible) logit[4 * t + 2 * half + i] = -INFINITY;
          }
        }
      }
    };
    const auto keep_probabilities = [&] {
#pragma unroll
      for (int t = 0; t < kKeys / 16; ++t) {
#pragma unroll
        for (int i = 0; i < 4; ++i) p[t][i] = pack_bf16(logit[8 * t + 2 * i], logit[8 * t + 2 * i + 1]);
      }
    };
    const auto wait_for = [&](std::uint64_t* full, int i) { wait_barrier(&full[slot_of(i)], parity_of(i)); };

    float keep[2];
    wait_barrier(&s.q_full, static_cast<std::uint32_t>(round) & 1U);
    wait_for(s.k_full, used);
    pin(logit);
    begin_products();
    ask_logits(used);
    wait_products<0>();
    pin(logit);
    done_with(&s.k_empty[slot_of(used)]);
    mask(item.tiles - 1);
    softmax.step(logit, shape.scale, keep);
    keep_probabilities();
    if (item.tiles > 1) wait_for(s.k_full, used + 1);
    for (int j = 1; j < item.tiles; ++j) {
      const int i = used + j;
      wait_for(s.v_full, i - 1);
      pin(logit);
      pin(sums);
      begin_products();
      ask_logits(i);
      ask_sums(i - 1);
      wait_products<1>();
      pin(logit);
      done_with(&s.k_empty[slot_of(i)]);
      mask(item.tiles - 1 - j);
      softmax.step(logit, shape.scale, keep);
      pin(logit);
      // The branches of this wait also keep ptxas from moving the next one before the exponentials.
      if (j + 1 < item.tiles) wait_for(s.k_full, i + 1);
      wait_products<0>();
      pin(sums);
      done_with(&s.v_empty[slot_of(i - 1)]);
#pragma unroll
      for (int c = 0; c < kDim / 2; ++c) sums[c] *= keep[c % 4 / 2];
      keep_probabilities();
    }
    done_with(&s.q_empty);
    const int last = used + item.tiles - 1;
    wait_for(s.v_full, last);
    pin(sums);
    begin_products();
    ask_sums(last);
    wait_products<0>();
    pin(sums);
    done_with(&s.v_empty[slot_of(last)]);
    used += item.tiles;

#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = softmax.sum[half];
      total += __shfl_xor_sync(0xffffffffU, total, 1);
      total += __shfl_xor_sync(0xffffffffU, total, 2);
      const std::int64_t row = row0 + 8 * half;
      const bool there = row < shape.n;
      const float factor = 1.0F / total;
      Bf16* to = out.row(there ? row : 0, item.head);
#pragma unroll
      for (int t = 0; t < kDim / 8; t += 4) {
        std::uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int at = 4 * (t + i) + 2 * half;
          words[i] = pack_bf16(sums[at] * factor, sums[at + 1] * factor);
        }
        turn_quad(words, in_quad);
        if (there) *reinterpret_cast<uint4*>(to + (t + in_quad) * 8) = {words[0], words[1], words[2], words[3]};
      }
      if (lse != nullptr && there && in_quad == 0) {
        lse[row * shape.lse_stride + item.head] = (softmax.most[half] + log2f(total)) * kLn2;
      }
    }
  }
}

#endif

template <int kDim>
__global__ void __launch_bounds__(kThreads, 1)
    attention_kernel(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
                     const __grid_constant__ CUtensorMap v, View3<Bf16> out, float* lse, Shape shape) {
#if FINCHKV_HOPPER
  extern __shared__ unsigned char memory[];
  // Swizzled tiles start on 1024 bytes.
  auto& s = *reinterpret_cast<Shared<kDim>*>(memory + (1024 - shared_address(memory) % 1024) % 1024);
  if (threadIdx.x == 0) {
    init_barrier(&s.q_full, 1);
    init_barrier(&s.q_empty, 4 * kGroups);
    for (int i = 0; i < kStages; ++i) {
      init_barrier(&s.k_full[i], 1);
      init_barrier(&s.v_full[i], 1);
      init_barrier(&s.k_empty[i], 4 * kGroups);  // a lane of every warp
      init_barrier(&s.v_empty[i], 4 * kGroups);
    }
    publish_barriers();
  }
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x / 128);
  if (group == 0) {
    give_registers<24>();
    if (threadIdx.x == 0) produce<kDim>(s, q, k, v, shape);
  } else {
    take_registers<240>();
    consume<kDim>(s, out, lse, shape, group - 1);
  }
#endif
}

template <int kDim>
void launch(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
            const Tensor& lse) {
  const std::int64_t n = q.dim(0), heads = q.dim(1), total = k.dim(1);
  const auto items = static_cast<int>((n + kRows - 1) / kRows * heads);
  const Shape shape{n,     total,          static_cast<int>(heads),        static_cast<int>(heads / k.dim(0)),
                    items, scale * kLog2e, lse.empty() ? 0 : lse.stride(0)};
  const auto heads_of = [](const Tensor& x) {  // k or v
    return Planes{x.data(), x.dim(2), x.dim(1), x.dim(0), x.stride(1), x.stride(0)};
  };
  CUtensorMap q_map, k_map, v_map;
  if (!make_tensor_map({q.data(), kDim, n, heads, q.stride(0), q.stride(1)}, kRows, q_map) ||
      !make_tensor_map(heads_of(k), kKeys, k_map) || !make_tensor_map(heads_of(v), kKeys, v_map)) {
    return rt.keep(Status::internal("the CUDA driver did not describe attention's tensors"));
  }
  const auto kernel = attention_kernel<kDim>;
  constexpr std::size_t kBytes = sizeof(Shared<kDim>) + 1024;
  rt.check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes)),
           "shared memory for attention");
  const auto blocks = static_cast<unsigned>(std::min(items, rt.processors()));
  kernel<<<blocks, kThreads, kBytes, rt.stream()>>>(q_map, k_map, v_map, view3<Bf16>(out),
                                                    lse.empty() ? nullptr : lse.data<float>(), shape);
  rt.launched("attention by warpgroups");
}

}  // namespace

bool attention_hopper_takes(const Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out) {
#if !defined(FINCHKV_HOPPER_CODE)
  return false;  // built without code for these GPUs (FINCHKV_CUDA_ARCHITECTURES)
#else
  return rt.compute_capability() == 90 && q.type() == ElementType::kBF16 && (q.dim(2) == 64 || q.dim(2) == 128) &&
         rows_aligned(q) && rows_aligned(k) && rows_aligned(v) && rows_aligned(out) && tensor_maps_work();
#endif
}

void attention_hopper(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
                      const Tensor& lse) {
  if (q.dim(0) == 0) return;
  if (q.dim(2) == 64)
    launch<64>(rt, q, k, v, scale, out, lse);
  else
    launch<128>(rt, q, k, v, scale, out, lse);
}

}  // namespace finchkv::kernels::cuda
