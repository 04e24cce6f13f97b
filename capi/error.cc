#include "capi/guard.h"
#include "capi/handles.h"

namespace finchkv::capi {
namespace {

// For the moment when there is no memory for another: made with the library, never freed.
fkv_error out_of_memory{.code = FKV_RESOURCE_EXHAUSTED, .message = {}, .words = "there is no memory left"};

}  // namespace

fkv_code fail_out_of_memory(fkv_error** error) noexcept {
  if (error != nullptr) *error = &out_of_memory;
  return FKV_RESOURCE_EXHAUSTED;
}

fkv_code fail(const Status& status, fkv_error** error) noexcept {
  const auto code = static_cast<fkv_code>(status.code());
  if (error == nullptr) return code;
  try {
    *error = new fkv_error{.code = code, .message = status.message()};
  } catch (...) {
    return fail_out_of_memory(error);  // the code that the caller sees is the error's
  }
  return code;
}

}  // namespace finchkv::capi

extern "C" {

uint32_t fkv_abi_version(void) { return FKV_ABI_VERSION; }
const char* fkv_version(void) { return FINCHKV_VERSION; }

fkv_code fkv_error_code(const fkv_error* error) { return error == nullptr ? FKV_OK : error->code; }
const char* fkv_error_message(const fkv_error* error) {
  if (error == nullptr) return "";
  return error->words != nullptr ? error->words : error->message.c_str();
}
void fkv_error_free(fkv_error* error) {
  if (error != &finchkv::capi::out_of_memory) delete error;
}

const char* fkv_code_name(fkv_code code) {
  if (code < FKV_OK || code > FKV_INTERNAL) return "unknown";
  // The names are literals.
  return finchkv::status_code_name(static_cast<finchkv::StatusCode>(code)).data();
}

fkv_str fkv_text_view(const fkv_text* text) {
  return text == nullptr ? fkv_str{nullptr, 0} : finchkv::capi::str_of(text->text);
}
void fkv_text_free(fkv_text* text) { delete text; }

}  // extern "C"
