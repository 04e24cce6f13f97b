// Bottom-right causal attention with an online softmax (Milakov & Gimelshein 2018), arithmetic in f32.
//
// A block takes 64 query rows of one head and walks through the keys in blocks of 64, always from key 0, so a row's
// sums are split the same way whatever the other rows are. Bound by FMA arithmetic: 4 n T H D FLOPs less the causal
// half; it is for the reference class, and for head sizes that no faster kernel takes.
#include "kernels/cuda/ops.h"
#include "kernels/cuda/tile_f32.cuh"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kRows = kTileRows;
constexpr int kKeys = kTileRows;
constexpr int kThreads = kTileThreads;

// Shared memory of one block: queries, keys, values, probabilities.
template <int kDim>
struct Shared {
  float q[kRows][kDim + 4];
  float k[kKeys][kDim + 4];
  float v[kKeys][kDim];
  float p[kRows][kKeys + 4];
};

struct Shape {
  std::int64_t n, total;
  int group, d;
  float scale;
  std::int64_t lse_stride;
};

template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads)
    attention_kernel(View3<const T> q, View3<const T> k, View3<const T> v, View3<T> out, float* lse, Shape shape) {
  extern __shared__ __align__(16) unsigned char memory[];
  auto& s = *reinterpret_cast<Shared<kDim>*>(memory);
  const int head = static_cast<int>(blockIdx.y), kv = head / shape.group;
  // The last rows see the most keys: they go first.
  const std::int64_t row0 = static_cast<std::int64_t>(gridDim.x - 1 - blockIdx.x) * kRows;
  const int tx = static_cast<int>(threadIdx.x % 16), ty = static_cast<int>(threadIdx.x / 16);
  load_rows<T, kDim, kDim + 4>(q.row(0, head), q.stride0, row0, shape.n, shape.d, s.q);

  float most[4], sum[4], acc[4][kDim / 16];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    most[i] = -INFINITY;
    sum[i] = 0;
#pragma unroll
    for (int c = 0; c < kDim / 16; ++c) acc[i][c] = 0;
  }
  const std::int64_t before = shape.total - shape.n;  // keys that every row sees
  const std::int64_t last_row = min(row0 + kRows, shape.n) - 1;
  for (std::int64_t key0 = 0; key0 < before + last_row + 1; key0 += kKeys) {
    __syncthreads();
    load_rows<T, kDim, kDim + 4>(k.row(kv, 0), k.stride1, key0, shape.total, shape.d, s.k);
    load_rows<T, kDim, kDim>(v.row(kv, 0), v.stride1, key0, shape.total, shape.d, s.v);
    __syncthreads();
    float logit[4][4];
    multiply_rows<kDim>(s.q, s.k, tx, ty, logit);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::int64_t seen = before + row0 + ty * 4 + i + 1;
      float high = -INFINITY;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        logit[i][j] = key0 + tx + 16 * j < seen ? logit[i][j] * shape.scale : -INFINITY;
        high = fmaxf(high, logit[i][j]);
      }
#pragma unroll
      for (int step = 8; step > 0; step /= 2) high = fmaxf(high, __shfl_xor_sync(0xffffffffU, high, step));
      // The first block of keys has a visible one for every row, so `next` is finite from then on.
      const float next = fmaxf(most[i], high);
      const float keep = most[i] == next ? 1.0F : expf(most[i] - next);
      most[i] = next;
      float added = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float p = expf(logit[i][j] - next);
        s.p[ty * 4 + i][tx + 16 * j] = p;
        added += p;
      }
#pragma unroll
      for (int step = 8; step > 0; step /= 2) added += __shfl_xor_sync(0xffffffffU, added, step);
      sum[i] = sum[i] * keep + added;
#pragma unroll
      for (int c = 0; c < kDim / 16; ++c) acc[i][c] *= keep;
    }
    __syncwarp();  // a warp reads only the probabilities that it wrote
    for (int key = 0; key < kKeys; ++key) {
      float p[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) p[i] = s.p[ty * 4 + i][key];
#pragma unroll
      for (int c = 0; c < kDim / 16; ++c) {
        const float value = s.v[key][tx + 16 * c];
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[i][c] = __fmaf_rn(p[i], value, acc[i][c]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::int64_t row = row0 + ty * 4 + i;
    if (row >= shape.n) continue;
    T* to = out.row(row, head);
#pragma unroll
    for (int c = 0; c < kDim / 16; ++c) {
      if (tx + 16 * c < shape.d) to[tx + 16 * c] = from_f32<T>(acc[i][c] / sum[i]);
    }
    if (lse != nullptr && tx == 0) lse[row * shape.lse_stride + head] = most[i] + logf(sum[i]);
  }
}

template <typename T, int kDim>
void launch(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
            const Tensor& lse) {
  const std::int64_t n = q.dim(0);
  const Shape shape{n,
                    k.dim(1),
                    static_cast<int>(q.dim(1) / k.dim(0)),
                    static_cast<int>(q.dim(2)),
                    scale,
                    lse.empty() ? 0 : lse.stride(0)};
  const auto kernel = attention_kernel<T, kDim>;
  constexpr std::size_t kBytes = sizeof(Shared<kDim>);
  if (kBytes > rt.shared_bytes_per_block()) {
    return rt.keep(Status::unsupported("heads of this size need a GPU with more shared memory; use the device cpu"));
  }
  rt.check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes)),
           "shared memory for attention");
  const dim3 grid(static_cast<unsigned>((n + kRows - 1) / kRows), static_cast<unsigned>(q.dim(1)));
  kernel<<<grid, kThreads, kBytes, rt.stream()>>>(view3<const T>(q), view3<const T>(k), view3<const T>(v),
                                                  view3<T>(out), lse.empty() ? nullptr : lse.data<float>(), shape);
  rt.launched("attention");
}

template <typename T>
void choose(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
            const Tensor& lse) {
  const std::int64_t d = q.dim(2);
  if (d <= 32) return launch<T, 32>(rt, q, k, v, scale, out, lse);
  if (d <= 64) return launch<T, 64>(rt, q, k, v, scale, out, lse);
  if (d <= 128) return launch<T, 128>(rt, q, k, v, scale, out, lse);
  launch<T, 256>(rt, q, k, v, scale, out, lse);
}

}  // namespace

void attention_tiled(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
                     const Tensor& lse) {
  if (q.dim(0) == 0) return;
  if (q.dim(2) > kMaxHeadDim) return rt.keep(Status::unsupported("heads of more than 256 dimensions on a GPU"));
  if (q.type() == ElementType::kBF16)
    choose<Bf16>(rt, q, k, v, scale, out, lse);
  else
    choose<float>(rt, q, k, v, scale, out, lse);
}

}  // namespace finchkv::kernels::cuda
