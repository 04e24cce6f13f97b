// The JSON header of an exported file: written from a KvSet, and read back from bytes that nobody vouches for.
//
// Internal to cache_store. Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/kvset.h"
#include "base/status.h"
#include "cache_store/identity.h"

namespace finchkv::cache_store {

inline constexpr int kExportFormat = 1;

/// Where one tensor's bytes stand, counted from the end of the header.
struct TensorPlace {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

struct LayerPlaces {
  std::uint32_t n_kept = 0;
  TensorPlace key;
  TensorPlace value;
  TensorPlace origin;
};

struct SafetensorsHeader {
  CacheIdentity identity;
  KvSet form;  ///< everything of the set but its layers
  std::vector<LayerPlaces> layers;
};

/// The length (8 bytes) and the header, padded with spaces so that tensors start at a multiple of 64.
[[nodiscard]] std::string make_safetensors_header(const KvSet& set, const CacheIdentity& identity,
                                                  std::optional<std::uint64_t> rope_base);

/// `json` is the header without its length, `data_bytes` what the file has behind it. corrupt or unsupported.
[[nodiscard]] Result<SafetensorsHeader> parse_safetensors_header(std::string_view json, std::uint64_t data_bytes);

}  // namespace finchkv::cache_store
