// Sets that the caller brings: from the caller's struct to a CacheIdentity and a KvSet over the caller's memory.
#include <cmath>
#include <utility>
#include <vector>

#include "capi/guard.h"
#include "capi/handles.h"

namespace finchkv::capi {
namespace {

Sha256 digest_of(const fkv_digest& digest) {
  Sha256 out;
  std::copy(std::begin(digest.bytes), std::end(digest.bytes), out.begin());
  return out;
}

Result<cache_store::CacheIdentity> read_identity(const fkv_put_options& o, const cache_store::Tenant& tenant) {
  if (o.numeric > FKV_FP8) return Status::invalid_argument("numeric is none of FKV_REFERENCE, FKV_FAST and FKV_FP8");
  if (o.storage_dtype > FKV_Q4) return Status::invalid_argument("storage_dtype is none of FKV_F32 to FKV_Q4");
  FINCHKV_ASSIGN_OR_RETURN(const auto document, array_of(o.document_tokens, o.document_token_count, "document_tokens"));
  FINCHKV_ASSIGN_OR_RETURN(const auto prompt, array_of(o.prompt_tokens, o.prompt_token_count, "prompt_tokens"));
  cache_store::CacheIdentity id;
  id.kind = prompt.empty() ? cache_store::EntryKind::kDocument : cache_store::EntryKind::kPromptGuided;
  id.model_fingerprint = digest_of(o.model);
  if (id.model_fingerprint == Sha256{}) {
    return Status::invalid_argument("model is all zero: an entry that names no model could be given to any");
  }
  id.weights_fingerprint = digest_of(o.weights);
  id.tokenizer_fingerprint = digest_of(o.tokenizer);
  id.document_hash = cache_store::token_hash(document, tenant);
  id.doc_tokens = document.size();
  if (!prompt.empty()) {
    id.prompt_hash = cache_store::token_hash(prompt, tenant);
    id.prompt_tokens = prompt.size();
  }
  FINCHKV_ASSIGN_OR_RETURN(id.reader, name_of(o.reader, "reader"));
  if (id.reader.empty()) id.reader = "client";
  FINCHKV_ASSIGN_OR_RETURN(id.policy, name_of(o.policy, "policy"));
  id.policy_revision = o.policy_revision;
  id.keep = o.keep;
  id.chunk = o.chunk;
  id.seed = o.seed;
  FINCHKV_ASSIGN_OR_RETURN(const auto parameters, array_of(o.parameters, o.parameter_count, "parameters"));
  for (const fkv_parameter& parameter : parameters) {
    FINCHKV_ASSIGN_OR_RETURN(std::string name, name_of(parameter.name, "a parameter's name"));
    const auto [at, added] = id.parameters.emplace(std::move(name), parameter.value);
    if (!added) return Status::invalid_argument(fmt::format("the parameter '{}' is given twice", at->first));
  }
  id.numeric = static_cast<cache_store::NumericClass>(o.numeric);
  id.storage = static_cast<DType>(o.storage_dtype);
  FINCHKV_RETURN_IF_ERROR(id.validate());
  return id;
}

Result<RopeRecord> read_rope(const fkv_put_options& o) {
  RopeRecord rope;
  FINCHKV_ASSIGN_OR_RETURN(const std::string scaling, name_of(o.rope_scaling, "rope_scaling"));
  if (!scaling.empty()) rope.scaling = scaling;
  if (o.rope_theta != 0) rope.theta = o.rope_theta;
  if (o.rope_factor != 0) rope.factor = o.rope_factor;
  if (o.rope_attention_factor != 0) rope.attention_factor = o.rope_attention_factor;
  rope.original_context = o.rope_original_context;
  rope.interleaved = o.rope_interleaved != 0;
  if (o.rotary_dims % 2 != 0 || o.rotary_dims > o.head_dim) {
    return Status::invalid_argument(
        fmt::format("rotary_dims is {}: an even number up to head_dim, {}", o.rotary_dims, o.head_dim));
  }
  rope.rotary_dims = o.rotary_dims;
  if (o.rope_inv_freq != nullptr) {
    rope.inv_freq.assign(o.rope_inv_freq, o.rope_inv_freq + o.rotary_dims / 2);
    return rope;
  }
  if (rope.scaling != "none") {
    return Status::invalid_argument(
        fmt::format("rope_scaling is '{}': give its frequencies as rope_inv_freq", rope.scaling));
  }
  for (std::uint32_t i = 0; i < o.rotary_dims / 2; ++i) {
    rope.inv_freq.push_back(static_cast<float>(
        std::pow(static_cast<double>(rope.theta), -2.0 * static_cast<double>(i) / static_cast<double>(o.rotary_dims))));
  }
  return rope;
}

// Origins that the caller left out; a vector per layer that needs one, alive as long as the set is put.
using Counted = std::vector<std::vector<std::uint32_t>>;

Result<KvSet> read_set(const fkv_put_options& o, Counted& counted) {
  if (o.dtype > FKV_BF16) return Status::invalid_argument("dtype is none of FKV_F32, FKV_F16 and FKV_BF16");
  if (o.key_form > FKV_NO_ROPE) {
    return Status::invalid_argument("key_form is none of FKV_PRE_ROPE, FKV_ROTATED and FKV_NO_ROPE");
  }
  constexpr std::uint32_t kMostLayers = 4096;
  if (o.n_layers == 0 || o.n_layers > kMostLayers) {
    return Status::invalid_argument(fmt::format("n_layers is {}: 1 to {}", o.n_layers, kMostLayers));
  }
  FINCHKV_RETURN_IF_ERROR(must_be_given(o.layers, "layers"));
  if (o.n_kv_heads == 0 || o.head_dim == 0) {
    return Status::invalid_argument(
        fmt::format("n_kv_heads is {} and head_dim {}: neither may be 0", o.n_kv_heads, o.head_dim));
  }
  if (o.origin_rows != 1 && o.origin_rows != o.n_kv_heads) {
    return Status::invalid_argument(fmt::format("origin_rows is {}: 1 or n_kv_heads, {}", o.origin_rows, o.n_kv_heads));
  }
  KvSet set;
  set.shape = {o.n_layers, o.n_kv_heads, o.head_dim, o.origin_rows};
  set.dtype = static_cast<DType>(o.dtype);
  set.key_form = static_cast<KeyForm>(o.key_form);
  set.doc_tokens = o.document_token_count;
  set.next_position = o.next_position;
  FINCHKV_ASSIGN_OR_RETURN(set.rope, read_rope(o));
  for (std::uint32_t l = 0; l < o.n_layers; ++l) {
    const fkv_layer_view& view = o.layers[l];
    if (view.n_kept > set.doc_tokens) {
      return Status::invalid_argument(
          fmt::format("layer {} keeps {} entries of a document of {} tokens", l, view.n_kept, set.doc_tokens));
    }
    std::size_t bytes = element_bytes(set.dtype);
    for (const std::uint32_t d : {o.n_kv_heads, o.head_dim, view.n_kept}) {
      if (__builtin_mul_overflow(bytes, std::size_t{d}, &bytes)) {
        return Status::invalid_argument(fmt::format("layer {} would have more bytes than there are addresses", l));
      }
    }
    if (bytes != 0 && (view.keys == nullptr || view.values == nullptr)) {
      return Status::invalid_argument(fmt::format("layer {} has no keys or no values", l));
    }
    KvLayer layer;
    layer.n_kept = view.n_kept;
    layer.keys = {static_cast<const std::byte*>(view.keys), bytes};
    layer.values = {static_cast<const std::byte*>(view.values), bytes};
    const std::size_t origins = std::size_t{o.origin_rows} * view.n_kept;
    if (view.origins != nullptr) {
      layer.origins = {view.origins, origins};
    } else {
      std::vector<std::uint32_t>& made = counted.emplace_back(origins);
      for (std::size_t i = 0; i < origins; ++i) made[i] = static_cast<std::uint32_t>(i % view.n_kept);
      layer.origins = made;
    }
    set.layers.push_back(layer);
  }
  FINCHKV_RETURN_IF_ERROR(set.validate());
  return set;
}

Result<cache_store::PutRequest> read_put(const fkv_put_options& o, const cache_store::Tenant& tenant,
                                         Counted& counted) {
  cache_store::PutRequest put;
  FINCHKV_ASSIGN_OR_RETURN(put.identity, read_identity(o, tenant));
  if (o.set != nullptr) {
    FINCHKV_RETURN_IF_ERROR(must_be_on_host(*o.set, "fkv_store_put"));
    put.set = o.set->set;
  } else {
    FINCHKV_ASSIGN_OR_RETURN(put.set, read_set(o, counted));
  }
  FINCHKV_ASSIGN_OR_RETURN(put.label, name_of(o.label, "label"));
  put.provenance = cache_store::Provenance::kClient;
  put.ttl_ms = o.ttl_ms;
  put.pinned = o.pinned != 0;
  put.zstd_tensors = o.zstd != 0;
  put.if_exists = o.replace != 0 ? cache_store::IfExists::kReplace : cache_store::IfExists::kKeep;
  if (o.no_document_tokens == 0) {
    put.document_tokens.emplace(o.document_tokens, o.document_tokens + o.document_token_count);
  }
  return put;
}

}  // namespace
}  // namespace finchkv::capi

using namespace finchkv;        // NOLINT(google-build-using-namespace): the definitions below are extern "C"
using namespace finchkv::capi;  // NOLINT(google-build-using-namespace)

extern "C" {

fkv_code fkv_store_put(fkv_store* store, const fkv_put_options* options, fkv_id* id, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(id, "id"));
    FINCHKV_ASSIGN_OR_RETURN(const fkv_put_options o, read_struct(options, "fkv_put_options"));
    Counted counted;
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::PutRequest put, read_put(o, store->store->tenant(), counted));
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::EntryInfo info, store->store->put(put));
    *id = id_out(info.id);
    return Status::ok();
  });
}

fkv_code fkv_store_put_id(fkv_store* store, const fkv_put_options* options, fkv_id* id, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(id, "id"));
    FINCHKV_ASSIGN_OR_RETURN(const fkv_put_options o, read_struct(options, "fkv_put_options"));
    const cache_store::Tenant& tenant = store->store->tenant();
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::CacheIdentity identity, read_identity(o, tenant));
    *id = id_out(cache_store::cache_id(identity, tenant));
    return Status::ok();
  });
}

}  // extern "C"
