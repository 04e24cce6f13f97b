// ChunkContext: attention and selection of the chunk loop (DESIGN: "The algorithm"), one layer after the other.
//
// Per layer it keeps what was chosen so far: keys before RoPE, values, origins, at most K entries. One workspace for
// all layers holds the candidates and the prompt of the layer at hand, rotated to the places 0..T-1, so memory is O(K)
// a layer + O(T).
#pragma once

#include <cstdint>
#include <vector>

#include "base/kvset.h"
#include "compressor/plan.h"
#include "model/transformer.h"

namespace finchkv::compressor {

class ChunkContext final : public model::AttentionContext {
 public:
  static Result<ChunkContext> create(const Plan& plan, const model::Transformer& model);

  ChunkContext(ChunkContext&&) = default;
  ChunkContext& operator=(ChunkContext&&) = default;
  ChunkContext(const ChunkContext&) = delete;
  ChunkContext& operator=(const ChunkContext&) = delete;

  /// The next pass reads document tokens [start, start + size), followed by the plan's prompt.
  Status begin_chunk(std::int64_t start, std::int64_t size);
  Status attend(std::int64_t layer, const kernels::Tensor& q, const kernels::Tensor& k, const kernels::Tensor& v,
                const kernels::Tensor& out) override;
  void end_chunk();

  [[nodiscard]] std::int64_t kept() const { return kept_; }
  /// The kept entries as host memory; the context is empty afterwards.
  Result<KvSet> take_set();

 private:
  struct Layer {
    kernels::Tensor keys;     // [KV, K, D] before RoPE
    kernels::Tensor values;   // [KV, K, D]
    kernels::Tensor origins;  // i32 [R, K]
  };
  ChunkContext(const Plan& plan, const model::Transformer& model) : plan_(plan), model_(&model) {}
  Status select(Layer& layer, std::int64_t index, const kernels::Tensor& queries, const kernels::Tensor& lse);

  Plan plan_;
  const model::Transformer* model_;
  std::int64_t rows_ = 1;  // R, origin rows
  std::int64_t kept_ = 0;  // before this chunk
  std::int64_t start_ = 0;
  std::int64_t size_ = 0;
  std::int64_t chunk_index_ = 0;
  std::vector<Layer> layers_;
  kernels::Tensor plain_keys_;    // [KV, T, D] before RoPE
  kernels::Tensor rotated_keys_;  // [KV, T, D]
  kernels::Tensor values_;        // [KV, T, D]
  kernels::Tensor origins_;       // i32 [R, K + m]
  kernels::Tensor indices_;       // i32 [R, K]
  kernels::Tensor queries_;       // [m + P, H, D]
  kernels::Tensor lse_;           // f32 [m + P, H]
};

}  // namespace finchkv::compressor
