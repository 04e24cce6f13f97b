#include "model/decode_batch.h"

namespace finchkv::model {

Status DecodeBatch::slots(std::vector<kernels::DecodeSlot>& to) const {
  to.clear();
  to.reserve(contexts_.size() * static_cast<std::size_t>(model_->config().n_layers));
  for (std::int64_t layer = 0; layer < model_->config().n_layers; ++layer) {
    for (const DecodeContext* context : contexts_) {
      FINCHKV_ASSIGN_OR_RETURN(kernels::DecodeSlot slot, context->slot(layer));
      to.push_back(std::move(slot));
    }
  }
  return Status::ok();
}

void DecodeBatch::advance() {
  for (DecodeContext* context : contexts_) context->advance();
}

}  // namespace finchkv::model
