// Running a store: its settings and sums, garbage, scrubbing, backups, and the keys that it is sealed with.
#include <utility>

#include <nlohmann/json.hpp>

#include "cache_store/key_source.h"
#include "cache_store/rocksdb_backup.h"
#include "cache_store/settings.h"
#include "capi/guard.h"
#include "capi/handles.h"

namespace finchkv::capi {
namespace {

using cache_store::StoreSettings;
using Json = nlohmann::json;

// What the caller names takes the place of what is set; null means the default.
Result<StoreSettings> changed(const StoreSettings& now, std::string_view wanted) {
  Json changes = Json::parse(wanted, nullptr, /*allow_exceptions=*/false);
  if (!changes.is_object()) return Status::invalid_argument("settings are a JSON object, as fkv_store_settings gives");
  Json all = Json::parse(cache_store::encode_settings(now));
  for (const auto& [name, value] : changes.items()) {
    if (!all.contains(name)) return Status::invalid_argument(fmt::format("there is no setting \"{}\"", name));
    if (all[name].is_number() && !value.is_null() && !value.is_number_unsigned()) {
      return Status::invalid_argument(fmt::format("the setting {} is a number from 0 on", name));
    }
  }
  if (changes.contains("pinned_percent") && changes["pinned_percent"].is_number() && changes["pinned_percent"] > 100) {
    return Status::invalid_argument("pinned_percent is 0 to 100");  // before it is cut to 32 bits
  }
  all.merge_patch(changes);
  auto settings = cache_store::decode_settings(all.dump());
  if (!settings.is_ok()) return Status::invalid_argument(settings.status().message());
  return settings;
}

nlohmann::ordered_json group_json(const cache_store::GroupStats& g) {
  return {{"entries", g.entries}, {"stored_bytes", g.stored_bytes}, {"raw_bytes", g.raw_bytes}, {"hits", g.hits}};
}

nlohmann::ordered_json report_json(const cache_store::StoreReport& r) {
  nlohmann::ordered_json tenants = Json::object(), models = Json::object();
  for (const auto& [name, group] : r.by_tenant) tenants[name] = group_json(group);
  for (const auto& [name, group] : r.by_model) models[name] = group_json(group);
  return {{"entries", r.total.entries},
          {"stored_bytes", r.total.stored_bytes},
          {"raw_bytes", r.total.raw_bytes},
          {"hits", r.total.hits},
          {"unreadable", r.total.unreadable},
          {"disk_bytes", r.total.disk_bytes},
          {"lookups", r.lookups},
          {"misses", r.misses},
          {"evictions", r.evictions},
          {"put_bytes", r.put_bytes},
          {"written_bytes", r.written_bytes},
          {"reserved_bytes", r.reserved_bytes},
          {"held_bytes", r.held_bytes},
          {"pinned_bytes", r.pinned_bytes},
          {"by_tenant", tenants},
          {"by_model", models}};
}

fkv_backup_info backup_out(const cache_store::BackupRecord& record) {
  fkv_backup_info out{};
  out.backup = record.id;
  out.files = record.files;
  out.created_unix_ms = record.created_unix_ms;
  out.bytes = record.bytes;
  return out;
}

std::optional<std::uint32_t> backup_of(std::uint32_t number) {
  return number == 0 ? std::nullopt : std::optional(number);
}

// A text for the caller.
template <typename Make>
fkv_code give_text(fkv_store* store, fkv_text** out, fkv_error** error, const Make& make) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(out, "json"));
    *out = nullptr;
    FINCHKV_ASSIGN_OR_RETURN(std::string text, make());
    *out = new fkv_text{std::move(text)};
    return Status::ok();
  });
}

}  // namespace
}  // namespace finchkv::capi

using namespace finchkv;        // NOLINT(google-build-using-namespace): the definitions below are extern "C"
using namespace finchkv::capi;  // NOLINT(google-build-using-namespace)

extern "C" {

fkv_code fkv_store_settings(fkv_store* store, fkv_text** json, fkv_error** error) {
  return give_text(store, json, error,
                   [&]() -> Result<std::string> { return cache_store::encode_settings(store->host->settings()); });
}

fkv_code fkv_store_set_settings(fkv_store* store, fkv_str json, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    FINCHKV_ASSIGN_OR_RETURN(const std::string_view text, view_of(json, "json"));
    FINCHKV_ASSIGN_OR_RETURN(const StoreSettings settings, changed(store->host->settings(), text));
    return store->host->set_settings(settings);
  });
}

