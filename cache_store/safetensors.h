// One-file export and import of a KvSet as safetensors (docs/formats.md).
//
// Tensors `layers.{l}.key`, `layers.{l}.value` [kv_heads, n, head_dim] and `layers.{l}.origin` [1 or kv_heads, n]; the
// canonical identity in the metadata, so that the importer recomputes the id. Import trusts nothing in the file.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/kvset.h"
#include "base/status.h"
#include "cache_store/identity.h"

namespace finchkv::cache_store {

struct ExportOptions {
  /// Rotates the keys to positions base, base + 1, ... instead of leaving them before RoPE.
  std::optional<std::uint64_t> rope_base;
};

struct ImportedSet {
  CacheIdentity identity;
  KvSet set;
};

/// Writes to a temporary file beside `path` and renames it: `path` is whole or as it was.
/// invalid_argument: rope_base for keys that are not before RoPE. resource_exhausted: full disk.
[[nodiscard]] Status export_safetensors(const KvSet& set, const CacheIdentity& identity, const std::string& path,
                                        const ExportOptions& options = {});

/// not_found, corrupt with the file and the place, unsupported for what a newer version wrote.
[[nodiscard]] Result<ImportedSet> import_safetensors(const std::string& path);
/// The same from memory, which is copied; `name` stands for the path in messages.
[[nodiscard]] Result<ImportedSet> parse_safetensors(std::span<const std::byte> file, const std::string& name);

}  // namespace finchkv::cache_store
