#include "cache_store/codec.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include <fmt/format.h>
#include <openssl/rand.h>

#include "cache_store/block_codec.h"
#include "cache_store/head_codec.h"

namespace finchkv::cache_store {
namespace {

static_assert(std::endian::native == std::endian::little, "blocks are little-endian and stored as they lie in memory");

constexpr std::size_t kMaxLabel = 256;

DType decoded_dtype(DType storage, DType given) {
  if (!is_quantised(storage)) return storage;
  return given == DType::kF32 ? DType::kF32 : DType::kBF16;
}

std::string describe(const BlockRef& ref) {
  switch (ref.kind) {
    case BlockKind::kTable: return "the block table";
    case BlockKind::kKeys: return fmt::format("block {} (keys of layer {})", ref.ordinal, ref.layer);
    case BlockKind::kValues: return fmt::format("block {} (values of layer {})", ref.ordinal, ref.layer);
    case BlockKind::kOrigins: return fmt::format("block {} (origins of layer {})", ref.ordinal, ref.layer);
    case BlockKind::kDocumentTokens: return fmt::format("block {} (the document's tokens)", ref.ordinal);
  }
  return fmt::format("block {}", ref.ordinal);
}

// Finite means: not all exponent bits set.
bool all_finite(DType dtype, std::span<const std::byte> bytes) {
  if (dtype == DType::kF32) {
    for (std::size_t i = 0; i + 4 <= bytes.size(); i += 4) {
      std::uint32_t v = 0;
      std::memcpy(&v, bytes.data() + i, sizeof(v));
      if ((v & 0x7f800000U) == 0x7f800000U) return false;
    }
    return true;
  }
  const std::uint16_t exponent = dtype == DType::kF16 ? 0x7c00U : 0x7f80U;
  for (std::size_t i = 0; i + 2 <= bytes.size(); i += 2) {
    std::uint16_t v = 0;
    std::memcpy(&v, bytes.data() + i, sizeof(v));
    if ((v & exponent) == exponent) return false;
  }
  return true;
}

Result<Block> encode_checked(std::span<const std::byte> tensor, const KvSet& set, DType storage, BlockKind kind,
                             std::size_t layer) {
  auto block = encode_tensor(tensor, set.dtype, storage, kind, set.shape, set.layers[layer].n_kept);
  const bool keys = kind == BlockKind::kKeys;
  if (!block.is_ok()) {
    return Status(block.status().code(), fmt::format("the {} of layer {} cannot be stored: {}",
                                                     keys ? "keys" : "values", layer, block.status().message()));
  }
  if (!is_quantised(storage) && !all_finite(storage, block->bytes)) {
    return Status::invalid_argument(fmt::format("the {} of layer {} cannot be stored: a number is not finite in {}",
                                                keys ? "keys" : "values", layer, dtype_name(storage)));
  }
  return block;
}

// Reads one block and lets `use` have its bytes once size and digest are right.
Status read_verified(const BlockRef& ref, const BlockReader& read,
                     const std::function<Status(std::span<const std::byte>)>& use) {
  return read(ref.ordinal, [&](std::span<const std::byte> bytes) -> Status {
    if (bytes.size() != ref.stored_bytes) {
      return Status::corrupt(
          fmt::format("{} has {} bytes where {} were stored", describe(ref), bytes.size(), ref.stored_bytes));
    }
    if (block_digest(bytes) != ref.digest) {
      return Status::corrupt(fmt::format("{} does not match its digest", describe(ref)));
    }
    return use(bytes);
  });
}

constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

Status read_layer(const EntryHead& head, std::span<const BlockRef> refs, const BlockReader& read, KvSet& set) {
  KvLayer layer;
  layer.n_kept = head.n_kept[set.layers.size()];
  std::shared_ptr<std::byte> memory;
  const std::size_t tensor = refs[0].raw_bytes;
  const std::size_t origins = refs[2].raw_bytes;
  // Memory is taken once the first block's bytes are there and right: a head alone cannot ask for it.
  const auto allocate = [&] {
    if (!memory) memory = allocate_shared_bytes(2 * aligned(tensor) + origins);
    return memory != nullptr;
  };
  const auto decode = [&](const BlockRef& ref, std::size_t offset) {
    return read_verified(ref, read, [&](std::span<const std::byte> bytes) -> Status {
      if (!allocate()) return Status::resource_exhausted(fmt::format("no memory for a layer of {} bytes", 2 * tensor));
      const Status status = decode_tensor(bytes, head.identity.storage, ref.kind, head.shape, layer.n_kept,
                                          head.decoded, {memory.get() + offset, tensor});
      if (status.is_ok()) return status;
      return {status.code(), fmt::format("{}: {}", describe(ref), status.message())};
    });
  };
  FINCHKV_RETURN_IF_ERROR(decode(refs[0], 0));
  FINCHKV_RETURN_IF_ERROR(decode(refs[1], aligned(tensor)));
  std::byte* const origin_memory = memory.get() + 2 * aligned(tensor);
  FINCHKV_RETURN_IF_ERROR(read_verified(refs[2], read, [&](std::span<const std::byte> bytes) -> Status {
    if (!bytes.empty()) std::memcpy(origin_memory, bytes.data(), bytes.size());
    return Status::ok();
  }));
  layer.keys = {memory.get(), tensor};
  layer.values = {memory.get() + aligned(tensor), tensor};
  layer.origins = {reinterpret_cast<const std::uint32_t*>(origin_memory), origins / sizeof(std::uint32_t)};
  set.layers.push_back(layer);
  set.memory.push_back(std::move(memory));
  return Status::ok();
}

}  // namespace

std::string_view provenance_name(Provenance provenance) {
  switch (provenance) {
    case Provenance::kComputed: return "computed";
    case Provenance::kClient: return "client";
    case Provenance::kImported: return "imported";
  }
  return "unknown";
}

PutId PutId::random() {
  PutId id;
  // OpenSSL's generator reseeds after a fork, so parent and child never draw the same id.
  if (RAND_bytes(id.bytes.data(), static_cast<int>(id.bytes.size())) != 1) std::abort();
  return id;
}

Status check_put(const PutRequest& request, const Tenant& tenant) {
  const CacheIdentity& identity = request.identity;
  FINCHKV_RETURN_IF_ERROR(identity.validate());
  FINCHKV_RETURN_IF_ERROR(request.set.validate());
  if (request.set.doc_tokens != identity.doc_tokens) {
    return Status::invalid_argument(fmt::format("the KvSet was made from {} tokens, its identity says {}",
                                                request.set.doc_tokens, identity.doc_tokens));
  }
  if (request.label.size() > kMaxLabel) {
    return Status::invalid_argument(
        fmt::format("the label has {} bytes; at most {} are kept", request.label.size(), kMaxLabel));
  }
  if (request.document_tokens && (request.document_tokens->size() != identity.doc_tokens ||
                                  token_hash(*request.document_tokens, tenant) != identity.document_hash)) {
    return Status::invalid_argument("the document's token ids do not hash to the identity's document hash");
  }
  return Status::ok();
}

Result<EncodedEntry> encode_entry(const PutRequest& request, const PutId& put_id, std::uint64_t created_unix_ms) {
  EncodedEntry out;
  EntryHead& head = out.head;
  const KvSet& set = request.set;
  const DType storage = request.identity.storage;
  head.identity = request.identity;
  head.put_id = put_id;
  head.shape = set.shape;
  head.decoded = decoded_dtype(storage, set.dtype);
  for (const KvLayer& layer : set.layers) head.n_kept.push_back(layer.n_kept);
  head.key_form = set.key_form;
  head.next_position = set.next_position;
  head.rope = set.rope;
  head.provenance = request.provenance;
  head.created_unix_ms = created_unix_ms;
  head.compress_ms = request.compress_ms;
  head.has_document_tokens = request.document_tokens.has_value();

  auto planned = head.plan_blocks();
  if (!planned.is_ok()) return Status::invalid_argument("the KvSet cannot be stored: " + planned.status().message());
  std::vector<BlockRef>& refs = *planned;
  out.blocks.resize(1);  // the table, filled in last
  for (BlockRef& ref : refs) {
    Block block;
    switch (ref.kind) {
      case BlockKind::kKeys: {
        FINCHKV_ASSIGN_OR_RETURN(block, encode_checked(set.layers[ref.layer].keys, set, storage, ref.kind, ref.layer));
        head.raw_bytes += ref.raw_bytes;
        break;
      }
      case BlockKind::kValues: {
        FINCHKV_ASSIGN_OR_RETURN(block,
                                 encode_checked(set.layers[ref.layer].values, set, storage, ref.kind, ref.layer));
        head.raw_bytes += ref.raw_bytes;
        break;
      }
      case BlockKind::kOrigins: block.bytes = std::as_bytes(set.layers[ref.layer].origins); break;
      case BlockKind::kDocumentTokens: block.bytes = std::as_bytes(std::span(*request.document_tokens)); break;
      case BlockKind::kTable: break;
    }
    block.ordinal = ref.ordinal;
    ref.digest = block_digest(block.bytes);
    out.block_bytes += block.bytes.size();
    out.blocks.push_back(std::move(block));
  }
  const auto table = std::make_shared<const std::vector<std::byte>>(encode_table(refs));
  out.blocks[0] = {.ordinal = kTableOrdinal, .bytes = *table, .owner = table};
  out.block_bytes += table->size();
  head.table.stored_bytes = table->size();
  head.table.raw_bytes = table->size();
  head.table.digest = block_digest(*table);
  head.stored_bytes = out.block_bytes;
  // What could not be read back is refused here, not found damaged later.
  if (const Status ok = check_head(head); !ok.is_ok()) {
    return Status::invalid_argument("the KvSet cannot be stored: " + ok.message());
  }
  out.head_record = encode_head(head);
  return out;
}

Result<KvSet> as_stored(const KvSet& set, DType storage) {
  FINCHKV_RETURN_IF_ERROR(set.validate());
  if (!is_quantised(storage)) {
    KvSet out = set;  // the same memory where nothing is converted
    if (set.dtype != storage) {
      FINCHKV_ASSIGN_OR_RETURN(out, convert_kvset(set, storage));
    }
    for (std::size_t layer = 0; layer < out.layers.size(); ++layer) {
      // What put() would refuse is refused here too: an answer must not depend on whether there is a store.
      if (!all_finite(storage, out.layers[layer].keys) || !all_finite(storage, out.layers[layer].values)) {
        return Status::invalid_argument(
            fmt::format("layer {} has numbers that {} cannot hold", layer, dtype_name(storage)));
      }
    }
    return out;
  }
  FINCHKV_ASSIGN_OR_RETURN(KvSet wide, convert_kvset(set, decoded_dtype(storage, set.dtype)));
  std::size_t l = 0;
  for (const KvLayer& layer : set.layers) {
    for (const BlockKind kind : {BlockKind::kKeys, BlockKind::kValues}) {
      const bool keys = kind == BlockKind::kKeys;
      FINCHKV_ASSIGN_OR_RETURN(const Block block,
                               encode_checked(keys ? layer.keys : layer.values, set, storage, kind, l));
      const auto memory = allocate_shared_bytes(wide.layer_bytes(layer.n_kept));
      if (!memory) return Status::resource_exhausted("no memory to round a KvSet");
      const std::span<std::byte> out(memory.get(), wide.layer_bytes(layer.n_kept));
      FINCHKV_RETURN_IF_ERROR(decode_tensor(block.bytes, storage, kind, set.shape, layer.n_kept, wide.dtype, out));
      (keys ? wide.layers[l].keys : wide.layers[l].values) = out;
      wide.memory.push_back(memory);
    }
    ++l;
  }
  return wide;
}

Result<std::vector<BlockRef>> read_table(const EntryHead& head, const BlockReader& read) {
  std::vector<BlockRef> blocks;
  FINCHKV_RETURN_IF_ERROR(read_verified(head.table, read, [&](std::span<const std::byte> bytes) -> Status {
    FINCHKV_ASSIGN_OR_RETURN(blocks, decode_table(head, bytes));
    return Status::ok();
  }));
  return blocks;
}

Result<KvSet> read_kvset(const EntryHead& head, const BlockReader& read) {
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<BlockRef> refs, read_table(head, read));
  KvSet set;
  set.shape = head.shape;
  set.dtype = head.decoded;
  set.key_form = head.key_form;
  set.doc_tokens = head.identity.doc_tokens;
  set.next_position = head.next_position;
  set.rope = head.rope;
  for (std::uint32_t l = 0; l < head.shape.n_layers; ++l) {
    FINCHKV_RETURN_IF_ERROR(read_layer(head, std::span(refs).subspan(std::size_t{3} * l, 3), read, set));
  }
  if (const Status valid = set.validate(); !valid.is_ok()) return Status::corrupt(valid.message());
  return set;
}

