// Whether an entry and a model belong together, and if not, why. Pure functions; a model may be without its weights.
#pragma once

#include "base/status.h"
#include "cache_store/llama_state.h"
#include "cache_store/store.h"
#include "model/model.h"

namespace finchkv::engine {

/// invalid_argument with the first difference: shape, position encoding, tokenizer, the rest of the configuration,
/// weights. An adapter counts as other weights.
[[nodiscard]] Status check_same_model(const cache_store::EntryInfo& entry, const model::Model& model);

/// What has to be known of a model to read its llama.cpp states.
[[nodiscard]] cache_store::LlamaModelShape llama_shape_of(const model::Model& model);

}  // namespace finchkv::engine
