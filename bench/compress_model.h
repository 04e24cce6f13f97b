// Models of the shapes of large ones, with random weights made on the GPU.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "bench/compress_common.h"
#include "kernels/cuda/cuda_device.h"
#include "model/weights.h"

namespace finchkv::bench {

inline ModelConfig config_of(const std::string& shape) {
  struct Dims {
    std::int64_t layers, hidden, heads, kv_heads, head_dim, ffn;
  };
  // 70b-per-gpu is an eighth of every matrix: what one of eight GPUs multiplies.
  const std::map<std::string, Dims> shapes = {{"llama-3.2-1b", {16, 2048, 32, 8, 64, 8192}},
                                              {"llama-3.1-8b", {32, 4096, 32, 8, 128, 14336}},
                                              {"llama-3.1-70b-per-gpu", {80, 8192, 8, 1, 128, 3584}}};
  const auto found = shapes.find(shape);
  if (found == shapes.end()) {
    std::fprintf(stderr, "bench_compress: there is no shape '%s'\n", shape.c_str());
    std::exit(2);
  }
  const Dims& d = found->second;
  ModelConfig c;
  c.architecture = "llama";
  c.name = shape;
  c.n_layers = d.layers;
  c.hidden = d.hidden;
  c.n_heads = d.heads;
  c.n_kv_heads = d.kv_heads;
  c.head_dim = d.head_dim;
  c.ffn = d.ffn;
  c.vocab = 128256;
  c.context_length = 131072;
  c.rope.theta = 500000.0F;
  c.rope.rotary_dims = static_cast<std::uint32_t>(d.head_dim);
  c.rope.interleaved = true;
  for (std::int64_t i = 0; i < d.head_dim / 2; ++i) {
    c.rope.inv_freq.push_back(
        static_cast<float>(std::pow(500000.0, -2.0 * static_cast<double>(i) / static_cast<double>(d.head_dim))));
  }
  return c;
}

inline model::Weights random_weights(Device& device, const ModelConfig& c) {
  namespace cuda = kernels::cuda;
  std::uint64_t seed = 1;
  using kernels::LinearUse;
  const auto matrix = [&](std::int64_t in, std::int64_t out, bool gated, LinearUse use = LinearUse::kEveryRow) {
    return value_or_exit(cuda::random_linear(device, in, out, gated, use, seed++, 0.02F));
  };
  const auto ones = [&](std::int64_t n) {
    Tensor t = value_or_exit(device.empty(ElementType::kF32, {n}));
    const std::vector<float> values(static_cast<std::size_t>(n), 1.0F);
    device.upload(values.data(), t);
    return t;
  };
  model::Weights w;
  for (std::int64_t l = 0; l < c.n_layers; ++l) {
    model::LayerWeights& layer = w.layers.emplace_back();
    layer.attention_norm = ones(c.hidden);
    layer.ffn_norm = ones(c.hidden);
    layer.qkv = matrix(c.hidden, (c.n_heads + 2 * c.n_kv_heads) * c.head_dim, false);
    layer.output = matrix(c.n_heads * c.head_dim, c.hidden, false);
    layer.gate_up = matrix(c.hidden, c.ffn, true);
    layer.down = matrix(c.ffn, c.hidden, false);
  }
  w.output_norm = ones(c.hidden);
  w.head = matrix(c.hidden, c.vocab, false, LinearUse::kFewRows);
  w.embedding = value_or_exit(cuda::random_tensor(device, device.kv_type(), c.vocab, c.hidden, seed++, 0.02F));
  return w;
}

}  // namespace finchkv::bench
