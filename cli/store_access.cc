#include "cli/store_access.h"

#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "base/digest.h"
#include "cache_store/key_source.h"
#include "cache_store/rocksdb_store.h"
#include "cache_store/store_url.h"
#include "cli/files.h"

namespace finchkv::cli {
namespace {

using cache_store::RocksDbOptions;

Result<OpenStore> open_store(const StoreOptions& options, const Access& access, const RocksDbOptions& how) {
  FINCHKV_ASSIGN_OR_RETURN(const std::string directory, store_directory(options));
  OpenStore open;
  FINCHKV_ASSIGN_OR_RETURN(open.host, cache_store::open_rocksdb_store(directory, how));
  FINCHKV_ASSIGN_OR_RETURN(open.store, open.host->view(access.tenant, access.view));
  return open;
}

Result<cache_store::Tenant> read_tenant(const StoreOptions& options) {
  cache_store::Tenant tenant;
  tenant.name = options.tenant;
  if (options.tenant.empty() != options.tenant_key_file.empty()) {
    return Status::invalid_argument(options.tenant.empty() ? "--tenant-key-file needs --tenant"
                                                           : "--tenant needs --tenant-key-file: tenants with a name "
                                                             "have a secret key");
  }
  if (!tenant.name.empty()) {
    FINCHKV_ASSIGN_OR_RETURN(std::string bytes, read_input(options.tenant_key_file, "--tenant-key-file"));
    std::string digits = bytes;
    while (!digits.empty() && (digits.back() == '\n' || digits.back() == '\r')) digits.pop_back();
    // A raw key that is all hex digits is read as hex: the same file always gives the same key.
    if (const auto raw = from_hex(digits); raw && !raw->empty()) bytes = *raw;
    const auto span = as_byte_span(bytes);
    tenant.key.assign(span.begin(), span.end());
  }
  FINCHKV_RETURN_IF_ERROR(tenant.validate());
  return tenant;
}

}  // namespace

void add_store_options(CLI::App& verb, StoreOptions& options, bool writes) {
  const char* group = "Where it is kept";
  verb.add_option("--store", options.url, "Where entries are kept: a directory")->type_name("URL")->group(group);
  verb.add_option("--tenant", options.tenant, "Whose entries; needs --tenant-key-file (default: the default tenant)")
      ->type_name("NAME")
      ->group(group);
  verb.add_option("--tenant-key-file", options.tenant_key_file,
                  "The tenant's secret key: 16 bytes or more, raw or in hex digits")
      ->type_name("FILE")
      ->group(group);
  auto* file = verb.add_option("--encryption-key-file", options.encryption_key_file,
                               "Entries are encrypted at rest under the keys in this file; see `finchkv key`");
  file->type_name("FILE")->group(group);
  verb.add_option("--encryption-key-command", options.encryption_key_command,
                  "The same with a command that prints the keys")
      ->type_name("CMD")
      ->excludes(file)
      ->group(group);
  verb.add_option("--token-file", options.token_file, "The access token for a store behind a daemon")
      ->type_name("FILE")
      ->group(group);
  if (writes) {
    verb.add_option("--timeout", options.timeout_s, "How long to wait for a process that is writing to the store")
        ->type_name("S")
        ->group(group)
        ->capture_default_str();
  }
}

void add_publisher_option(CLI::App& verb, StoreOptions& options) {
  verb.add_flag("--publisher", options.publisher, "With the right to change entries that are shared with all tenants")
      ->group("Where it is kept");
}

Result<std::string> store_directory(const StoreOptions& options) {
  if (options.url.empty()) return Status::invalid_argument("--store is missing: name the directory of the store");
  auto url = cache_store::parse_store_url(options.url);
  if (!url.is_ok()) return Status(url.status().code(), fmt::format("--store {}", url.status().message()));
  if (url->kind == cache_store::StoreUrl::Kind::kMemory) {
    return Status::invalid_argument("--store memory: would be gone with the command; name a directory");
  }
  if (!options.token_file.empty()) {
    return Status::invalid_argument("--token-file is for a store behind a daemon: leave it out for a directory");
  }
  return std::move(url->directory);
}

Result<std::shared_ptr<const cache_store::KeyRing>> read_keys(const std::string& file, const std::string& command) {
  if (file.empty() && command.empty()) return std::shared_ptr<const cache_store::KeyRing>();
  auto keys = file.empty() ? cache_store::load_key_command(command) : cache_store::load_key_file(file);
  if (!keys.is_ok()) {
    const std::string_view option = file.empty() ? "--encryption-key-command" : "--encryption-key-file";
    return Status(keys.status().code(), fmt::format("{}: {}", option, keys.status().message()));
  }
  return std::shared_ptr<const cache_store::KeyRing>(std::make_shared<cache_store::KeyRing>(*std::move(keys)));
}

Result<Access> read_access(const StoreOptions& options) {
  Access access;
  FINCHKV_ASSIGN_OR_RETURN(access.tenant, read_tenant(options));
  FINCHKV_ASSIGN_OR_RETURN(access.view.keys, read_keys(options.encryption_key_file, options.encryption_key_command));
  access.view.publisher = options.publisher;
  return access;
}

std::chrono::milliseconds store_wait(const StoreOptions& options) {
  constexpr double kLongest = 1e9;  // some thirty years: past any patience, inside any clock
  const double seconds = std::isfinite(options.timeout_s) ? std::min(std::max(options.timeout_s, 0.0), kLongest) : 0;
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
}

Result<OpenStore> open_for_reading(const StoreOptions& options) {
  FINCHKV_RETURN_IF_ERROR(store_directory(options).status());  // before a key is read for nothing
  FINCHKV_ASSIGN_OR_RETURN(const Access access, read_access(options));
  return open_for_reading(options, access);
}

Result<OpenStore> open_for_reading(const StoreOptions& options, const Access& access) {
  RocksDbOptions how;
  how.mode = RocksDbOptions::Mode::kRead;
  return open_store(options, access, how);
}

Result<OpenStore> open_for_writing(const StoreOptions& options, bool create) {
  FINCHKV_RETURN_IF_ERROR(store_directory(options).status());
  FINCHKV_ASSIGN_OR_RETURN(const Access access, read_access(options));
  return open_for_writing(options, access, create);
}

Result<OpenStore> open_for_writing(const StoreOptions& options, const Access& access, bool create) {
  RocksDbOptions how;
  how.wait = store_wait(options);
  how.create_if_missing = create;
  return open_store(options, access, how);
}

Result<cache_store::CacheId> resolve_id(cache_store::Store& store, const std::string& digits) {
  if (auto whole = cache_store::CacheId::from_hex(digits); whole.is_ok()) return whole;
  return store.resolve_prefix(digits);
}

Result<cache_store::EntryInfo> find_entry(cache_store::Store& store, const std::string& digits) {
  FINCHKV_ASSIGN_OR_RETURN(const cache_store::CacheId id, resolve_id(store, digits));
  return store.find(id);
}

}  // namespace finchkv::cli
