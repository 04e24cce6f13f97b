#include <chrono>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "cache_store/key_source.h"
#include "cache_store/memory_store.h"
#include "cache_store/rocksdb_store.h"
#include "cache_store/store_url.h"
#include "capi/guard.h"
#include "capi/handles.h"

namespace finchkv::capi {
namespace {

using cache_store::CacheId;
using cache_store::Store;

Result<std::shared_ptr<cache_store::StoreHost>> open_host(const fkv_store_options& o) {
  FINCHKV_ASSIGN_OR_RETURN(const std::string url, name_of(o.url, "url"));
  FINCHKV_ASSIGN_OR_RETURN(const cache_store::StoreUrl where, cache_store::parse_store_url(url));
  if (where.kind == cache_store::StoreUrl::Kind::kMemory) {
    if (o.mode == FKV_WRITE) return cache_store::make_memory_store();
    return Status::invalid_argument("memory: begins empty and is nobody else's: open it with FKV_WRITE, not FKV_READ");
  }
  cache_store::RocksDbOptions how;
  how.mode = o.mode == FKV_READ ? cache_store::RocksDbOptions::Mode::kRead : cache_store::RocksDbOptions::Mode::kWrite;
  how.wait = std::chrono::milliseconds(o.wait_ms);
  how.create_if_missing = o.create != 0;
  return cache_store::open_rocksdb_store(where.directory, how);
}

Result<fkv_store> open(const fkv_store_options& o) {
  if (o.mode > FKV_WRITE) return Status::invalid_argument("mode is neither FKV_READ nor FKV_WRITE");
  cache_store::Tenant tenant;
  FINCHKV_ASSIGN_OR_RETURN(tenant.name, name_of(o.tenant, "tenant"));
  FINCHKV_ASSIGN_OR_RETURN(const std::string_view key, view_of(o.tenant_key, "tenant_key"));
  const auto bytes = as_byte_span(key);
  tenant.key.assign(bytes.begin(), bytes.end());
  FINCHKV_RETURN_IF_ERROR(tenant.validate());
  cache_store::ViewOptions view{.publisher = o.publisher != 0};
  FINCHKV_ASSIGN_OR_RETURN(const std::string keys, name_of(o.encryption_key_file, "encryption_key_file"));
  if (!keys.empty()) {
    FINCHKV_ASSIGN_OR_RETURN(cache_store::KeyRing ring, cache_store::load_key_file(keys));
    view.keys = std::make_shared<cache_store::KeyRing>(std::move(ring));
  }
  fkv_store out;
  FINCHKV_ASSIGN_OR_RETURN(out.host, open_host(o));
  FINCHKV_ASSIGN_OR_RETURN(out.store, out.host->view(std::move(tenant), std::move(view)));
  return out;
}

// What all calls on one entry have in common.
template <typename Call>
fkv_code on_entry(fkv_store* store, const fkv_id* id, fkv_error** error, const Call& call) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(id, "id"));
    return call(*store->store, id_of(*id));
  });
}

using ListPage = Result<cache_store::EntryPage> (Store::*)(const std::optional<CacheId>&, std::size_t);

fkv_code list_page(fkv_store* store, const fkv_id* after, uint32_t limit, fkv_listing** listing, fkv_error** error,
                   ListPage list) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(listing, "listing"));
    *listing = nullptr;
    std::optional<CacheId> from;
    if (after != nullptr) from = id_of(*after);
    FINCHKV_ASSIGN_OR_RETURN(cache_store::EntryPage page, ((*store->store).*list)(from, limit));
    auto out = std::make_unique<fkv_listing>();
    for (const CacheId& id : page.unreadable) out->unreadable.push_back(id_out(id));
    out->page = std::move(page);
    *listing = out.release();
    return Status::ok();
  });
}

}  // namespace

CacheId id_of(const fkv_id& id) {
  CacheId out;
  std::copy(std::begin(id.bytes), std::end(id.bytes), out.bytes.begin());
  return out;
}

fkv_id id_out(const CacheId& id) {
  fkv_id out;
  std::copy(id.bytes.begin(), id.bytes.end(), out.bytes);
  return out;
}

}  // namespace finchkv::capi

using namespace finchkv;        // NOLINT(google-build-using-namespace): the definitions below are extern "C"
using namespace finchkv::capi;  // NOLINT(google-build-using-namespace)

