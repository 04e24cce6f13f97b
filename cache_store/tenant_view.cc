#include "cache_store/tenant_view.h"

#include <algorithm>

#include "cache_store/codec.h"
#include "cache_store/label.h"
#include "cache_store/packed_entry.h"

namespace finchkv::cache_store {

Result<EntryInfo> TenantView::put(const PutRequest& request) {
  FINCHKV_RETURN_IF_ERROR(prepare_to_write());
  const std::string owner = as_.owner_for(request.sharing);
  FINCHKV_RETURN_IF_ERROR(check_put(request, as_.ids_of(owner)));
  FINCHKV_RETURN_IF_ERROR(as_.may_change(owner));
  const CacheId id = cache_id(request.identity, as_.ids_of(owner));
  if (request.if_exists == IfExists::kKeep) {  // before it is packed for nothing
    FINCHKV_ASSIGN_OR_RETURN(auto there, existing(owner, id));
    if (there) return *std::move(there);
  }
  const auto packed = pack_entry(request);
  if (!packed.is_ok()) return about_entry(id, packed.status());
  return store(*packed, request);
}

Result<EntryInfo> TenantView::put_packed(const PackedEntry& entry, const PutOptions& options) {
  FINCHKV_RETURN_IF_ERROR(prepare_to_write());
  const std::string owner = as_.owner_for(options.sharing);
  FINCHKV_RETURN_IF_ERROR(check_label(options.label));
  if (const Status sound = check_packed(entry, as_.ids_of(owner)); !sound.is_ok()) {
    return Status::invalid_argument("the packed entry cannot be stored: " + sound.message());
  }
  FINCHKV_RETURN_IF_ERROR(as_.may_change(owner));
  return store(entry, options);
}

Result<std::vector<std::vector<std::uint32_t>>> TenantView::read_origins(const CacheId& id) {
  std::vector<std::vector<std::uint32_t>> origins;
  FINCHKV_RETURN_IF_ERROR(read_blocks(
      id, Which::kSound, [&](std::string_view /*owner*/, const EntryReader& reader, BlockSource& blocks) -> Status {
        FINCHKV_ASSIGN_OR_RETURN(origins, reader.read_origins(blocks));
        return Status::ok();
      }));
  return origins;
}

Result<std::vector<std::int32_t>> TenantView::read_document_tokens(const CacheId& id) {
  std::optional<std::vector<std::int32_t>> tokens;
  FINCHKV_RETURN_IF_ERROR(read_blocks(
      id, Which::kSound, [&](std::string_view owner, const EntryReader& reader, BlockSource& blocks) -> Status {
        tokens.reset();
        if (!reader.head().has_document_tokens) return Status::ok();
        FINCHKV_ASSIGN_OR_RETURN(tokens, reader.read_document_tokens(as_.ids_of(owner), blocks));
        return Status::ok();
      }));
  if (!tokens) return about_entry(id, Status::not_found("it was stored without its document"));
  return *std::move(tokens);
}

Result<PackedEntry> TenantView::read_packed(const CacheId& id) {
  PackedEntry packed;
  FINCHKV_RETURN_IF_ERROR(read_blocks(
      id, Which::kSound, [&](std::string_view /*owner*/, const EntryReader& reader, BlockSource& blocks) -> Status {
        FINCHKV_ASSIGN_OR_RETURN(packed, reader.read_packed(blocks));
        return Status::ok();
      }));
  return packed;
}

Status TenantView::verify(const CacheId& id) {
  return read_blocks(id, Which::kFirst, [&](std::string_view owner, const EntryReader& reader, BlockSource& blocks) {
    return reader.verify(as_.ids_of(owner), blocks);
  });
}

Result<EntryPage> TenantView::list(const std::optional<CacheId>& after, std::size_t limit) {
  FINCHKV_RETURN_IF_ERROR(check_page_limit(limit));
  return list_under(as_.tenant().name, after, limit);
}

Result<EntryPage> TenantView::list_shared(const std::optional<CacheId>& after, std::size_t limit) {
  FINCHKV_RETURN_IF_ERROR(check_page_limit(limit));
  return list_under(std::string(kSharedOwner), after, limit);
}

Result<CacheId> TenantView::resolve_prefix(std::string_view hex_prefix) {
  FINCHKV_ASSIGN_OR_RETURN(const IdPrefix prefix, IdPrefix::parse(hex_prefix));
  FINCHKV_ASSIGN_OR_RETURN(std::vector<CacheId> matches, ids_under(as_.tenant().name, prefix));
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<CacheId> shared, ids_under(std::string(kSharedOwner), prefix));
  matches.insert(matches.end(), shared.begin(), shared.end());
  std::ranges::sort(matches);
  matches.erase(std::unique(matches.begin(), matches.end()), matches.end());
  return prefix.choose(matches);
}

}  // namespace finchkv::cache_store
