// From a KvSet to a packed entry, and from that to what one put writes.
#include "cache_store/codec.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include <fmt/format.h>
#include <openssl/rand.h>

#include "base/memory_pool.h"
#include "cache_store/block_codec.h"
#include "cache_store/block_compression.h"
#include "cache_store/head_codec.h"
#include "cache_store/key_ring.h"
#include "cache_store/origin_codec.h"
#include "cache_store/sealing.h"

namespace finchkv::cache_store {
namespace {

static_assert(std::endian::native == std::endian::little, "blocks are little-endian and stored as they lie in memory");

constexpr std::size_t kMaxLabel = 256;

DType decoded_dtype(DType storage, DType given) {
  if (!is_quantised(storage)) return storage;
  return given == DType::kF32 ? DType::kF32 : DType::kBF16;
}

Result<Block> encode_checked(std::span<const std::byte> tensor, const KvSet& set, DType storage, BlockKind kind,
                             std::size_t layer) {
  auto block = encode_tensor(tensor, set.dtype, storage, kind, set.shape, set.layers[layer].n_kept);
  const bool keys = kind == BlockKind::kKeys;
  if (!block.is_ok()) {
    return Status(block.status().code(), fmt::format("the {} of layer {} cannot be stored: {}",
                                                     keys ? "keys" : "values", layer, block.status().message()));
  }
  if (!is_quantised(storage) && !all_elements_finite(storage, block->bytes)) {
    return Status::invalid_argument(fmt::format("the {} of layer {} cannot be stored: a number is not finite in {}",
                                                keys ? "keys" : "values", layer, dtype_name(storage)));
  }
  return block;
}

Block owning(std::vector<std::byte> bytes, BlockEncoding encoding) {
  const auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  return {.ordinal = 0, .encoding = encoding, .bytes = *owner, .owner = owner};
}

Block zstd_where_smaller(const Block& block) {
  auto smaller = compress_block(block.bytes);
  return smaller ? owning(*std::move(smaller), BlockEncoding::kZstd) : block;
}

Result<Block> encode_origins_of(const KvSet& set, std::size_t layer) {
  const auto origins = set.layers[layer].origins;
  FINCHKV_ASSIGN_OR_RETURN(auto delta, encode_origins(origins, set.shape.origin_rows, set.doc_tokens));
  if (delta.size() < origins.size_bytes()) return owning(std::move(delta), BlockEncoding::kDelta);
  return Block{.ordinal = 0, .encoding = BlockEncoding::kPlain, .bytes = std::as_bytes(origins), .owner = nullptr};
}

// Each segment is digested as it leaves the cipher, while it is in cache.
Result<Block> seal(const Block& plain, const DataKey& key, const PutContext& context, BlockHasher& hasher) {
  const std::uint64_t bytes = sealed_bytes(plain.bytes.size());
  const std::shared_ptr<std::byte> memory = MemoryPool::shared().take(bytes);
  if (!memory) return Status::resource_exhausted(fmt::format("no memory to seal a block of {} bytes", bytes));
  const std::span<std::byte> out(memory.get(), bytes);
  FINCHKV_ASSIGN_OR_RETURN(BlockSealer sealer, BlockSealer::create(key, context, plain.ordinal, plain.bytes.size()));
  for (std::uint64_t i = 0; i < sealer.count(); ++i) {
    const auto from = sealer.plain_range(i);
    const auto to = sealer.sealed_range(i);
    const auto segment = out.subspan(to.offset, to.bytes);
    FINCHKV_RETURN_IF_ERROR(sealer.seal_next(plain.bytes.subspan(from.offset, from.bytes), segment));
    hasher.update(segment);
  }
  return Block{.ordinal = plain.ordinal, .encoding = plain.encoding, .bytes = out, .owner = memory};
}

// The blocks behind the table as they are stored, and their rows of it.
Status finish_blocks(const PackedEntry& packed, const std::optional<DataKey>& key, const PutContext& context,
                     EncodedEntry& out, std::vector<BlockRef>& refs) {
  BlockHasher hasher;
  for (std::size_t i = 0; i < refs.size(); ++i) {
    Block block = packed.blocks[i];
    if (block.ordinal != refs[i].ordinal) return Status::invalid_argument("its blocks are not in order");
    if (key) {
      FINCHKV_ASSIGN_OR_RETURN(block, seal(block, *key, context, hasher));
    }
    refs[i].encoding = block.encoding;
    refs[i].stored_bytes = block.bytes.size();
    refs[i].digest = key ? hasher.digest() : block_digest(block.bytes);
    out.block_bytes += block.bytes.size();
    out.blocks.push_back(std::move(block));
  }
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

PutId PutId::random() {
  PutId id;
  // OpenSSL's generator reseeds after a fork, so parent and child never draw the same id.
  if (RAND_bytes(id.bytes.data(), static_cast<int>(id.bytes.size())) != 1) std::abort();
  return id;
}

Status check_label(const std::string& label) {
  if (label.size() <= kMaxLabel) return Status::ok();
  return Status::invalid_argument(fmt::format("the label has {} bytes; at most {} are kept", label.size(), kMaxLabel));
}

Status check_put(const PutRequest& request, const Tenant& ids) {
  const CacheIdentity& identity = request.identity;
  FINCHKV_RETURN_IF_ERROR(identity.validate());
  FINCHKV_RETURN_IF_ERROR(request.set.validate());
  if (request.set.doc_tokens != identity.doc_tokens) {
    return Status::invalid_argument(fmt::format("the KvSet was made from {} tokens, its identity says {}",
                                                request.set.doc_tokens, identity.doc_tokens));
  }
  FINCHKV_RETURN_IF_ERROR(check_label(request.label));
  if (request.document_tokens && (request.document_tokens->size() != identity.doc_tokens ||
                                  token_hash(*request.document_tokens, ids) != identity.document_hash)) {
    return Status::invalid_argument("the document's token ids do not hash to the identity's document hash");
  }
  return Status::ok();
}

Result<PackedEntry> pack_entry(const PutRequest& request) {
  PackedEntry out;
  out.memory = request.set.memory;
  EntryHead& head = out.head;
  const KvSet& set = request.set;
  const DType storage = request.identity.storage;
  head.identity = request.identity;
  head.shape = set.shape;
  head.decoded = decoded_dtype(storage, set.dtype);
  for (const KvLayer& layer : set.layers) head.n_kept.push_back(layer.n_kept);
  head.key_form = set.key_form;
  head.next_position = set.next_position;
  head.rope = set.rope;
  head.compress_ms = request.compress_ms;
  head.has_document_tokens = request.document_tokens.has_value();

  auto planned = head.plan_blocks();
  if (!planned.is_ok()) return Status::invalid_argument("the KvSet cannot be stored: " + planned.status().message());
  for (const BlockRef& ref : *planned) {
    Block block;
    switch (ref.kind) {
      case BlockKind::kKeys:
      case BlockKind::kValues: {
        const KvLayer& layer = set.layers[ref.layer];
        const auto tensor = ref.kind == BlockKind::kKeys ? layer.keys : layer.values;
        FINCHKV_ASSIGN_OR_RETURN(block, encode_checked(tensor, set, storage, ref.kind, ref.layer));
        if (request.zstd_tensors) block = zstd_where_smaller(block);
        head.raw_bytes += ref.raw_bytes;
        break;
      }
      case BlockKind::kOrigins: {
        FINCHKV_ASSIGN_OR_RETURN(block, encode_origins_of(set, ref.layer));
        break;
      }
      case BlockKind::kDocumentTokens: {
        const auto tokens = std::as_bytes(std::span(*request.document_tokens));
        block = zstd_where_smaller(owning({tokens.begin(), tokens.end()}, BlockEncoding::kPlain));
        break;
      }
      case BlockKind::kTable: break;
    }
    block.ordinal = ref.ordinal;
    out.blocks.push_back(std::move(block));
  }
  return out;
}

std::uint64_t finished_bytes(const PackedEntry& packed, bool sealed) {
  // A row of the table takes six words, its start and the message's own words some more.
  std::uint64_t bytes = 64 + std::uint64_t{48} * packed.blocks.size();
  for (const Block& block : packed.blocks) {
    bytes += sealed ? sealed_bytes(block.bytes.size()) : block.bytes.size();
  }
  return bytes;
}

Result<EncodedEntry> finish_entry(const PackedEntry& packed, const FinishOptions& options) {
  FINCHKV_RETURN_IF_ERROR(packed.head.identity.validate());
  EncodedEntry out;
  EntryHead& head = out.head;
  head = packed.head;
  head.put_id = options.put_id;
  head.provenance = options.provenance;
  if (head.created_unix_ms == 0) head.created_unix_ms = options.now_unix_ms;
  auto planned = head.plan_blocks();
  if (!planned.is_ok()) return Status::invalid_argument("the KvSet cannot be stored: " + planned.status().message());
  if (packed.blocks.size() != planned->size()) return Status::invalid_argument("the packed entry lacks blocks");

  std::optional<DataKey> key;
  if (options.keys != nullptr) key.emplace(DataKey::random());
  const PutContext context{.tenant = options.tenant, .put_id = options.put_id};
  out.blocks.resize(1);  // the table, filled in last
  FINCHKV_RETURN_IF_ERROR(finish_blocks(packed, key, context, out, *planned));
  const auto table = std::make_shared<const std::vector<std::byte>>(encode_table(*planned));
  out.blocks[0] = {.ordinal = kTableOrdinal, .encoding = BlockEncoding::kPlain, .bytes = *table, .owner = table};
  out.block_bytes += table->size();
  head.table = {};
  head.table.stored_bytes = table->size();
  head.table.raw_bytes = table->size();
  head.table.digest = block_digest(*table);
  head.stored_bytes = out.block_bytes;
  head.own_table = out.block_bytes >= options.own_table_bytes;
  head.sealed = key.has_value();
  // What could not be read back is refused here, not found damaged later.
  if (const Status ok = check_head(head); !ok.is_ok()) {
    return Status::invalid_argument("the KvSet cannot be stored: " + ok.message());
  }
  const std::vector<std::byte> message = encode_head_message(head);
  head.message_digest = sha256(message);
  head.wrapped_key.clear();
  if (key) {
    const auto bound = std::as_bytes(std::span(head.message_digest));
    FINCHKV_ASSIGN_OR_RETURN(const WrappedKey wrapped, options.keys->wrap(*key, context, bound));
    const auto bytes = wrapped.encode();
    head.wrapped_key.assign(bytes.begin(), bytes.end());
  }
  out.head_record = make_head_record(message, head.wrapped_key);
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
      if (!all_elements_finite(storage, out.layers[layer].keys) ||
          !all_elements_finite(storage, out.layers[layer].values)) {
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
  info.sealed = head.sealed;
  info.stored_bytes = head.stored_bytes;
  info.raw_bytes = head.raw_bytes;
  info.last_used_unix_ms = head.created_unix_ms;
  return info;
}

}  // namespace finchkv::cache_store
