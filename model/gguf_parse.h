// parse_gguf(): reads and checks one GGUF file's header, metadata and tensor list. Internal to gguf.cc.
//
// Takes time and memory linear in the bytes that are there (n log n in the number of names), whatever the file claims.
// The result views the bytes. Split files and lookups are gguf.cc's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/gguf.h"
#include "model/gguf_value.h"

namespace finchkv::model {

struct GgufPart {
  std::vector<GgufValue> values;    ///< in file order
  std::vector<std::size_t> by_key;  ///< indices into values, sorted by key
  std::vector<GgufTensor> tensors;  ///< in file order; names may repeat: the caller checks over all parts
  [[nodiscard]] const GgufValue* find(std::string_view key) const;  ///< nullptr when absent
};

/// `name` is what error sentences call the file.
[[nodiscard]] Result<GgufPart> parse_gguf(std::span<const std::byte> bytes, const std::string& name);

}  // namespace finchkv::model
