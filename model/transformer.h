// Transformer: the forward pass of a Llama-family model on a Device.
//
// A pass turns token ids into per-layer queries, keys and values and leaves attention to an AttentionContext: the
// decoder's appends to a cache, the compressor's attends, scores and selects. So whatever reads documents another way
// is another context, not another forward pass. Weights are packed into the device's layout when loading. One pass at a
// time: the Transformer, its Device and its contexts belong to one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/device.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

namespace finchkv::model {

/// Where a pass finds earlier keys and values, and leaves its own.
class AttentionContext {
 public:
  virtual ~AttentionContext() = default;
  /// Called once per layer, in order, with the projections of this pass's n rows, after bias and QK-norm, before RoPE:
  /// q f32 [n, H, D], k and v f32 [n, KV, D]. Writes the attention output, activations [n, H, D].
  virtual Status attend(std::int64_t layer, const kernels::Tensor& q, const kernels::Tensor& k,
                        const kernels::Tensor& v, const kernels::Tensor& out) = 0;
};

class DecodeBatch;  // model/decode_batch.h

enum class LogitRows : std::uint8_t { kNone, kLast, kAll };

struct Weights;

/// What a decoding step of n sequences gives.
struct StepResult {
  std::vector<TokenId> likeliest;  ///< [n], chosen on the device; ties to the lower id
  std::vector<float> logits;       ///< [sequences whose logits were asked for, vocab]
};

class Transformer {
 public:
  /// corrupt (missing tensors, wrong shapes), unsupported (tensor types by name), resource_exhausted.
  static Result<std::unique_ptr<Transformer>> load(std::shared_ptr<const GgufFile> file, const ModelConfig& config,
                                                   std::shared_ptr<kernels::Device> device);
  /// A model whose weights did not come from a file: `weights` must fit `config` and hold an embedding table.
  static Result<std::unique_ptr<Transformer>> create(const ModelConfig& config, Weights weights,
                                                     std::shared_ptr<kernels::Device> device);
  ~Transformer();

  [[nodiscard]] const ModelConfig& config() const;
  [[nodiscard]] kernels::Device& device() const;
  [[nodiscard]] const Weights& weights() const;  ///< for benchmarks (model/weights.h)
  [[nodiscard]] std::size_t weight_bytes() const;
  [[nodiscard]] float attention_scale() const;  ///< 1 / sqrt(head_dim)
  /// Device memory that a pass of so many rows takes beyond what earlier passes left for it.
  [[nodiscard]] std::size_t missing_bytes(std::int64_t rows) const;
  /// Gives back what is kept between passes of several rows; the next one takes it again.
  void release_activations();

  /// Runs the tokens through all layers. Logits f32 [rows, vocab] on the host: none, the last row's, or all rows'.
  /// invalid_argument for ids outside the vocabulary; corrupt when logits are not finite; resource_exhausted.
  Result<std::vector<float>> forward(std::span<const TokenId> tokens, AttentionContext& context, LogitRows rows);

  /// One decoding step: tokens[i] is the next token of the batch's sequence i. Steps of the same number of sequences
  /// are recorded and run again as one piece of work where the device can do that; results are the same.
  /// invalid_argument when the batch has another number of sequences, else as above; when a step fails, none of its
  /// sequences has moved on.
  Result<std::vector<float>> forward(std::span<const TokenId> tokens, DecodeBatch& batch, LogitRows rows);
  /// The same with only what drawing the next tokens needs brought to the host.
  Result<StepResult> step(std::span<const TokenId> tokens, DecodeBatch& batch,
                          std::span<const std::size_t> logits_of = {});

 private:
  struct Impl;
  explicit Transformer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace finchkv::model
