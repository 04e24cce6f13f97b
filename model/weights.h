// The weights of a Llama-family model in a device's layout, packed from a GGUF file.
#pragma once

#include <memory>
#include <vector>

#include "base/status.h"
#include "kernels/device.h"
#include "model/config.h"
#include "model/dequant.h"
#include "model/gguf.h"

namespace finchkv::model {

struct LayerWeights {
  kernels::Tensor attention_norm, ffn_norm;  // f32 [hidden]
  kernels::Tensor qkv_bias;                  // f32 [(H + 2 KV) * D], empty without
  kernels::Tensor q_norm, k_norm;            // f32 [D], empty without
  std::unique_ptr<kernels::Linear> qkv, output, gate_up, down;
};

struct Weights {
  std::vector<LayerWeights> layers;
  kernels::Tensor output_norm;            // f32 [hidden]
  kernels::Tensor embedding;              // [vocab, hidden]; empty where the device leaves looking up to the host
  std::unique_ptr<kernels::Linear> head;  // [vocab, hidden]

  [[nodiscard]] std::size_t bytes() const;
};

/// corrupt names the tensor that is missing or has another shape than the config needs; unsupported its type.
[[nodiscard]] Result<Weights> load_weights(const GgufFile& file, const ModelConfig& config, kernels::Device& device);

}  // namespace finchkv::model
