// The origins of one layer, as hostile bytes. An input is rows - 1 (1 byte), origins per row (1), the limit (4), then
// the stored bytes. What decodes must ascend below the limit and encode to the same bytes.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "cache_store/origin_codec.h"

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using finchkv::cache_store::decode_origins;
  using finchkv::cache_store::encode_origins;
  constexpr std::size_t kHeader = 6;
  if (size < kHeader) return 0;
  const std::uint32_t rows = data[0] % 8U + 1;
  const std::size_t per_row = data[1];
  std::uint32_t limit = 0;
  std::memcpy(&limit, data + 2, sizeof(limit));
  const auto stored = std::as_bytes(std::span(data, size)).subspan(kHeader);
  std::vector<std::uint32_t> origins(rows * per_row);
  if (!decode_origins(stored, rows, limit, origins).is_ok()) return 0;
  const auto again = encode_origins(origins, rows, limit);
  require(again.is_ok());
  require(std::equal(again->begin(), again->end(), stored.begin(), stored.end()));
  const auto range = finchkv::cache_store::origin_bytes(rows, per_row, limit);
  require(stored.size() >= range.least && stored.size() <= range.most);
  return 0;
}
