// StoreSettings as the JSON record that a store keeps them in.
//
// Internal to cache_store. Pure functions, thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "cache_store/store.h"

namespace finchkv::cache_store {

[[nodiscard]] std::string_view durability_name(Durability durability);  // "sync", "interval", "none"
[[nodiscard]] Result<Durability> parse_durability(std::string_view name);

[[nodiscard]] std::string encode_settings(const StoreSettings& settings);
/// corrupt for bytes that are no settings; unsupported for a setting that this program does not know.
[[nodiscard]] Result<StoreSettings> decode_settings(std::string_view json);

/// What a tenant may store; 0: no quota.
[[nodiscard]] std::uint64_t quota_of(const StoreSettings& settings, const std::string& tenant);

}  // namespace finchkv::cache_store
