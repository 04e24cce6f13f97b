// What the header says and the library's own types must agree on, checked when this is compiled.
#include <cstddef>

#include "base/dtype.h"
#include "base/key_turner.h"
#include "base/kvset.h"
#include "base/status.h"
#include "cache_store/identity.h"
#include "cache_store/store.h"
#include "capi/finchkv.h"

namespace finchkv {
namespace {

// Numbers pass through casts.
template <typename Enum>
constexpr bool same(int number, Enum value) {
  return number == static_cast<int>(value);
}
static_assert(same(FKV_OK, StatusCode::kOk) && same(FKV_INVALID_ARGUMENT, StatusCode::kInvalidArgument) &&
              same(FKV_NOT_FOUND, StatusCode::kNotFound) && same(FKV_CORRUPT, StatusCode::kCorrupt) &&
              same(FKV_UNAVAILABLE, StatusCode::kUnavailable) &&
              same(FKV_RESOURCE_EXHAUSTED, StatusCode::kResourceExhausted) &&
              same(FKV_DEADLINE_EXCEEDED, StatusCode::kDeadlineExceeded) &&
              same(FKV_PERMISSION_DENIED, StatusCode::kPermissionDenied) &&
              same(FKV_UNSUPPORTED, StatusCode::kUnsupported) && same(FKV_INTERNAL, StatusCode::kInternal));
static_assert(same(FKV_F32, DType::kF32) && same(FKV_F16, DType::kF16) && same(FKV_BF16, DType::kBF16) &&
              same(FKV_Q8, DType::kQ8) && same(FKV_Q4, DType::kQ4));
static_assert(same(FKV_PRE_ROPE, KeyForm::kPreRope) && same(FKV_ROTATED, KeyForm::kRotated) &&
              same(FKV_NO_ROPE, KeyForm::kNone));
static_assert(same(FKV_ORDER_AS_STORED, PairOrder::kAsStored) && same(FKV_HALF_SPLIT, PairOrder::kHalfSplit) &&
              same(FKV_INTERLEAVED, PairOrder::kInterleaved));
static_assert(same(FKV_REFERENCE, cache_store::NumericClass::kReference) &&
              same(FKV_FAST, cache_store::NumericClass::kFast) && same(FKV_FP8, cache_store::NumericClass::kFp8));
static_assert(same(FKV_COMPUTED, cache_store::Provenance::kComputed) &&
              same(FKV_CLIENT, cache_store::Provenance::kClient) &&
              same(FKV_IMPORTED, cache_store::Provenance::kImported));

// A member that came later into padding at the end of a struct would be read where an older caller never wrote.
#define FINCHKV_ENDS_WITH(Struct, last) \
  static_assert(sizeof(Struct) == offsetof(Struct, last) + sizeof(Struct::last) && offsetof(Struct, struct_size) == 0)
// NOLINTBEGIN(bugprone-sizeof-expression): some end with a pointer
FINCHKV_ENDS_WITH(fkv_store_options, encryption_key_file);
FINCHKV_ENDS_WITH(fkv_entry_info, provenance);
FINCHKV_ENDS_WITH(fkv_gc_info, bytes);
FINCHKV_ENDS_WITH(fkv_scrub_info, quarantined);
FINCHKV_ENDS_WITH(fkv_backup_info, bytes);
FINCHKV_ENDS_WITH(fkv_device_options, threads);
FINCHKV_ENDS_WITH(fkv_kvset_info, device_id);
FINCHKV_ENDS_WITH(fkv_tensor_options, stream);
FINCHKV_ENDS_WITH(fkv_put_options, set);
FINCHKV_ENDS_WITH(fkv_llama_options, document_token_count);
FINCHKV_ENDS_WITH(fkv_llama_source, token_count);
FINCHKV_ENDS_WITH(fkv_model_options, device);
FINCHKV_ENDS_WITH(fkv_ask_options, on_token);
FINCHKV_ENDS_WITH(fkv_answer_info, decode_ms);
// NOLINTEND(bugprone-sizeof-expression)
#undef FINCHKV_ENDS_WITH

}  // namespace
}  // namespace finchkv
