// One chunk of a compression for a profiler to look at, and what bench/draw_chunk.py has to know of it.
//
// bench/draw_chunk.py says how the profiler is run.
#pragma once

#include <nlohmann/json.hpp>

#include "compressor/reader.h"
#include "kernels/cuda/cuda_device.h"
#include "model/transformer.h"

namespace finchkv::bench {

/// What a model's layers multiply.
inline nlohmann::ordered_json dimensions_of(const model::ModelConfig& c) {
  return {{"layers", c.n_layers},     {"hidden", c.hidden},     {"heads", c.n_heads},
          {"kv_heads", c.n_kv_heads}, {"head_dim", c.head_dim}, {"ffn", c.ffn}};
}

/// Reads `plan` once as it is, so that plans of products are made, and once with a profiler's marks around the chunk
/// that comes after `after` others.
inline Status profile_chunk(model::Transformer& model, const compressor::Plan& plan, std::int64_t after) {
  const auto whole = static_cast<std::int64_t>(plan.document.size());
  if (after < 1 || after * plan.chunk >= whole) {
    return Status::invalid_argument("--profile-after names a chunk that the document does not have, or its first");
  }
  FINCHKV_RETURN_IF_ERROR(compressor::read_document(plan, model).status());
  return compressor::read_document(plan, model,
                                   [&](std::int64_t read, std::int64_t) {
                                     if (read == after * plan.chunk) kernels::cuda::mark_for_profiler(true);
                                     if (read > after * plan.chunk) kernels::cuda::mark_for_profiler(false);
                                     return true;
                                   })
      .status();
}

}  // namespace finchkv::bench
