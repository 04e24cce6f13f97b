// What a compression cannot be faster than: its products and its attention alone, and the work at the rate of a large
// product.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "bench/compress_common.h"
#include "bench/compress_options.h"
#include "kernels/cuda/cuda_device.h"
#include "model/weights.h"

namespace finchkv::bench {

/// Rows and keys of every chunk's pass.
struct Pass {
  std::int64_t rows, keys;
};
inline std::vector<Pass> passes_of(const Options& o) {
  std::vector<Pass> all;
  std::int64_t kept = 0;
  for (std::int64_t at = 0; at < o.doc; at += o.chunk) {
    const std::int64_t size = std::min(o.chunk, o.doc - at);
    all.push_back({size + o.prompt, kept + size + o.prompt});
    kept = std::min(kept + size, (o.keep * (at + size) + o.doc - 1) / o.doc);
  }
  return all;
}

/// FLOPs of the products and of causal attention; the last layer's rows stop after attention.
inline double work_of(const ModelConfig& c, const std::vector<Pass>& passes) {
  double flops = 0;
  for (const Pass& p : passes) {
    const auto rows = static_cast<double>(p.rows);
    const auto qkv = static_cast<double>(c.hidden * (c.n_heads + 2 * c.n_kv_heads) * c.head_dim);
    const auto rest = static_cast<double>(c.n_heads * c.head_dim * c.hidden + 3 * c.hidden * c.ffn);
    flops += 2 * rows * (qkv * static_cast<double>(c.n_layers) + rest * static_cast<double>(c.n_layers - 1));
    const double seen = rows * static_cast<double>(p.keys - p.rows) + rows * (rows + 1) / 2;
    flops += 4 * seen * static_cast<double>(c.n_heads * c.head_dim * c.n_layers);
  }
  return flops;
}

/// The products of all passes alone, with every layer's weights in turn.
inline double gemm_seconds(const Transformer& model, const std::vector<Pass>& passes) {
  Device& dev = model.device();
  const ModelConfig& c = model.config();
  const std::int64_t most = std::max_element(passes.begin(), passes.end(), [](const Pass& a, const Pass& b) {
                              return a.rows < b.rows;
                            })->rows;
  namespace cuda = kernels::cuda;
  const ElementType a = dev.kv_type();
  const std::int64_t qkv_width = (c.n_heads + 2 * c.n_kv_heads) * c.head_dim;
  const Tensor hidden = value_or_exit(cuda::random_tensor(dev, a, most, c.hidden, 91, 1.0F));
  const Tensor attended = value_or_exit(cuda::random_tensor(dev, a, most, c.n_heads * c.head_dim, 92, 1.0F));
  const Tensor inner = value_or_exit(cuda::random_tensor(dev, a, most, c.ffn, 93, 1.0F));
  const Tensor residual = value_or_exit(cuda::random_tensor(dev, ElementType::kF32, most, c.hidden, 94, 1.0F));
  const Tensor qkv = value_or_exit(dev.empty(ElementType::kF32, {most, qkv_width}));
  return median_seconds(dev, 3, [&] {
    for (const Pass& p : passes) {
      const auto rows = [&](const Tensor& t) { return t.slice(0, 0, p.rows); };
      for (const auto& layer : model.weights().layers) {
        dev.linear(*layer.qkv, rows(hidden), rows(qkv), false);
        if (&layer == &model.weights().layers.back()) break;
        dev.linear(*layer.output, rows(attended), rows(residual), true);
        dev.linear_swiglu(*layer.gate_up, rows(hidden), rows(inner));
        dev.linear(*layer.down, rows(inner), rows(residual), true);
      }
    }
  });
}

inline double attention_seconds(const Transformer& model, const std::vector<Pass>& passes) {
  Device& dev = model.device();
  const ModelConfig& c = model.config();
  namespace cuda = kernels::cuda;
  const ElementType a = dev.kv_type();
  std::int64_t rows = 0, keys = 0;
  for (const Pass& p : passes) {
    rows = std::max(rows, p.rows);
    keys = std::max(keys, p.keys);
  }
  const std::int64_t d = c.head_dim;
  const Tensor q = value_or_exit(cuda::random_tensor(dev, a, rows, c.n_heads * d, 81, 1.0F)).split_last(c.n_heads, d);
  const Tensor k = value_or_exit(cuda::random_tensor(dev, a, c.n_kv_heads, keys * d, 82, 1.0F)).split_last(keys, d);
  const Tensor v = value_or_exit(cuda::random_tensor(dev, a, c.n_kv_heads, keys * d, 83, 1.0F)).split_last(keys, d);
  const Tensor out = value_or_exit(dev.empty(a, {rows, c.n_heads, d}));
  const Tensor lse = value_or_exit(dev.empty(ElementType::kF32, {rows, c.n_heads}));
  return median_seconds(dev, 3, [&] {
    for (const Pass& p : passes) {
      for (std::int64_t l = 0; l < c.n_layers; ++l) {
        dev.attention(q.slice(0, 0, p.rows), k.slice(1, 0, p.keys), v.slice(1, 0, p.keys), model.attention_scale(),
                      out.slice(0, 0, p.rows), lse.slice(0, 0, p.rows));
      }
    }
  });
}

/// FLOP/s of an 8192^3 product in this run.
inline double product_rate(Device& device) {
  namespace cuda = kernels::cuda;
  constexpr std::int64_t kSide = 8192;
  const auto w =
      value_or_exit(cuda::random_linear(device, kSide, kSide, false, kernels::LinearUse::kEveryRow, 71, 0.02F));
  const Tensor x = value_or_exit(cuda::random_tensor(device, device.kv_type(), kSide, kSide, 72, 1.0F));
  const Tensor y = value_or_exit(device.empty(ElementType::kF32, {kSide, kSide}));
  constexpr int kTimes = 20;
  const double seconds = median_seconds(device, 3, [&] {
    for (int i = 0; i < kTimes; ++i) device.linear(*w, x, y, false);
  });
  return 2.0 * kSide * kSide * kSide * kTimes / seconds;
}

}  // namespace finchkv::bench
