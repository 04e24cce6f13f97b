// Bottom-right causal attention of bf16 rows on the tensor cores, any lengths, without a plan (mma.sync; after Dao,
// "FlashAttention-2", 2023).
//
// A block takes 64 rows of one KV head's query group (rows of all its heads together, so K and V are read once for the
// group) and walks through keys in tiles of 64, the next tile on its way to shared memory meanwhile. When there are too
// few rows to fill the GPU, the keys are split and merged afterwards; the split depends on shape and GPU alone. For
// prompts behind a cache, and where there is no cuDNN. FLOPs: 4 n T H D less the causal half; logits and sums in f32.
#include <algorithm>

#include "kernels/cuda/attention_partial.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/tensor_core.cuh"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kRows = 16 * kWarps;
constexpr int kKeys = 64;
constexpr float kLog2e = 1.4426950408889634F;
constexpr float kLn2 = 0.6931471805599453F;

struct Shape {
  std::int64_t n, total, rows, keys_per_split;  // rows: n times the heads of a group
  int group;
  float scale;  // of logits, times log2(e)
  std::int64_t lse_stride;
};

template <int kDim>
struct Shared {
  Bf16 k[2][kKeys][kDim + 8];
  Bf16 v[2][kKeys][kDim + 8];
};

template <int kDim>
__device__ __forceinline__ void fetch(Shared<kDim>& s, int slot, const View3<const Bf16>& k, const View3<const Bf16>& v,
                                      int kv, std::int64_t key0, std::int64_t total) {
  constexpr int kVectors = kDim / 8;
#pragma unroll
  for (int item = static_cast<int>(threadIdx.x); item < kKeys * kVectors; item += kThreads) {
    const int r = item / kVectors, c = item % kVectors * 8;
    const bool wanted = key0 + r < total;
    const std::int64_t key = wanted ? key0 + r : 0;
    copy_16_bytes(&s.k[slot][r][c], k.row(kv, key) + c, wanted);
    copy_16_bytes(&s.v[slot][r][c], v.row(kv, key) + c, wanted);
  }
  commit_copies();
}

template <int kDim>
__global__ void __launch_bounds__(kThreads)
    attention_kernel(View3<const Bf16> q, View3<const Bf16> k, View3<const Bf16> v, View3<Bf16> out, float* lse,
                     Partial<kDim>* partials, Shape shape) {
  extern __shared__ __align__(16) unsigned char memory[];
  auto& s = *reinterpret_cast<Shared<kDim>*>(memory);
  const int kv = static_cast<int>(blockIdx.y);
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  const int quad = lane / 4, in_quad = lane % 4;
  // The last rows see the most keys: they go first.
  const std::int64_t row0 = static_cast<std::int64_t>(gridDim.x - 1 - blockIdx.x) * kRows;
  const std::int64_t before = shape.total - shape.n;
  const std::int64_t last = min(row0 + kRows, shape.rows) - 1;
  const std::int64_t first_key = blockIdx.z * shape.keys_per_split;
  const std::int64_t end_key = min(first_key + shape.keys_per_split, before + last / shape.group + 1);

  // This lane's two rows, and how many keys they see.
  std::int64_t row[2], seen[2];
  const std::uint32_t* from[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    row[half] = row0 + warp * 16 + quad + 8 * half;
    const std::int64_t there = min(row[half], shape.rows - 1);
    seen[half] = before + there / shape.group + 1;
    from[half] =
        reinterpret_cast<const std::uint32_t*>(q.row(there / shape.group, kv * shape.group + there % shape.group));
  }
  std::uint32_t queries[kDim / 16][4];
#pragma unroll
  for (int c = 0; c < kDim / 16; ++c) {
    const int word = c * 8 + in_quad;
    queries[c][0] = from[0][word];
    queries[c][1] = from[1][word];
    queries[c][2] = from[0][word + 4];
    queries[c][3] = from[1][word + 4];
  }

  float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  float acc[kDim / 8][4] = {};
  if (first_key < end_key) fetch<kDim>(s, 0, k, v, kv, first_key, shape.total);
  int slot = 0;
  for (std::int64_t key0 = first_key; key0 < end_key; key0 += kKeys, slot ^= 1) {
    if (key0 + kKeys < end_key) {
      fetch<kDim>(s, slot ^ 1, k, v, kv, key0 + kKeys, shape.total);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();
    float logit[kKeys / 8][4] = {};
#pragma unroll
    for (int c = 0; c < kDim / 16; ++c) {
#pragma unroll
      for (int t = 0; t < kKeys / 16; ++t) {
        std::uint32_t b[4];
        load_matrices(&s.k[slot][t * 16 + lane % 8 + lane / 16 * 8][c * 16 + lane / 8 % 2 * 8], b);
        mma(logit[2 * t], queries[c], b[0], b[1]);
        mma(logit[2 * t + 1], queries[c], b[2], b[3]);
      }
    }
    const bool cut = key0 + kKeys > min(seen[0], end_key);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int64_t visible = min(seen[half], end_key) - key0;
      float high = most[half];
#pragma unroll
      for (int t = 0; t < kKeys / 8; ++t) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& x = logit[t][2 * half + i];
          x *= shape.scale;
          if (cut && t * 8 + in_quad * 2 + i >= visible) x = -INFINITY;
          high = fmaxf(high, x);
        }
      }
      high = fmaxf(high, __shfl_xor_sync(0xffffffffU, high, 1));
      high = fmaxf(high, __shfl_xor_sync(0xffffffffU, high, 2));
      // A row that sees none of these keys keeps -infinity; 0 stands in so that no difference is a NaN.
      const float base = high == -INFINITY ? 0.0F : high;
      const float keep = exp2f(most[half] - base);
      most[half] = high;
      float added = 0;
#pragma unroll
      for (int t = 0; t < kKeys / 8; ++t) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& x = logit[t][2 * half + i];
          x = exp2f(x - base);
          added += x;
        }
      }
      sum[half] = sum[half] * keep + added;
