// llama.cpp's sequence states over cache_store/llama_state.h.
#include <cmath>
#include <utility>

#include "cache_store/llama_state.h"
#include "capi/guard.h"
#include "capi/handles.h"
#include "engine/same_model.h"

namespace finchkv::capi {
namespace {

using cache_store::LlamaModelShape;
using cache_store::LlamaStateOptions;

Result<LlamaStateOptions> read_options(const fkv_llama_options& o) {
  if (o.dtype > FKV_BF16) return Status::invalid_argument("dtype is none of FKV_F32, FKV_F16 and FKV_BF16");
  if (o.order > FKV_INTERLEAVED) {
    return Status::invalid_argument("order is none of FKV_ORDER_AS_STORED, FKV_HALF_SPLIT and FKV_INTERLEAVED");
  }
  LlamaStateOptions out;
  out.dtype = static_cast<DType>(o.dtype);
  out.transposed_values = o.transposed_values != 0;
  out.order = static_cast<PairOrder>(o.order);
  out.streams = o.streams == 0 ? 1 : o.streams;
  out.base_position = o.base_position;
  return out;
}

/// The tokens of a file; none for the other form.
Result<std::vector<std::int32_t>> read_tokens(const fkv_llama_options& o, const KvSet& set,
                                              const LlamaStateOptions& how) {
  FINCHKV_ASSIGN_OR_RETURN(const auto tokens, array_of(o.tokens, o.token_count, "tokens"));
  FINCHKV_ASSIGN_OR_RETURN(const auto document, array_of(o.document_tokens, o.document_token_count, "document_tokens"));
  if (o.file == 0 && (o.token_count != 0 || o.document_token_count != 0)) {
    return Status::invalid_argument("tokens are for a file: set file to 1, or give none");
  }
  if (o.token_count != 0 && o.document_token_count != 0) {
    return Status::invalid_argument("tokens and document_tokens are given: a file needs one of them");
  }
  if (document.empty()) return std::vector<std::int32_t>(tokens.begin(), tokens.end());
  return cache_store::llama_slot_tokens(set, document, how);
}

Result<LlamaModelShape> read_shape(const fkv_llama_source& o) {
  LlamaModelShape shape;
  if (o.model != nullptr) return engine::llama_shape_of(*o.model->model);
  shape.n_layers = o.n_layers;
  shape.n_kv_heads = o.n_kv_heads;
  shape.head_dim = o.head_dim;
  if (o.rotary_dims % 2 != 0 || o.rotary_dims > o.head_dim) {
    return Status::invalid_argument(
        fmt::format("rotary_dims is {}: an even number up to head_dim, {}", o.rotary_dims, o.head_dim));
  }
  constexpr std::uint32_t kMostDims = 1U << 16U;
  if (o.head_dim > kMostDims) return Status::invalid_argument(fmt::format("head_dim is {}: no head's", o.head_dim));
  if (o.rope_theta != 0) shape.rope.theta = o.rope_theta;
  shape.rope.rotary_dims = o.rotary_dims;
  shape.rope.interleaved = o.rope_interleaved != 0;
  for (std::uint32_t i = 0; i < o.rotary_dims / 2; ++i) {
    shape.rope.inv_freq.push_back(static_cast<float>(
        std::pow(static_cast<double>(shape.rope.theta), -2.0 * static_cast<double>(i) / o.rotary_dims)));
  }
  return shape;
}

}  // namespace
}  // namespace finchkv::capi

using namespace finchkv;        // NOLINT(google-build-using-namespace): the definitions below are extern "C"
using namespace finchkv::capi;  // NOLINT(google-build-using-namespace)

extern "C" {

const void* fkv_bytes_data(const fkv_bytes* bytes, size_t* size) {
  if (size != nullptr) *size = bytes == nullptr ? 0 : bytes->size;
  return bytes == nullptr ? nullptr : bytes->memory.get();
}

void fkv_bytes_free(fkv_bytes* bytes) { delete bytes; }

fkv_code fkv_kvset_to_llama_state(const fkv_kvset* set, const fkv_llama_options* options, fkv_bytes** state,
                                  uint64_t* next_position, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(set, "set"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(state, "state"));
    *state = nullptr;
    FINCHKV_RETURN_IF_ERROR(must_be_on_host(*set, "fkv_kvset_to_llama_state"));
    FINCHKV_ASSIGN_OR_RETURN(const fkv_llama_options o, read_struct(options, "fkv_llama_options"));
    FINCHKV_ASSIGN_OR_RETURN(const LlamaStateOptions how, read_options(o));
    FINCHKV_ASSIGN_OR_RETURN(const std::vector<std::int32_t> named, read_tokens(o, set->set, how));
    std::optional<std::span<const std::int32_t>> tokens;
    if (o.file != 0) tokens.emplace(named);
    FINCHKV_ASSIGN_OR_RETURN(cache_store::LlamaState made, cache_store::write_llama_state(set->set, tokens, how));
    *state = new fkv_bytes{std::move(made.memory), made.size};
    if (next_position != nullptr) *next_position = cache_store::llama_next_position(set->set, how);
    return Status::ok();
  });
}

fkv_code fkv_kvset_from_llama_state(const void* state, size_t size, const fkv_llama_source* source, fkv_kvset** set,
                                    fkv_tokens** tokens, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(state, "state"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(set, "set"));
    *set = nullptr;
    if (tokens != nullptr) *tokens = nullptr;
    FINCHKV_ASSIGN_OR_RETURN(const fkv_llama_source o, read_struct(source, "fkv_llama_source"));
    FINCHKV_ASSIGN_OR_RETURN(const LlamaModelShape shape, read_shape(o));
    FINCHKV_ASSIGN_OR_RETURN(const auto given, array_of(o.tokens, o.token_count, "tokens"));
    FINCHKV_ASSIGN_OR_RETURN(const auto bytes, array_of(static_cast<const std::byte*>(state), size, "state"));
    auto read = cache_store::read_llama_state(bytes, shape, given);
    if (!read.is_ok()) {
      return Status(read.status().code(), fmt::format("the state cannot be taken: {}", read.status().message()));
    }
    std::unique_ptr<fkv_tokens> ids;
    if (tokens != nullptr) ids = std::make_unique<fkv_tokens>(fkv_tokens{std::move(read->tokens)});
    *set = new fkv_kvset{.set = std::move(read->set)};
    if (tokens != nullptr) *tokens = ids.release();
    return Status::ok();
  });
}

fkv_code fkv_entry_check_model(const fkv_entry* entry, fkv_model* model, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(entry, "entry"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(model, "model"));
    return engine::check_same_model(entry->info, *model->model);
  });
}

}  // extern "C"
