// DecodeBatch: one decoding step of several sequences in one pass over the weights.
//
// Row i of a pass is the next token of sequence i, whatever the lengths of their caches; sequences join and leave
// between passes. Transformer::forward(tokens, batch, LogitRows::kAll) then gives every sequence's logits. The contexts
// stay their owners' and must outlive the batch; none may be in it twice.
#pragma once

#include <span>
#include <vector>

#include "model/decode_context.h"

namespace finchkv::model {

class DecodeBatch final : public AttentionContext {
 public:
  DecodeBatch(const Transformer& model, std::vector<DecodeContext*> contexts)
      : model_(&model), contexts_(std::move(contexts)) {}

  /// invalid_argument when the pass has another number of rows than there are sequences; resource_exhausted when a
  /// cache is full.
  Status attend(std::int64_t layer, const kernels::Tensor& q, const kernels::Tensor& k, const kernels::Tensor& v,
                const kernels::Tensor& out) override;

 private:
  const Transformer* model_;
  std::vector<DecodeContext*> contexts_;
  std::vector<kernels::DecodeSlot> slots_;
};

}  // namespace finchkv::model