extern "C" {

void fkv_id_hex(const fkv_id* id, char hex[64]) {
  if (id == nullptr || hex == nullptr) return;
  constexpr char kDigits[] = "0123456789abcdef";
  for (std::size_t i = 0; i < sizeof(id->bytes); ++i) {
    hex[2 * i] = kDigits[id->bytes[i] >> 4U];
    hex[2 * i + 1] = kDigits[id->bytes[i] & 15U];
  }
}

fkv_code fkv_id_parse(fkv_str hex, fkv_id* id, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(id, "id"));
    FINCHKV_ASSIGN_OR_RETURN(const std::string_view digits, view_of(hex, "hex"));
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::CacheId parsed, cache_store::CacheId::from_hex(digits));
    *id = id_out(parsed);
    return Status::ok();
  });
}

fkv_code fkv_store_open(const fkv_store_options* options, fkv_store** store, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    *store = nullptr;
    FINCHKV_ASSIGN_OR_RETURN(const fkv_store_options o, read_struct(options, "fkv_store_options"));
    FINCHKV_ASSIGN_OR_RETURN(fkv_store opened, open(o));
    *store = new fkv_store(std::move(opened));
    return Status::ok();
  });
}

void fkv_store_close(fkv_store* store) { delete store; }

fkv_code fkv_store_resolve(fkv_store* store, fkv_str hex_prefix, fkv_id* id, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(id, "id"));
    FINCHKV_ASSIGN_OR_RETURN(const std::string_view digits, view_of(hex_prefix, "hex_prefix"));
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::CacheId found, store->store->resolve_prefix(digits));
    *id = id_out(found);
    return Status::ok();
  });
}

fkv_code fkv_store_find(fkv_store* store, const fkv_id* id, fkv_entry** entry, fkv_error** error) {
  return on_entry(store, id, error, [&](cache_store::Store& s, const cache_store::CacheId& name) -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(entry, "entry"));
    *entry = nullptr;
    FINCHKV_ASSIGN_OR_RETURN(cache_store::EntryInfo info, s.find(name));
    *entry = new fkv_entry{std::move(info)};
    return Status::ok();
  });
}

fkv_code fkv_store_remove(fkv_store* store, const fkv_id* id, fkv_error** error) {
  return on_entry(store, id, error, [](auto& s, const auto& name) { return s.remove(name); });
}

fkv_code fkv_store_verify(fkv_store* store, const fkv_id* id, fkv_error** error) {
  return on_entry(store, id, error, [](auto& s, const auto& name) { return s.verify(name); });
}

fkv_code fkv_store_document_tokens(fkv_store* store, const fkv_id* id, fkv_tokens** tokens, fkv_error** error) {
  return on_entry(store, id, error, [&](auto& s, const auto& name) -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(tokens, "tokens"));
    *tokens = nullptr;
    FINCHKV_ASSIGN_OR_RETURN(std::vector<std::int32_t> ids, s.read_document_tokens(name));
    *tokens = new fkv_tokens{std::move(ids)};
    return Status::ok();
  });
}

fkv_code fkv_store_set_label(fkv_store* store, const fkv_id* id, fkv_str label, fkv_error** error) {
  return on_entry(store, id, error, [&](auto& s, const auto& name) -> Status {
    FINCHKV_ASSIGN_OR_RETURN(const std::string_view text, view_of(label, "label"));
    return s.set_label(name, std::string(text));
  });
}

fkv_code fkv_store_set_pinned(fkv_store* store, const fkv_id* id, uint32_t pinned, fkv_error** error) {
  return on_entry(store, id, error, [&](auto& s, const auto& name) { return s.set_pinned(name, pinned != 0); });
}

fkv_code fkv_store_set_expiry(fkv_store* store, const fkv_id* id, uint64_t unix_ms, fkv_error** error) {
  return on_entry(store, id, error, [&](auto& s, const auto& name) { return s.set_expiry(name, unix_ms); });
}

fkv_code fkv_store_list(fkv_store* store, const fkv_id* after, uint32_t limit, fkv_listing** listing,
                        fkv_error** error) {
  return list_page(store, after, limit, listing, error, &cache_store::Store::list);
}

fkv_code fkv_store_list_shared(fkv_store* store, const fkv_id* after, uint32_t limit, fkv_listing** listing,
                               fkv_error** error) {
  return list_page(store, after, limit, listing, error, &cache_store::Store::list_shared);
}

fkv_code fkv_store_stats(fkv_store* store, fkv_text** json, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(json, "json"));
    *json = nullptr;
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::StoreStats stats, store->store->stats());
    const nlohmann::ordered_json out = {{"entries", stats.entries},       {"stored_bytes", stats.stored_bytes},
                                        {"raw_bytes", stats.raw_bytes},   {"hits", stats.hits},
                                        {"unreadable", stats.unreadable}, {"disk_bytes", stats.disk_bytes}};
    *json = new fkv_text{out.dump()};
    return Status::ok();
  });
}

}  // extern "C"
