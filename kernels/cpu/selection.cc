#include "kernels/cpu/selection.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

namespace finchkv::kernels::cpu {
namespace {

template <typename T>
T* row_of(const Tensor& t, std::int64_t r) {
  return t.data<T>() + r * t.stride(0);
}

}  // namespace

void sum_rows(const Tensor& x, const Tensor& sum) {
  float* out = sum.data<float>();
  std::copy_n(row_of<float>(x, 0), x.dim(1), out);
  for (std::int64_t r = 1; r < x.dim(0); ++r) {
    const float* row = row_of<float>(x, r);
    for (std::int64_t j = 0; j < x.dim(1); ++j) out[j] += row[j];
  }
}

void span_mean(Workspace& ws, const Tensor& x, const Tensor& origins, std::int32_t radius, float own_share,
               const Tensor& y) {
  const std::int64_t count = x.dim(1);
  ws.pool.run(x.dim(0), [&](std::int64_t r, int) {
    const float* in = row_of<float>(x, r);
    const std::int32_t* origin = row_of<std::int32_t>(origins, r);
    float* out = row_of<float>(y, r);
    std::int64_t low = 0, high = 0;
    for (std::int64_t j = 0; j < count; ++j) {
      while (origin[low] < origin[j] - radius) ++low;
      while (high < count && origin[high] <= origin[j] + radius) ++high;
      double sum = 0;  // at most 2 * radius + 1 terms, summed afresh: a running sum would drift
      for (std::int64_t i = low; i < high; ++i) sum += static_cast<double>(in[i]);
      out[j] = static_cast<float>(sum / static_cast<double>(high - low) +
                                  static_cast<double>(own_share) * static_cast<double>(in[j]));
    }
  });
}

void top_k(Workspace& ws, const Tensor& x, const Tensor& indices) {
  const std::int64_t k = indices.dim(1);
  assert(k <= x.dim(1));
  ws.pool.run(x.dim(0), [&](std::int64_t r, int) {
    const float* score = row_of<float>(x, r);
    std::vector<std::int32_t> order(static_cast<std::size_t>(x.dim(1)));
    std::iota(order.begin(), order.end(), 0);
    if (k < x.dim(1)) {
      std::nth_element(order.begin(), order.begin() + k, order.end(), [&](std::int32_t a, std::int32_t b) {
        return score[a] != score[b] ? score[a] > score[b] : a < b;
      });
    }
    std::sort(order.begin(), order.begin() + k);
    std::copy_n(order.begin(), k, row_of<std::int32_t>(indices, r));
  });
}

void gather(Workspace& ws, const Tensor& x, const Tensor& indices, const Tensor& y) {
  const std::size_t width = element_size(x.type());
  const std::size_t row_bytes = static_cast<std::size_t>(x.dim(2)) * width;
  const bool shared = indices.dim(0) == 1;
  ws.pool.run(x.dim(0), [&](std::int64_t g, int) {
    const std::int32_t* index = row_of<std::int32_t>(indices, shared ? 0 : g);
    for (std::int64_t i = 0; i < indices.dim(1); ++i) {
      std::memcpy(y.data<std::byte>() + static_cast<std::size_t>(g * y.stride(0) + i * y.stride(1)) * width,
                  x.data<std::byte>() + static_cast<std::size_t>(g * x.stride(0) + index[i] * x.stride(1)) * width,
                  row_bytes);
    }
  });
}

void gather_origins(const Tensor& x, const Tensor& indices, const Tensor& y) {
  for (std::int64_t r = 0; r < indices.dim(0); ++r) {
    const std::int32_t* index = row_of<std::int32_t>(indices, r);
    for (std::int64_t i = 0; i < indices.dim(1); ++i)
      row_of<std::int32_t>(y, r)[i] = row_of<std::int32_t>(x, r)[index[i]];
  }
}

}  // namespace finchkv::kernels::cpu
