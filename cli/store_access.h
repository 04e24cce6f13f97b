// --store and --tenant: from options to an open store of one tenant.
//
// Reading verbs open the store beside a process that writes; writing verbs wait for it up to --timeout, then say who
// has it. Only directories are stores so far: the daemon's and Ceph's addresses are refused by name.
#pragma once

#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "base/status.h"
#include "cache_store/store.h"

namespace finchkv::cli {

struct StoreOptions {
  std::string url;
  std::string tenant;           ///< empty: the default tenant
  std::string tenant_key_file;  ///< the tenant's secret: raw bytes, or hex digits
  std::string token_file;       ///< for stores behind a daemon
  double timeout_s = 10;        ///< how long a writing verb waits for another process
};

/// Adds --store, --tenant, --tenant-key-file, --token-file and, for verbs that write, --timeout.
void add_store_options(CLI::App& verb, StoreOptions& options, bool writes);

/// invalid_argument: no --store, an unknown scheme, a token file for a directory. unsupported: addresses of a daemon.
[[nodiscard]] Result<std::string> store_directory(const StoreOptions& options);
[[nodiscard]] Result<cache_store::Tenant> read_tenant(const StoreOptions& options);
[[nodiscard]] std::chrono::milliseconds store_wait(const StoreOptions& options);

struct OpenStore {
  std::shared_ptr<cache_store::StoreHost> host;
  std::unique_ptr<cache_store::Store> store;
};
[[nodiscard]] Result<OpenStore> open_for_reading(const StoreOptions& options);
[[nodiscard]] Result<OpenStore> open_for_reading(const StoreOptions& options, const cache_store::Tenant& tenant);
/// With `create` a missing directory becomes a store.
[[nodiscard]] Result<OpenStore> open_for_writing(const StoreOptions& options, bool create);
/// The same for a tenant that was read before: its key may come from standard input, which gives it once.
[[nodiscard]] Result<OpenStore> open_for_writing(const StoreOptions& options, const cache_store::Tenant& tenant,
                                                 bool create);

/// The entry whose id starts with these digits.
[[nodiscard]] Result<cache_store::EntryInfo> find_entry(cache_store::Store& store, const std::string& id_prefix);

}  // namespace finchkv::cli
