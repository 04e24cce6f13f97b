#include "cache_store/label.h"

#include "cache_store/key_ring.h"
#include "cache_store/sealing.h"

namespace finchkv::cache_store {
namespace {

constexpr std::string_view kPurpose = "label";

Result<DataKey> data_key(const EntryHead& head, const PutContext& context, const KeyRing& keys) {
  FINCHKV_ASSIGN_OR_RETURN(const WrappedKey wrapped, WrappedKey::decode(head.wrapped_key));
  return keys.unwrap(wrapped, context, std::as_bytes(std::span(head.message_digest)));
}

std::string as_text(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

Result<std::string> seal_label(std::string_view label, const EntryHead& head, std::string_view tenant,
                               const KeyRing* keys) {
  if (keys == nullptr) return Status::permission_denied("it is sealed: give the tenant's encryption key");
  const PutContext context{.tenant = tenant, .put_id = head.put_id};
  FINCHKV_ASSIGN_OR_RETURN(const DataKey key, data_key(head, context, *keys));
  FINCHKV_ASSIGN_OR_RETURN(const auto sealed, seal_record(key, context, kPurpose, as_byte_span(label)));
  return as_text(sealed);
}

Result<std::string> open_label(std::string_view sealed, const EntryHead& head, std::string_view tenant,
                               const KeyRing* keys) {
  if (keys == nullptr) return std::string();
  const PutContext context{.tenant = tenant, .put_id = head.put_id};
  const auto key = data_key(head, context, *keys);
  if (key.status().code() == StatusCode::kPermissionDenied) return std::string();
  if (!key.is_ok()) return key.status();
  FINCHKV_ASSIGN_OR_RETURN(const auto label, open_record(*key, context, kPurpose, as_byte_span(sealed)));
  return as_text(label);
}

}  // namespace finchkv::cache_store
