#include "cache_store/packed_entry.h"

#include <cstring>

#include <fmt/format.h>

#include "base/dtype.h"
#include "cache_store/entry_reader.h"
#include "cache_store/head_codec.h"

namespace finchkv::cache_store {
namespace {

// Blocks in memory that have just been digested.
class FinishedBlocks final : public BlockSource {
 public:
  explicit FinishedBlocks(const std::vector<Block>& blocks) : blocks_(blocks) {}
  Status read(const BlockRef& ref, std::span<std::byte> into) override {
    const std::span<const std::byte> bytes = blocks_[ref.ordinal].bytes;
    if (!bytes.empty()) std::memcpy(into.data(), bytes.data(), bytes.size());
    return Status::ok();
  }

 private:
  const std::vector<Block>& blocks_;
};

Status check_layer(const EntryReader& reader, std::uint32_t l, BlockSource& source) {
  FINCHKV_ASSIGN_OR_RETURN(const EntryReader::Layer layer, reader.read_layer(l, source));
  const DType dtype = reader.head().decoded;
  if (!all_elements_finite(dtype, layer.views.keys) || !all_elements_finite(dtype, layer.views.values)) {
    return Status::corrupt(fmt::format("layer {} has numbers that are not finite", l));
  }
  return Status::ok();
}

}  // namespace

Status check_packed(const PackedEntry& packed, const Tenant& ids) {
  FINCHKV_RETURN_IF_ERROR(check_head(packed.head));
  if (const Status ok = packed.head.identity.validate(); !ok.is_ok()) return Status::corrupt(ok.message());
  if (packed.head.sealed || !packed.head.wrapped_key.empty()) {
    return Status::corrupt("its head is a sealed entry's, its blocks are not sealed");
  }
  FinishOptions options;
  options.provenance = packed.head.provenance;
  auto finished = finish_entry(packed, options);
  if (!finished.is_ok()) return Status::corrupt(finished.status().message());

  FinishedBlocks source(finished->blocks);
  FINCHKV_ASSIGN_OR_RETURN(const EntryReader reader, EntryReader::open(finished->head, ids.name, nullptr, source));
  for (std::uint32_t l = 0; l < packed.head.shape.n_layers; ++l) {
    FINCHKV_RETURN_IF_ERROR(check_layer(reader, l, source));
  }
  if (!packed.head.has_document_tokens) return Status::ok();
  return reader.read_document_tokens(ids, source).status();
}

}  // namespace finchkv::cache_store
