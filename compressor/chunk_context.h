// ChunkContext: attention and selection of the chunk loop (DESIGN: "The algorithm"), one layer after the other.
//
// Per layer it keeps what was chosen so far: keys before RoPE, values, origins, at most K entries. The candidates and
// the prompt of the layer at hand, rotated to the places 0..T-1, lie in a ReadScratch that all documents of a pass
// share, so memory is O(K) a layer for each document + O(T) for all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/kvset.h"
#include "compressor/plan.h"
#include "compressor/read_scratch.h"
#include "model/transformer.h"

namespace finchkv::compressor {

class ChunkContext final : public model::AttentionContext {
 public:
  static Result<ChunkContext> create(const Plan& plan, const model::Transformer& model);
  /// What create() takes on the device for as long as the document is being read.
  [[nodiscard]] static std::size_t state_bytes(const Plan& plan, const model::Transformer& model);
  /// What its chunks need of a scratch.
  [[nodiscard]] static ReadScratch::Needs scratch_needs(const Plan& plan, const model::Transformer& model);

  ChunkContext(ChunkContext&&) = default;
  ChunkContext& operator=(ChunkContext&&) = default;
  ChunkContext(const ChunkContext&) = delete;
  ChunkContext& operator=(const ChunkContext&) = delete;

  /// The next pass reads document tokens [start, start + size), followed by the plan's prompt. `scratch` holds
  /// scratch_needs() and stays as it is until end_chunk().
  Status begin_chunk(std::int64_t start, std::int64_t size, const ReadScratch& scratch);
  Status attend(std::int64_t layer, const kernels::Tensor& q, const kernels::Tensor& k, const kernels::Tensor& v,
                const kernels::Tensor& out) override;
  void end_chunk();
  /// As before the first chunk, whatever happened in a pass that failed.
  void restart();

  [[nodiscard]] std::int64_t kept() const { return kept_; }
  /// The kept entries as host memory, when the whole document was read; the context is empty afterwards.
  Result<KvSet> take_set();

 private:
  struct Layer {
    kernels::Tensor keys;     // [KV, K, D] before RoPE
    kernels::Tensor values;   // [KV, K, D]
    kernels::Tensor origins;  // i32 [R, K]
  };
  ChunkContext(const Plan& plan, const model::Transformer& model) : plan_(plan), model_(&model) {}
  Status select(Layer& layer, std::int64_t index, const kernels::Tensor& queries, const kernels::Tensor& lse);
  void leave_scratch();

  Plan plan_;
  const model::Transformer* model_;
  std::int64_t rows_ = 1;  // R, origin rows
  std::int64_t kept_ = 0;  // before this chunk
  std::int64_t start_ = 0;
  std::int64_t size_ = 0;
  std::int64_t chunk_index_ = 0;
  std::vector<Layer> layers_;        // views of the next two
  kernels::Tensor kept_entries_;     // kv_type [L * 2 * KV * K * D]: of every layer keys, then values
  kernels::Tensor kept_origins_;     // i32 [L * R * K]
  kernels::Tensor origins_;          // i32 [R, K + m]
  std::vector<std::int32_t> fresh_;  // on the host: origins_ of this chunk
  kernels::Tensor plain_keys_;       // [KV, T, D] before RoPE; this and what follows: the scratch's
  kernels::Tensor rotated_keys_;     // [KV, T, D]
  kernels::Tensor values_;           // [KV, T, D]
  kernels::Tensor indices_;          // i32 [at least R * K]
  kernels::Tensor queries_;          // [m + P, H, D]
  kernels::Tensor lse_;              // f32 [m + P, H]
};

}  // namespace finchkv::compressor
