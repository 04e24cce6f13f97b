// An entry encoded and read back in memory, without a store.
#pragma once

#include <cstring>
#include <memory>

#include "cache_store/codec.h"
#include "cache_store/entry_reader.h"

namespace finchkv::cache_store::testing {

/// Blocks of an EncodedEntry as a source; `entry` outlives it.
class EncodedSource : public BlockSource {
 public:
  explicit EncodedSource(const EncodedEntry& entry) : entry_(entry) {}

  Status read(const BlockRef& ref, std::span<std::byte> into) override {
    if (ref.ordinal >= entry_.blocks.size()) return Status::not_found("no such block");
    const auto bytes = entry_.blocks[ref.ordinal].bytes;
    if (bytes.size() != ref.stored_bytes || block_digest(bytes) != ref.digest) return Status::corrupt("another block");
    if (!bytes.empty()) std::memcpy(into.data(), bytes.data(), bytes.size());
    return Status::ok();
  }

 private:
  const EncodedEntry& entry_;
};

inline Result<EncodedEntry> encode_entry(const PutRequest& request, const PutId& put_id, std::uint64_t now_unix_ms) {
  FINCHKV_ASSIGN_OR_RETURN(const PackedEntry packed, pack_entry(request));
  return finish_entry(packed, {.put_id = put_id, .now_unix_ms = now_unix_ms, .provenance = request.provenance});
}

inline Result<KvSet> read_kvset(const EncodedEntry& entry) {
  EncodedSource source(entry);
  FINCHKV_ASSIGN_OR_RETURN(const EntryReader reader, EntryReader::open(entry.head, "", nullptr, source));
  KvSet set = reader.empty_set();
  for (std::uint32_t l = 0; l < entry.head.shape.n_layers; ++l) {
    FINCHKV_ASSIGN_OR_RETURN(EntryReader::Layer layer, reader.read_layer(l, source));
    set.layers.push_back(layer.views);
    set.memory.push_back(std::move(layer.memory));
  }
  FINCHKV_RETURN_IF_ERROR(set.validate());
  return set;
}

}  // namespace finchkv::cache_store::testing
