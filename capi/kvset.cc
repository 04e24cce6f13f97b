#include <utility>

#include "capi/guard.h"
#include "capi/handles.h"

using namespace finchkv;        // NOLINT(google-build-using-namespace): the definitions below are extern "C"
using namespace finchkv::capi;  // NOLINT(google-build-using-namespace)

namespace {

// All of a set but its layers.
KvSet frame_of(const cache_store::EntryInfo& info, std::uint32_t n_layers) {
  KvSet set;
  set.shape = info.shape;
  set.shape.n_layers = n_layers;
  set.dtype = info.decoded;
  set.key_form = info.key_form;
  set.doc_tokens = info.identity.doc_tokens;
  set.next_position = info.next_position;
  set.rope = info.rope;
  return set;
}

// Layers [first, first + count) of a fetch that goes to a GPU.
Result<fkv_kvset*> take_to_gpu(const fkv_fetch& fetch, std::uint32_t first, std::uint32_t count) {
  const cache_store::EntryInfo& info = fetch.stream->info();
  FINCHKV_ASSIGN_OR_RETURN(SetOnDevice made,
                           bring(
                               frame_of(info, count), info.identity.storage,
                               [&](std::uint32_t l) { return fetch.stream->take(first + l); }, fetch.gpu));
  return new fkv_kvset{std::move(made.set), std::move(made.there), fetch.turners};
}

Status begin_fetch(fkv_store* store, const fkv_id* id, std::shared_ptr<OpenDevice> gpu, fkv_fetch** fetch) {
  cache_store::StreamOptions how;
  if (gpu != nullptr) {
    const std::lock_guard lock(gpu->mutex);
    how = {.form = cache_store::LayerForm::kStored, .memory = gpu->device->host_memory()};
  }
  FINCHKV_ASSIGN_OR_RETURN(std::unique_ptr<cache_store::EntryStream> stream, store->store->stream(id_of(*id), how));
  *fetch = new fkv_fetch{.store = store->store, .stream = std::move(stream), .gpu = std::move(gpu)};
  return Status::ok();
}

Result<const KvLayer*> layer_of(const fkv_kvset* set, uint32_t layer) {
  FINCHKV_RETURN_IF_ERROR(must_be_given(set, "set"));
  if (layer >= set->set.layers.size()) {
    return Status::invalid_argument(fmt::format("there is no layer {} in a set of {}", layer, set->set.layers.size()));
  }
  return &set->set.layers[layer];
}

}  // namespace

extern "C" {

fkv_code fkv_store_fetch(fkv_store* store, const fkv_id* id, fkv_fetch** fetch, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(id, "id"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(fetch, "fetch"));
    *fetch = nullptr;
    return begin_fetch(store, id, nullptr, fetch);
  });
}

fkv_code fkv_store_fetch_to(fkv_store* store, const fkv_id* id, fkv_device* device, fkv_fetch** fetch,
                            fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(id, "id"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(device, "device"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(fetch, "fetch"));
    *fetch = nullptr;
    return begin_fetch(store, id, device->open->on_gpu ? device->open : nullptr, fetch);
  });
}

fkv_code fkv_fetch_layer(fkv_fetch* fetch, uint32_t layer, fkv_kvset** set, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(fetch, "fetch"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(set, "set"));
    *set = nullptr;
    if (fetch->gpu != nullptr) {
      FINCHKV_ASSIGN_OR_RETURN(*set, take_to_gpu(*fetch, layer, 1));
      return Status::ok();
    }
    // The set owns this layer's memory and nothing else: not the stream, which holds the store open.
    FINCHKV_ASSIGN_OR_RETURN(OwnedLayer held, fetch->stream->hold(layer));
    KvSet one = frame_of(fetch->stream->info(), 1);
    one.layers.push_back(held.views);
    one.memory.push_back(std::move(held.memory));
    *set = new fkv_kvset{std::move(one), nullptr, fetch->turners};
    return Status::ok();
  });
}

fkv_code fkv_fetch_finish(fkv_fetch* fetch, fkv_kvset** set, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(fetch, "fetch"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(set, "set"));
    *set = nullptr;
    if (fetch->gpu != nullptr) {
      FINCHKV_ASSIGN_OR_RETURN(*set, take_to_gpu(*fetch, 0, fetch->stream->info().shape.n_layers));
      return Status::ok();
    }
    FINCHKV_ASSIGN_OR_RETURN(KvSet whole, fetch->stream->finish());
    *set = new fkv_kvset{std::move(whole), nullptr, fetch->turners};
    return Status::ok();
  });
}

void fkv_fetch_free(fkv_fetch* fetch) { delete fetch; }

fkv_code fkv_kvset_get_info(const fkv_kvset* set, fkv_kvset_info* info, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(set, "set"));
    const KvSet& s = set->set;
    fkv_kvset_info out{};
    out.n_layers = s.shape.n_layers;
    out.n_kv_heads = s.shape.n_kv_heads;
    out.head_dim = s.shape.head_dim;
    out.origin_rows = s.shape.origin_rows;
    out.dtype = static_cast<uint32_t>(s.dtype);
    out.key_form = static_cast<uint32_t>(s.key_form);
    out.doc_tokens = s.doc_tokens;
    out.next_position = s.next_position;
    out.rope_scaling = str_of(s.rope.scaling);
    out.rope_theta = s.rope.theta;
    out.rope_factor = s.rope.factor;
    out.rope_attention_factor = s.rope.attention_factor;
    out.rotary_dims = s.rope.rotary_dims;
    out.rope_interleaved = s.rope.interleaved ? 1 : 0;
    out.rope_inv_freq = s.rope.inv_freq.data();
    out.rope_original_context = s.rope.original_context;
    out.device_type = set->there == nullptr ? FKV_ON_CPU : FKV_ON_CUDA;
    out.device_id = set->there == nullptr ? 0 : set->there->device->ordinal;
    return write_struct(out, info, "fkv_kvset_info");
  });
}

fkv_code fkv_kvset_layer_kept(const fkv_kvset* set, uint32_t layer, uint32_t* n_kept, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(n_kept, "n_kept"));
    FINCHKV_ASSIGN_OR_RETURN(const KvLayer* const found, layer_of(set, layer));
    *n_kept = found->n_kept;
    return Status::ok();
  });
}

fkv_code fkv_kvset_origins(const fkv_kvset* set, uint32_t layer, const uint32_t** origins, size_t* count,
                           fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(origins, "origins"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(count, "count"));
    FINCHKV_ASSIGN_OR_RETURN(const KvLayer* const found, layer_of(set, layer));
    *origins = found->origins.data();
    *count = found->origins.size();
    return Status::ok();
  });
}

void fkv_kvset_free(fkv_kvset* set) { delete set; }

}  // extern "C"
