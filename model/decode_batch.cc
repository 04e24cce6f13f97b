#include "model/decode_batch.h"

#include <fmt/format.h>

namespace finchkv::model {

Status DecodeBatch::attend(std::int64_t layer, const kernels::Tensor& q, const kernels::Tensor& k,
                           const kernels::Tensor& v, const kernels::Tensor& out) {
  if (q.dim(0) != static_cast<std::int64_t>(contexts_.size())) {
    return Status::invalid_argument(
        fmt::format("a step of {} tokens was given to a batch of {} sequences", q.dim(0), contexts_.size()));
  }
  slots_.clear();
  for (const DecodeContext* context : contexts_) {
    FINCHKV_ASSIGN_OR_RETURN(kernels::DecodeSlot slot, context->slot(layer));
    slots_.push_back(std::move(slot));
  }
  model_->device().decode_attention(model_->config().rope, q, k, v, slots_, model_->attention_scale(), out);
  for (DecodeContext* context : contexts_) context->advance(layer);
  return Status::ok();
}

}  // namespace finchkv::model
