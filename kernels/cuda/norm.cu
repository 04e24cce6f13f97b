// RMSNorm: y = x / sqrt(mean(x^2) + eps) * w over rows of d.
//
// Bytes: each x once (f32), each y once: 4 + 2 a value for bf16 results. A block takes a long row and holds it in
// registers, so x is read once; short rows (heads) take one warp each.
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVectors = 8;  // float4 a thread holds: rows of up to 8192

template <typename Out>
__global__ void __launch_bounds__(kThreads)
    norm_long_rows(View3<const float> x, const float* __restrict__ w, float eps, View3<Out> y, int d) {
  start_next();
  wait_for_inputs();
  const float* from = x.row(blockIdx.x, 0);
  Out* to = y.row(blockIdx.x, 0);
  float held[kVectors][4];
  float sum = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int at = (v * kThreads + static_cast<int>(threadIdx.x)) * 4;
    if (at >= d) break;
    load_f32(from + at, held[v]);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum += held[v][i] * held[v][i];
  }
  __shared__ float partial[kThreads / 32];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) total += partial[i];
  const float factor = 1.0F / sqrtf(total / static_cast<float>(d) + eps);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int at = (v * kThreads + static_cast<int>(threadIdx.x)) * 4;
    if (at >= d) break;
    float weight[4], out[4];
    load_f32(w + at, weight);
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = held[v][i] * factor * weight[i];
    store_f32(out, to + at);
  }
}

template <typename Out>
__global__ void __launch_bounds__(kThreads) norm_any_rows(View3<const float> x, const float* __restrict__ w, float eps,
                                                          View3<Out> y, std::int64_t rows, int heads, int d) {
  start_next();
  wait_for_inputs();
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (r >= rows) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const float* from = x.row(r / heads, r % heads);
  Out* to = y.row(r / heads, r % heads);
  float sum = 0;
  for (int i = lane; i < d; i += 32) sum += from[i] * from[i];
  const float factor = 1.0F / sqrtf(warp_sum(sum) / static_cast<float>(d) + eps);
  for (int i = lane; i < d; i += 32) to[i] = from_f32<Out>(from[i] * factor * w[i]);
}

template <typename Out>
void launch(Runtime& rt, const Tensor& x, const Tensor& w, float eps, const Tensor& y) {
  const std::int64_t rows = x.dim(0) * x.dim(1);
  const int d = static_cast<int>(x.dim(2));
  if (rows == 0) return;
  if (x.dim(1) == 1 && d >= 512 && d <= kThreads * kVectors * 4 && d % 8 == 0 && rows_aligned(x) && rows_aligned(y)) {
    launch_early(rt, "RMSNorm", norm_long_rows<Out>, dim3(static_cast<unsigned>(rows)), kThreads, 0,
                 view3<const float>(x), w.data<float>(), eps, view3<Out>(y), d);
  } else {
    constexpr std::int64_t kRows = kThreads / 32;
    launch_early(rt, "RMSNorm", norm_any_rows<Out>, dim3(static_cast<unsigned>((rows + kRows - 1) / kRows)), kThreads,
                 0, view3<const float>(x), w.data<float>(), eps, view3<Out>(y), rows, static_cast<int>(x.dim(1)), d);
  }
}

}  // namespace

// Which kernel is asked does not matter: all are compiled for the same GPUs. Code that was made from what is meant for
// older ones has no waiting in it, whatever the GPU could do.
bool kernels_can_wait() {
  cudaFuncAttributes attributes{};
  return succeeded(cudaFuncGetAttributes(&attributes, norm_long_rows<Bf16>)) && attributes.ptxVersion >= 90;
}

void rms_norm(Runtime& rt, const Tensor& x, const Tensor& w, float eps, const Tensor& y) {
  if (y.type() == ElementType::kBF16)
    launch<Bf16>(rt, as_rank3(x), w, eps, as_rank3(y));
  else
    launch<float>(rt, as_rank3(x), w, eps, as_rank3(y));
}

}  // namespace finchkv::kernels::cuda
