// ModelConfig: the shape of a Llama-family model and its RoPE record, as a GGUF file states them.
//
// Architectures llama (Llama 2/3, Mistral, SmolLM2), qwen2, qwen3. Plain value; parsing checks every number before use.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/kvset.h"
#include "base/status.h"
#include "model/gguf.h"

namespace finchkv::model {

struct ModelConfig {
  std::string architecture;
  std::string name;  ///< general.name, for people
  std::int64_t n_layers = 0;
  std::int64_t hidden = 0;
  std::int64_t n_heads = 0;
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t ffn = 0;
  std::int64_t vocab = 0;
  std::int64_t context_length = 0;
  std::int64_t sliding_window = 0;  ///< 0: every layer sees everything
  float norm_eps = 1e-5F;
  bool qkv_bias = false;
  bool qk_norm = false;
  bool tied_output = false;  ///< the output head is the embedding matrix
  RopeRecord rope;

  /// unsupported (architecture, RoPE scaling, or an odd shape, by name), corrupt (missing keys, numbers that cannot
  /// be).
  static Result<ModelConfig> from_gguf(const GgufFile& file);

  /// invalid_argument with the first id that is not in the vocabulary, and where it stands; `what`: whose ids they are.
  [[nodiscard]] Status check_tokens(std::span<const std::int32_t> tokens, std::string_view what) const;

  /// One text that states every number exactly (floats by their bits): what the model fingerprint hashes.
  [[nodiscard]] std::string canonical() const;
};

}  // namespace finchkv::model