#pragma unroll
      for (int t = 0; t < kDim / 8; ++t) {
        acc[t][2 * half] *= keep;
        acc[t][2 * half + 1] *= keep;
      }
    }
#pragma unroll
    for (int t = 0; t < kKeys / 16; ++t) {
      const std::uint32_t p[4] = {
          pack_bf16(logit[2 * t][0], logit[2 * t][1]), pack_bf16(logit[2 * t][2], logit[2 * t][3]),
          pack_bf16(logit[2 * t + 1][0], logit[2 * t + 1][1]), pack_bf16(logit[2 * t + 1][2], logit[2 * t + 1][3])};
#pragma unroll
      for (int c = 0; c < kDim / 16; ++c) {
        std::uint32_t b[4];
        load_matrices_transposed(&s.v[slot][t * 16 + lane % 16][c * 16 + lane / 16 * 8], b);
        mma(acc[2 * c], p, b[0], b[1]);
        mma(acc[2 * c + 1], p, b[2], b[3]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float total = sum[half];
    total += __shfl_xor_sync(0xffffffffU, total, 1);
    total += __shfl_xor_sync(0xffffffffU, total, 2);
    if (row[half] >= shape.rows) continue;
    const std::int64_t r = row[half] / shape.group, head = kv * shape.group + row[half] % shape.group;
    if (partials != nullptr) {
      Partial<kDim>& to = partials[(static_cast<std::int64_t>(blockIdx.z) * gridDim.y + kv) * shape.rows + row[half]];
#pragma unroll
      for (int t = 0; t < kDim / 8; ++t) {
        to.out[t * 8 + in_quad * 2] = acc[t][2 * half];
        to.out[t * 8 + in_quad * 2 + 1] = acc[t][2 * half + 1];
      }
      if (in_quad == 0) {
        to.most = most[half] * kLn2;
        to.sum = total;
      }
      continue;
    }
    const float factor = 1.0F / total;
    auto* to = reinterpret_cast<std::uint32_t*>(out.row(r, head));
#pragma unroll
    for (int t = 0; t < kDim / 8; ++t)
      to[t * 4 + in_quad] = pack_bf16(acc[t][2 * half] * factor, acc[t][2 * half + 1] * factor);
    if (lse != nullptr && in_quad == 0) lse[r * shape.lse_stride + head] = (most[half] + log2f(total)) * kLn2;
  }
}

template <int kDim>
void launch(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
            const Tensor& lse) {
  const std::int64_t n = q.dim(0), total = k.dim(1), kv_heads = k.dim(0);
  const int group = static_cast<int>(q.dim(1) / kv_heads);
  const std::int64_t rows = n * group, tiles = (rows + kRows - 1) / kRows;
  // Blocks for every processor twice, shares of at least four tiles of keys.
  const std::int64_t wanted = 2 * rt.processors() / (tiles * kv_heads), most = (total + 4 * kKeys - 1) / (4 * kKeys);
  std::int64_t splits = std::clamp<std::int64_t>(wanted, 1, most);
  const std::int64_t keys = ((total + splits - 1) / splits + kKeys - 1) / kKeys * kKeys;
  splits = (total + keys - 1) / keys;
  const Shape shape{n, total, rows, keys, group, scale * kLog2e, lse.empty() ? 0 : lse.stride(0)};
  std::shared_ptr<void> memory;
  if (splits > 1) {
    memory = rt.scratch(static_cast<std::size_t>(splits * kv_heads * rows) * sizeof(Partial<kDim>));
    if (memory == nullptr) return;
  }
  auto* partials = static_cast<Partial<kDim>*>(memory.get());
  const auto kernel = attention_kernel<kDim>;
  constexpr std::size_t kBytes = sizeof(Shared<kDim>);
  rt.check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes)),
           "shared memory for attention");
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(kv_heads), static_cast<unsigned>(splits));
  kernel<<<grid, kThreads, kBytes, rt.stream()>>>(view3<const Bf16>(q), view3<const Bf16>(k), view3<const Bf16>(v),
                                                  view3<Bf16>(out), lse.empty() ? nullptr : lse.data<float>(), partials,
                                                  shape);
  rt.launched("attention on tensor cores");
  if (splits > 1) {
    merge_partials<kDim>(rt, partials, splits, rows, n, group, static_cast<int>(kv_heads), out, lse);
  }
}

}  // namespace

bool attention_mma_takes(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out) {
  return q.type() == ElementType::kBF16 && (q.dim(2) == 64 || q.dim(2) == 128) && rows_aligned(q) && rows_aligned(k) &&
         rows_aligned(v) && rows_aligned(out);
}

void attention_mma(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
                   const Tensor& lse) {
  if (q.dim(0) == 0) return;
  if (q.dim(2) == 64)
    launch<64>(rt, q, k, v, scale, out, lse);
  else
    launch<128>(rt, q, k, v, scale, out, lse);
}

}  // namespace finchkv::kernels::cuda