Result<std::vector<std::vector<std::uint32_t>>> read_origins(const EntryHead& head, const BlockReader& read) {
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<BlockRef> refs, read_table(head, read));
  std::vector<std::vector<std::uint32_t>> origins;
  for (const BlockRef& ref : refs) {
    if (ref.kind != BlockKind::kOrigins) continue;
    FINCHKV_RETURN_IF_ERROR(read_verified(ref, read, [&](std::span<const std::byte> bytes) -> Status {
      auto& layer = origins.emplace_back(bytes.size() / sizeof(std::uint32_t));
      if (!bytes.empty()) std::memcpy(layer.data(), bytes.data(), layer.size() * sizeof(std::uint32_t));
      for (const std::uint32_t origin : layer) {
        if (origin >= head.identity.doc_tokens) {
          return Status::corrupt(fmt::format("{}: origin {} is past the document", describe(ref), origin));
        }
      }
      return Status::ok();
    }));
  }
  return origins;
}

Result<std::vector<std::int32_t>> read_document_tokens(const EntryHead& head, const Tenant& tenant,
                                                       const BlockReader& read) {
  if (!head.has_document_tokens) return Status::not_found("it was stored without its document's tokens");
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<BlockRef> refs, read_table(head, read));
  std::vector<std::int32_t> ids;
  FINCHKV_RETURN_IF_ERROR(read_verified(refs.back(), read, [&](std::span<const std::byte> bytes) -> Status {
    ids.resize(bytes.size() / sizeof(std::int32_t));
    if (!bytes.empty()) std::memcpy(ids.data(), bytes.data(), bytes.size());
    if (token_hash(ids, tenant) != head.identity.document_hash) {
      return Status::corrupt("the document's tokens do not hash to the identity's document hash");
    }
    return Status::ok();
  }));
  return ids;
}

Status verify_entry(const EntryHead& head, const Tenant& tenant, const BlockReader& read) {
  FINCHKV_RETURN_IF_ERROR(read_kvset(head, read).status());
  if (head.has_document_tokens) FINCHKV_RETURN_IF_ERROR(read_document_tokens(head, tenant, read).status());
  return Status::ok();
}

EntryInfo make_entry_info(const CacheId& id, const EntryHead& head) {
  EntryInfo info;
  info.id = id;
  info.identity = head.identity;
  info.shape = head.shape;
  info.n_kept = head.n_kept;
  info.decoded = head.decoded;
  info.key_form = head.key_form;
  info.next_position = head.next_position;
  info.rope = head.rope;
  info.provenance = head.provenance;
  info.compress_ms = head.compress_ms;
  info.created_unix_ms = head.created_unix_ms;
  info.has_document_tokens = head.has_document_tokens;
  info.stored_bytes = head.stored_bytes;
  info.raw_bytes = head.raw_bytes;
  info.last_used_unix_ms = head.created_unix_ms;
  return info;
}

}  // namespace finchkv::cache_store
