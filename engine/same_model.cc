#include "engine/same_model.h"

#include <fmt/format.h>

namespace finchkv::engine {

cache_store::LlamaModelShape llama_shape_of(const model::Model& model) {
  const model::ModelConfig& c = model.config();
  return {.n_layers = static_cast<std::uint32_t>(c.n_layers),
          .n_kv_heads = static_cast<std::uint32_t>(c.n_kv_heads),
          .head_dim = static_cast<std::uint32_t>(c.head_dim),
          .rope = c.rope};
}

Status check_same_model(const cache_store::EntryInfo& entry, const model::Model& model) {
  const cache_store::CacheIdentity& id = entry.identity;
  const auto differ = [&](const std::string& how) {
    return Status::invalid_argument(
        fmt::format("entry {} is not of {}: {}", entry.id.hex().substr(0, 12), model.file().path(), how));
  };
  const auto shape = llama_shape_of(model);
  if (entry.shape.n_layers != shape.n_layers || entry.shape.n_kv_heads != shape.n_kv_heads ||
      entry.shape.head_dim != shape.head_dim) {
    return differ(fmt::format("it has {} layers of {} KV heads of {} dimensions, the model has {} of {} of {}",
                              entry.shape.n_layers, entry.shape.n_kv_heads, entry.shape.head_dim, shape.n_layers,
                              shape.n_kv_heads, shape.head_dim));
  }
  if (entry.key_form == KeyForm::kPreRope && entry.rope != shape.rope) {
    return differ(fmt::format("its keys turn by theta {:g} and scaling {}, the model's by theta {:g} and scaling {}",
                              entry.rope.theta, entry.rope.scaling, shape.rope.theta, shape.rope.scaling));
  }
  if (id.tokenizer_fingerprint != Sha256{} && id.tokenizer_fingerprint != model.tokenizer_fingerprint()) {
    return differ("it was made with another tokenizer");
  }
  if (id.model_fingerprint != model.model_fingerprint()) {
    return differ(fmt::format("the configuration is another ({} there, {} here)",
                              to_hex(id.model_fingerprint).substr(0, 12),
                              to_hex(model.model_fingerprint()).substr(0, 12)));
  }
  if (id.weights_fingerprint != model.weights_fingerprint()) {
    return differ(fmt::format("the weights are others ({} there, {} here)",
                              to_hex(id.weights_fingerprint).substr(0, 12),
                              to_hex(model.weights_fingerprint()).substr(0, 12)));
  }
  if (!id.adapters.empty()) return differ(fmt::format("{} adapters were on it", id.adapters.size()));
  return Status::ok();
}

}  // namespace finchkv::engine