fkv_code fkv_store_report(fkv_store* store, fkv_text** json, fkv_error** error) {
  return give_text(store, json, error, [&]() -> Result<std::string> {
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::StoreReport report, store->host->report());
    return report_json(report).dump();
  });
}

fkv_code fkv_store_gc(fkv_store* store, fkv_gc_info* info, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::GcReport report, store->host->gc());
    if (info == nullptr) return Status::ok();
    fkv_gc_info out{};
    out.expired = report.expired;
    out.abandoned_puts = report.puts;
    out.blocks = report.blocks;
    out.bytes = report.bytes;
    return write_struct(out, info, "fkv_gc_info");
  });
}

fkv_code fkv_store_scrub(fkv_store* store, uint64_t bytes_per_s, const volatile int32_t* cancel, fkv_scrub_info* info,
                         fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    cache_store::ScrubOptions how;
    how.bytes_per_s = bytes_per_s;
    how.stop = [cancel] { return is_set(cancel); };
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::ScrubReport report, store->host->scrub(how));
    if (info == nullptr) return Status::ok();
    fkv_scrub_info out{};
    out.entries = report.entries;
    out.bytes = report.bytes;
    out.quarantined = report.quarantined.size();
    return write_struct(out, info, "fkv_scrub_info");
  });
}

fkv_code fkv_store_backup(fkv_store* store, fkv_str directory, uint32_t keep, fkv_backup_info* info,
                          fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    FINCHKV_ASSIGN_OR_RETURN(const std::string where, named(directory, "directory"));
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::BackupReport report, store->host->back_up(where, keep));
    return info == nullptr ? Status::ok() : write_struct(backup_out(report.backup), info, "fkv_backup_info");
  });
}

fkv_code fkv_backup_list(fkv_str directory, fkv_text** json, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(json, "json"));
    *json = nullptr;
    FINCHKV_ASSIGN_OR_RETURN(const std::string where, named(directory, "directory"));
    FINCHKV_ASSIGN_OR_RETURN(const auto backups, cache_store::list_backups(where));
    nlohmann::ordered_json out = Json::array();
    for (const cache_store::BackupRecord& r : backups) {
      out.push_back({{"id", r.id},
                     {"created_unix_ms", r.created_unix_ms},
                     {"bytes", r.bytes},
                     {"files", r.files},
                     {"damaged", r.damaged}});
    }
    *json = new fkv_text{out.dump()};
    return Status::ok();
  });
}

fkv_code fkv_backup_verify(fkv_str directory, uint32_t backup, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_ASSIGN_OR_RETURN(const std::string where, named(directory, "directory"));
    return cache_store::verify_backup(where, backup_of(backup));
  });
}

fkv_code fkv_backup_restore(fkv_str directory, uint32_t backup, fkv_str store_directory, fkv_backup_info* info,
                            fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_ASSIGN_OR_RETURN(const std::string from, named(directory, "directory"));
    FINCHKV_ASSIGN_OR_RETURN(const std::string to, named(store_directory, "store_directory"));
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::BackupRecord record,
                             cache_store::restore(from, to, {.id = backup_of(backup)}));
    return info == nullptr ? Status::ok() : write_struct(backup_out(record), info, "fkv_backup_info");
  });
}

fkv_code fkv_key_file_create(fkv_str path, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_ASSIGN_OR_RETURN(const std::string file, named(path, "path"));
    return cache_store::generate_key_file(file).status();
  });
}

fkv_code fkv_key_file_rotate(fkv_str path, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_ASSIGN_OR_RETURN(const std::string file, named(path, "path"));
    return cache_store::rotate_key_file(file).status();
  });
}

fkv_code fkv_store_rewrap_keys(fkv_store* store, uint64_t* changed, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(store, "store"));
    FINCHKV_ASSIGN_OR_RETURN(const std::uint64_t count, store->store->rewrap_keys());
    if (changed != nullptr) *changed = count;
    return Status::ok();
  });
}

}  // extern "C"
