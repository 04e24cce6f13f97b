#include <utility>

#include <nlohmann/json.hpp>

#include "capi/guard.h"
#include "capi/handles.h"

namespace finchkv::capi {

Result<ModelTurn> ModelTurn::take(fkv_model& model) {
  if (model.busy_in == std::this_thread::get_id()) {
    return Status::invalid_argument(
        "the model is asked from a callback of a call on the same model: let that call return first");
  }
  return ModelTurn(model);
}

}  // namespace finchkv::capi

using namespace finchkv;        // NOLINT(google-build-using-namespace): the definitions below are extern "C"
using namespace finchkv::capi;  // NOLINT(google-build-using-namespace)

Status fkv_model::weights() {
  if (model->transformer() != nullptr) return Status::ok();
  FINCHKV_ASSIGN_OR_RETURN(std::shared_ptr<kernels::Device> opened,
                           kernels::open_device({.choice = device, .numeric_class = numeric, .threads = threads}));
  return model->load_weights(std::move(opened));
}

namespace {

nlohmann::ordered_json describe(const model::Model& m) {
  const model::ModelConfig& c = m.config();
  return {{"architecture", c.architecture},
          {"name", c.name},
          {"layers", c.n_layers},
          {"heads", c.n_heads},
          {"kv_heads", c.n_kv_heads},
          {"head_dim", c.head_dim},
          {"vocab", c.vocab},
          {"context_length", c.context_length},
          {"tokenizer", m.tokenizer().kind()},
          {"template", model::chat_template_name(m.chat_template())},
          {"model_fingerprint", to_hex(m.model_fingerprint())},
          {"weights_fingerprint", to_hex(m.weights_fingerprint())},
          {"tokenizer_fingerprint", to_hex(m.tokenizer_fingerprint())}};
}

Result<kernels::NumericClass> numeric_of(fkv_str compute) {
  FINCHKV_ASSIGN_OR_RETURN(const std::string name, name_of(compute, "compute"));
  if (name.empty() || name == "auto" || name == "bf16") return kernels::NumericClass::kFast;
  if (name == "f32") return kernels::NumericClass::kReference;
  if (name == "fp8") return kernels::NumericClass::kFp8;
  return Status::invalid_argument(fmt::format("there is no arithmetic '{}': name f32, bf16, fp8 or auto", name));
}

}  // namespace

extern "C" {

fkv_code fkv_model_open(const fkv_model_options* options, fkv_model** model, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(model, "model"));
    *model = nullptr;
    FINCHKV_ASSIGN_OR_RETURN(const fkv_model_options o, read_struct(options, "fkv_model_options"));
    FINCHKV_ASSIGN_OR_RETURN(const std::string path, name_of(o.path, "path"));
    FINCHKV_ASSIGN_OR_RETURN(const std::string memory, name_of(o.fingerprint_cache, "fingerprint_cache"));
    auto out = std::make_unique<fkv_model>();
    FINCHKV_ASSIGN_OR_RETURN(out->threads, thread_count(o.threads));
    FINCHKV_ASSIGN_OR_RETURN(out->device, device_of(o.device));
    FINCHKV_ASSIGN_OR_RETURN(out->numeric, numeric_of(o.compute));
    FINCHKV_ASSIGN_OR_RETURN(out->model,
                             model::Model::open(path, {.fingerprint_memory = memory, .threads = out->threads}));
    *model = out.release();
    return Status::ok();
  });
}

void fkv_model_close(fkv_model* model) { delete model; }

fkv_code fkv_model_describe(fkv_model* model, fkv_text** json, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(model, "model"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(json, "json"));
    *json = nullptr;
    *json = new fkv_text{describe(*model->model).dump()};
    return Status::ok();
  });
}

fkv_code fkv_model_tokenize(fkv_model* model, fkv_str text, uint32_t parse_special, fkv_tokens** tokens,
                            fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(model, "model"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(tokens, "tokens"));
    *tokens = nullptr;
    FINCHKV_ASSIGN_OR_RETURN(const std::string_view view, view_of(text, "text"));
    FINCHKV_ASSIGN_OR_RETURN(auto ids, model->model->tokenizer().encode(view, parse_special != 0));
    *tokens = new fkv_tokens{std::move(ids)};
    return Status::ok();
  });
}

fkv_code fkv_model_detokenize(fkv_model* model, const int32_t* tokens, size_t count, fkv_text** text,
                              fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(model, "model"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(text, "text"));
    *text = nullptr;
    FINCHKV_ASSIGN_OR_RETURN(const auto ids, array_of(tokens, count, "tokens"));
    FINCHKV_RETURN_IF_ERROR(model->model->config().check_tokens(ids, "the"));
    *text = new fkv_text{model->model->tokenizer().decode(ids)};
    return Status::ok();
  });
}

const int32_t* fkv_tokens_data(const fkv_tokens* tokens, size_t* count) {
  if (count != nullptr) *count = tokens == nullptr ? 0 : tokens->ids.size();
  return tokens == nullptr ? nullptr : tokens->ids.data();
}

void fkv_tokens_free(fkv_tokens* tokens) { delete tokens; }

}  // extern "C"
