// --store, --tenant and the keys: from options to an open store of one tenant.
//
// Reading verbs open the store beside a process that writes; writing verbs wait for it up to --timeout, then say who
// has it. Only directories are stores so far: the daemon's and Ceph's addresses are refused by name.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "base/status.h"
#include "cache_store/store.h"

namespace finchkv::cli {

struct StoreOptions {
  std::string url;
  std::string tenant;                  ///< empty: the default tenant
  std::string tenant_key_file;         ///< the tenant's secret: raw bytes, or hex digits
  std::string encryption_key_file;     ///< what entries are sealed with at rest; one of the two, or neither
  std::string encryption_key_command;  ///< prints the same
  std::string token_file;              ///< for stores behind a daemon
  double timeout_s = 10;               ///< how long a writing verb waits for another process
  bool publisher = false;              ///< with the right to change shared entries
};

/// Adds --store, --tenant, --tenant-key-file, the encryption keys, --token-file and, for verbs that write, --timeout.
void add_store_options(CLI::App& verb, StoreOptions& options, bool writes);
/// --publisher, for verbs that may meet shared entries.
void add_publisher_option(CLI::App& verb, StoreOptions& options);

/// Who asks, and with which rights and keys.
struct Access {
  cache_store::Tenant tenant;
  cache_store::ViewOptions view;
};

/// invalid_argument: no --store, an unknown scheme, a token file for a directory. unsupported: addresses of a daemon.
[[nodiscard]] Result<std::string> store_directory(const StoreOptions& options);
/// Reads the key files, runs the key command: once for each run of the command, since standard input and whoever
/// answers the key command may give them once.
[[nodiscard]] Result<Access> read_access(const StoreOptions& options);
/// The encryption keys alone; null where none are named.
[[nodiscard]] Result<std::shared_ptr<const cache_store::KeyRing>> read_keys(const std::string& file,
                                                                            const std::string& command);
[[nodiscard]] std::chrono::milliseconds store_wait(const StoreOptions& options);

struct OpenStore {
  std::shared_ptr<cache_store::StoreHost> host;
  std::unique_ptr<cache_store::Store> store;
};
[[nodiscard]] Result<OpenStore> open_for_reading(const StoreOptions& options);
[[nodiscard]] Result<OpenStore> open_for_reading(const StoreOptions& options, const Access& access);
/// With `create` a missing directory becomes a store.
[[nodiscard]] Result<OpenStore> open_for_writing(const StoreOptions& options, bool create);
[[nodiscard]] Result<OpenStore> open_for_writing(const StoreOptions& options, const Access& access, bool create);

/// The id that these digits begin, of the tenant's own entries and the shared ones.
[[nodiscard]] Result<cache_store::CacheId> resolve_id(cache_store::Store& store, const std::string& digits);
/// The entry of that id.
[[nodiscard]] Result<cache_store::EntryInfo> find_entry(cache_store::Store& store, const std::string& digits);

}  // namespace finchkv::cli
