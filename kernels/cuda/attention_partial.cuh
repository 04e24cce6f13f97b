// What blocks leave when the keys of one row are split over several, and the kernel that merges it in block order.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/runtime.h"

namespace finchkv::kernels::cuda {

/// Of one query row and one share of the keys: the highest logit, the sum of exp(logit - most), and that sum's weighted
/// values. `most` is -infinity where the row sees none of the keys.
template <int kDim>
struct Partial {
  float most, sum;
  float out[kDim];
};

// Rows of a KV head are numbered r * group + head of the group. partials [splits][KV][rows_per_head].
template <int kDim>
__global__ void __launch_bounds__(kDim)
    merge_kernel(const Partial<kDim>* __restrict__ partials, int splits, int kv_heads, int rows_per_head, int group,
                 View3<Bf16> out, float* lse, std::int64_t lse_stride) {
  const int kv = static_cast<int>(blockIdx.x), row = static_cast<int>(blockIdx.y);
  const std::int64_t step = static_cast<std::int64_t>(kv_heads) * rows_per_head;
  const Partial<kDim>* from = partials + static_cast<std::int64_t>(kv) * rows_per_head + row;
  float high = -INFINITY;
  for (int s = 0; s < splits; ++s) high = fmaxf(high, from[s * step].most);
  float sum = 0, value = 0;
  for (int s = 0; s < splits; ++s) {
    const Partial<kDim>& part = from[s * step];
    const float factor = part.most == -INFINITY ? 0.0F : __expf(part.most - high);
    sum += part.sum * factor;
    value = __fmaf_rn(part.out[threadIdx.x], factor, value);
  }
  const int head = kv * group + row % group;
  out.row(row / group, head)[threadIdx.x] = from_f32<Bf16>(value / sum);
  if (lse != nullptr && threadIdx.x == 0) lse[(row / group) * lse_stride + head] = high + logf(sum);
}

template <int kDim>
void merge_partials(Runtime& rt, const Partial<kDim>* partials, std::int64_t splits, std::int64_t rows_per_head,
                    std::int64_t n, int group, int kv_heads, const Tensor& out, const Tensor& lse) {
  const dim3 rows(static_cast<unsigned>(kv_heads), static_cast<unsigned>(n * group));
  merge_kernel<kDim><<<rows, kDim, 0, rt.stream()>>>(
      partials, static_cast<int>(splits), kv_heads, static_cast<int>(rows_per_head), group, view3<Bf16>(out),
      lse.empty() ? nullptr : lse.data<float>(), lse.empty() ? 0 : lse.stride(0));
  rt.launched("merging attention");
}

}  // namespace finchkv::kernels::cuda
