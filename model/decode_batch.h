// DecodeBatch: one decoding step of several sequences in one pass over the weights.
//
// Row i of a step is the next token of sequence i, whatever the lengths of their caches; sequences join and leave
// between steps: a batch is a list that is made anew for each (Transformer::forward or step with a batch). The contexts
// stay their owners' and must outlive the batch; none may be in it twice.
#pragma once

#include <cstdint>
#include <vector>

#include "model/decode_context.h"

namespace finchkv::model {

class DecodeBatch {
 public:
  DecodeBatch(const Transformer& model, std::vector<DecodeContext*> contexts)
      : model_(&model), contexts_(std::move(contexts)) {}

  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(contexts_.size()); }

  // For Transformer:
  /// Where the next token of each sequence goes, [layers, sequences]. resource_exhausted when a cache is full.
  Status slots(std::vector<kernels::DecodeSlot>& to) const;
  /// What a step over slots() appended is there.
  void advance();

 private:
  const Transformer* model_;
  std::vector<DecodeContext*> contexts_;
};

}  // namespace finchkv::model
