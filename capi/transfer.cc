// Entries on their way between stores: files, archives through callbacks, and copies.
#include <utility>

#include "cache_store/archive.h"
#include "cache_store/entry_copy.h"
#include "cache_store/packed_entry.h"
#include "cache_store/safetensors.h"
#include "capi/guard.h"
#include "capi/handles.h"

namespace finchkv::capi {
namespace {

using cache_store::ArchivedEntry;
using cache_store::EntryInfo;
using cache_store::Sharing;
using cache_store::Store;
using cache_store::Tenant;

fkv_code export_file(fkv_store* store, const fkv_id* id, fkv_str path, cache_store::ExportOptions how,
                     fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(id, "id"));
    FINCHKV_ASSIGN_OR_RETURN(const std::string file, named(path, "path"));
    FINCHKV_ASSIGN_OR_RETURN(const EntryInfo info, store->store->find(id_of(*id)));
    FINCHKV_ASSIGN_OR_RETURN(const KvSet set, store->store->get(id_of(*id)));
    return cache_store::export_safetensors(set, info.identity, file, how);
  });
}

Status add_entry(Store& store, const cache_store::CacheId& id, cache_store::ArchiveWriter& archive) {
  FINCHKV_ASSIGN_OR_RETURN(const EntryInfo info, store.find(id));
  FINCHKV_ASSIGN_OR_RETURN(const ArchivedEntry packed, cache_store::pack_entry(store, info));
  return archive.add(packed);
}

// Every entry of the tenant; one that goes meanwhile is left out.
Status add_all(Store& store, cache_store::ArchiveWriter& archive) {
  constexpr std::size_t kPage = 1000;
  std::optional<cache_store::CacheId> after;
  do {
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::EntryPage page, store.list(after, kPage));
    if (!page.unreadable.empty()) return store.verify(page.unreadable.front());
    for (const EntryInfo& entry : page.entries) {
      const Status added = add_entry(store, entry.id, archive);
      if (!added.is_ok() && added.code() != StatusCode::kNotFound) return added;
    }
    after = page.next;
  } while (after);
  return Status::ok();
}

Status take_archived(Store& store, const ArchivedEntry& entry) {
  const Tenant ids = entry.sharing == Sharing::kShared ? Tenant{} : store.tenant();
  FINCHKV_RETURN_IF_ERROR(cache_store::check_packed(entry.packed, ids));
  return cache_store::take_entry(store, entry, cache_store::Provenance::kImported, cache_store::Existing::kVerify)
      .status();
}

}  // namespace
}  // namespace finchkv::capi

using namespace finchkv;        // NOLINT(google-build-using-namespace): the definitions below are extern "C"
using namespace finchkv::capi;  // NOLINT(google-build-using-namespace)

extern "C" {

fkv_code fkv_store_export(fkv_store* store, const fkv_id* id, fkv_str path, fkv_error** error) {
  return export_file(store, id, path, {}, error);
}

fkv_code fkv_store_export_rotated(fkv_store* store, const fkv_id* id, fkv_str path, uint64_t base_position,
                                  fkv_error** error) {
  return export_file(store, id, path, {.rope_base = base_position}, error);
}

fkv_code fkv_store_import(fkv_store* store, fkv_str path, fkv_id* id, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(id, "id"));
    FINCHKV_ASSIGN_OR_RETURN(const std::string file, named(path, "path"));
    FINCHKV_ASSIGN_OR_RETURN(cache_store::ImportedSet imported, cache_store::import_safetensors(file));
    cache_store::PutRequest put;
    put.identity = std::move(imported.identity);
    put.set = std::move(imported.set);
    put.provenance = cache_store::Provenance::kImported;
    FINCHKV_ASSIGN_OR_RETURN(const EntryInfo info, store->store->put(put));
    *id = id_out(info.id);
    return Status::ok();
  });
}

fkv_code fkv_store_export_archive(fkv_store* store, const fkv_id* ids, size_t count, fkv_write write, void* user,
                                  fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    if (write == nullptr) return Status::invalid_argument("write is NULL");
    FINCHKV_ASSIGN_OR_RETURN(const auto named, array_of(ids, count, "ids"));
    cache_store::ArchiveWriter archive([&](std::span<const std::byte> bytes) {
      if (bytes.empty() || write(user, bytes.data(), bytes.size()) != 0) return Status::ok();
      return Status::unavailable("the callback that takes the archive's bytes stopped it");
    });
    if (ids == nullptr) FINCHKV_RETURN_IF_ERROR(add_all(*store->store, archive));
    for (const fkv_id& id : named) FINCHKV_RETURN_IF_ERROR(add_entry(*store->store, id_of(id), archive));
    return archive.finish();
  });
}

fkv_code fkv_store_import_archive(fkv_store* store, fkv_read read, void* user, uint64_t* imported, fkv_error** error) {
  if (imported != nullptr) *imported = 0;
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    if (read == nullptr) return Status::invalid_argument("read is NULL");
    cache_store::ArchiveReader archive([&](std::span<std::byte> into) -> Result<std::size_t> {
      const int64_t got = read(user, into.data(), into.size());
      if (got < 0) return Status::unavailable("the callback that gives the archive's bytes stopped it");
      if (static_cast<std::uint64_t>(got) > into.size()) {
        return Status::invalid_argument(
            fmt::format("the callback that gives the archive's bytes says {} where {} fit", got, into.size()));
      }
      return static_cast<std::size_t>(got);
    });
    for (;;) {
      FINCHKV_ASSIGN_OR_RETURN(const std::optional<ArchivedEntry> entry, archive.next());
      if (!entry) return Status::ok();
      const Status taken = take_archived(*store->store, *entry);
      if (!taken.is_ok()) {
        return {taken.code(), fmt::format("entry {} of the archive: {}", archive.entries(), taken.message())};
      }
      if (imported != nullptr) ++*imported;
    }
  });
}

fkv_code fkv_store_copy(fkv_store* from, const fkv_id* id, fkv_store* to, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(from, "from"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(id, "id"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(to, "to"));
    FINCHKV_ASSIGN_OR_RETURN(const EntryInfo info, from->store->find(id_of(*id)));
    const Tenant &here = from->store->tenant(), &there = to->store->tenant();
    if (info.sharing == Sharing::kPrivate && (here.name != there.name || here.key != there.key)) {
      return Status::invalid_argument(fmt::format(
          "entry {} is of another tenant than the store it is copied to was opened for: its id is made with "
          "its tenant's key",
          info.id.hex().substr(0, 12)));
    }
    FINCHKV_ASSIGN_OR_RETURN(const ArchivedEntry packed, cache_store::pack_entry(*from->store, info));
    return cache_store::take_entry(*to->store, packed, info.provenance, cache_store::Existing::kBelieve).status();
  });
}

}  // extern "C"
