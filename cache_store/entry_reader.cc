#include "cache_store/entry_reader.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/memory_pool.h"
#include "cache_store/block_codec.h"
#include "cache_store/block_compression.h"
#include "cache_store/head_codec.h"
#include "cache_store/key_ring.h"
#include "cache_store/origin_codec.h"
#include "cache_store/sealing.h"

namespace finchkv::cache_store {
namespace {

// Memory for a block, with the room around it that a source may overwrite.
class Place {
 public:
  static Result<Place> take(std::uint64_t bytes) {
    Place place;
    place.memory_ = MemoryPool::shared().take(bytes + 2 * kReadSlack);
    if (!place.memory_) return Status::resource_exhausted(fmt::format("no memory for a block of {} bytes", bytes));
    place.bytes_ = {place.memory_.get() + kReadSlack, bytes};
    return place;
  }
  [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }
  [[nodiscard]] const std::shared_ptr<std::byte>& memory() const { return memory_; }

 private:
  std::shared_ptr<std::byte> memory_;
  std::span<std::byte> bytes_;
};

class OpeningWork final : public BlockWork {
 public:
  explicit OpeningWork(InPlaceOpener& opener) : opener_(opener) {}
  void arrived(std::size_t there) override { opener_.advance(there); }
  void again() override { opener_.restart(); }

 private:
  InPlaceOpener& opener_;
};

constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

Status about(const BlockRef& ref, const Status& status) {
  if (status.is_ok()) return status;
  return {status.code(), fmt::format("{}: {}", describe(ref), status.message())};
}

}  // namespace

Result<EntryReader> EntryReader::open(EntryHead head, std::string tenant, const KeyRing* keys, BlockSource& source) {
  EntryReader reader(std::move(head), std::move(tenant));
  FINCHKV_RETURN_IF_ERROR(reader.read_table(source));
  if (!reader.head_.sealed) return reader;
  if (keys == nullptr) {
    return Status::permission_denied("it is sealed: give the tenant's encryption key");
  }
  FINCHKV_ASSIGN_OR_RETURN(const WrappedKey wrapped, WrappedKey::decode(reader.head_.wrapped_key));
  const PutContext context{.tenant = reader.tenant_, .put_id = reader.head_.put_id};
  FINCHKV_ASSIGN_OR_RETURN(DataKey key,
                           keys->unwrap(wrapped, context, std::as_bytes(std::span(reader.head_.message_digest))));
  reader.key_ = std::make_shared<const DataKey>(std::move(key));
  return reader;
}

Result<EntryReader> EntryReader::open_sealed(EntryHead head, BlockSource& source) {
  EntryReader reader(std::move(head), "");
  FINCHKV_RETURN_IF_ERROR(reader.read_table(source));
  return reader;
}

Status EntryReader::read_table(BlockSource& source) {
  FINCHKV_ASSIGN_OR_RETURN(const Place place, Place::take(head_.table.stored_bytes));
  FINCHKV_RETURN_IF_ERROR(source.read(head_.table, place.bytes()));
  FINCHKV_ASSIGN_OR_RETURN(refs_, decode_table(head_, place.bytes()));
  return Status::ok();
}

KvSet EntryReader::empty_set() const {
  KvSet set;
  set.shape = head_.shape;
  set.dtype = head_.decoded;
  set.key_form = head_.key_form;
  set.doc_tokens = head_.identity.doc_tokens;
  set.next_position = head_.next_position;
  set.rope = head_.rope;
  return set;
}

std::uint64_t EntryReader::payload_bytes(const BlockRef& ref) const {
  return head_.sealed ? plain_bytes(ref.stored_bytes).value_or(0) : ref.stored_bytes;
}

// The block's payload is the first payload_bytes() of `into`, which has the size of what is stored.
Status EntryReader::read_sealed(const BlockRef& ref, BlockSource& source, std::span<std::byte> into) const {
  if (!key_) return Status::permission_denied("it is sealed: give the tenant's encryption key");
  const PutContext context{.tenant = tenant_, .put_id = head_.put_id};
  auto opener = InPlaceOpener::create(*key_, context, ref.ordinal, into, payload_bytes(ref));
  if (!opener.is_ok()) return about(ref, opener.status());
  OpeningWork work(*opener);
  FINCHKV_RETURN_IF_ERROR(source.read_with(ref, into, work));
  return about(ref, opener->finish());
}

Result<Block> EntryReader::read_payload(const BlockRef& ref, BlockSource& source) const {
  FINCHKV_ASSIGN_OR_RETURN(const Place place, Place::take(ref.stored_bytes));
  FINCHKV_RETURN_IF_ERROR(head_.sealed ? read_sealed(ref, source, place.bytes()) : source.read(ref, place.bytes()));
  return Block{.ordinal = ref.ordinal,
               .encoding = ref.encoding,
               .bytes = place.bytes().first(payload_bytes(ref)),
               .owner = place.memory()};
}

std::uint64_t EntryReader::tensor_bytes(const BlockRef& ref, LayerForm form) const {
  if (form == LayerForm::kDecoded) return ref.raw_bytes;
  const DType storage = head_.identity.storage;
  return stored_tensor_bytes(storage, ref.kind, head_.shape, head_.n_kept[ref.layer]).value_or(0);
}

// `out` has room_of(ref), and kReadSlack around it; the tensor is the first tensor_bytes(ref) of it.
Status EntryReader::read_tensor(const BlockRef& ref, BlockSource& source, LayerForm form,
                                std::span<std::byte> out) const {
  const DType storage = head_.identity.storage;
  const std::uint32_t n_kept = head_.n_kept[ref.layer];
  const std::uint64_t bytes = tensor_bytes(ref, form);
  const bool decoding = form == LayerForm::kDecoded && storage != head_.decoded;
  if (is_tensor(ref, form)) {
    FINCHKV_RETURN_IF_ERROR(head_.sealed ? read_sealed(ref, source, out) : source.read(ref, out));
  } else {
    FINCHKV_ASSIGN_OR_RETURN(Block block, read_payload(ref, source));
    if (block.encoding == BlockEncoding::kZstd && !decoding) {
      FINCHKV_RETURN_IF_ERROR(about(ref, decompress_block(block.bytes, out)));
    } else if (block.encoding == BlockEncoding::kZstd) {
      FINCHKV_ASSIGN_OR_RETURN(const Place place, Place::take(tensor_bytes(ref, LayerForm::kStored)));
      FINCHKV_RETURN_IF_ERROR(about(ref, decompress_block(block.bytes, place.bytes())));
      block.bytes = place.bytes();
      block.owner = place.memory();
    }
    if (decoding) {
      return about(ref, decode_tensor(block.bytes, storage, ref.kind, head_.shape, n_kept, head_.decoded, out));
    }
  }
  return about(ref, check_tensor(out.first(bytes), storage, ref.kind, head_.shape, n_kept));
}

Status EntryReader::read_layer_origins(std::uint32_t layer, BlockSource& source, std::span<std::uint32_t> out) const {
  const BlockRef& ref = ref_of(layer, BlockKind::kOrigins);
  FINCHKV_ASSIGN_OR_RETURN(const Block block, read_payload(ref, source));
  const std::uint32_t rows = head_.shape.origin_rows;
  if (block.encoding == BlockEncoding::kDelta) {
    return about(ref, decode_origins(block.bytes, rows, head_.identity.doc_tokens, out));
  }
  if (!out.empty()) std::memcpy(out.data(), block.bytes.data(), out.size_bytes());
  const std::size_t n = out.size() / rows;
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (out[i] >= head_.identity.doc_tokens || (i % n != 0 && out[i] <= out[i - 1])) {
      return Status::corrupt(fmt::format("{}: its positions do not ascend within the document", describe(ref)));
    }
  }
  return Status::ok();
}

Result<EntryReader::Half> EntryReader::read_half(std::uint32_t layer, BlockKind kind, BlockSource& source,
                                                 const StreamOptions& options) const {
  const BlockRef& ref = ref_of(layer, kind);
  const std::size_t origins = kind == BlockKind::kValues ? ref_of(layer, BlockKind::kOrigins).raw_bytes : 0;
  const std::size_t room = room_of(ref, options.form);
  const std::size_t behind = kReadSlack + aligned(room) + kReadSlack;
  HostMemory& from = options.memory ? *options.memory : MemoryPool::shared();
  const std::shared_ptr<std::byte> memory = from.take(behind + origins);
  if (!memory) return Status::resource_exhausted(fmt::format("no memory for a tensor of {} bytes", behind + origins));
  const std::span<std::byte> tensor(memory.get() + kReadSlack, room);
  FINCHKV_RETURN_IF_ERROR(read_tensor(ref, source, options.form, tensor));
  Half half{.tensor = tensor.first(tensor_bytes(ref, options.form)), .origins = {}, .memory = memory};
  if (kind == BlockKind::kValues) {
    const std::span<std::uint32_t> positions(reinterpret_cast<std::uint32_t*>(memory.get() + behind),
                                             origins / sizeof(std::uint32_t));
    FINCHKV_RETURN_IF_ERROR(read_layer_origins(layer, source, positions));
    half.origins = positions;
  }
  return half;
}

EntryReader::Layer EntryReader::join(std::uint32_t layer, const Half& keys, const Half& values) const {
  Layer out;
  out.views.n_kept = head_.n_kept[layer];
  out.views.keys = keys.tensor;
  out.views.values = values.tensor;
  out.views.origins = values.origins;
  out.memory = std::make_shared<const std::array<std::shared_ptr<const void>, 2>>(
      std::array<std::shared_ptr<const void>, 2>{keys.memory, values.memory});
  return out;
}

Result<EntryReader::Layer> EntryReader::read_layer(std::uint32_t layer, BlockSource& source,
                                                   const StreamOptions& options) const {
  FINCHKV_ASSIGN_OR_RETURN(const Half keys, read_half(layer, BlockKind::kKeys, source, options));
  FINCHKV_ASSIGN_OR_RETURN(const Half values, read_half(layer, BlockKind::kValues, source, options));
  return join(layer, keys, values);
}

Result<std::vector<std::vector<std::uint32_t>>> EntryReader::read_origins(BlockSource& source) const {
  std::vector<std::vector<std::uint32_t>> origins(head_.shape.n_layers);
  for (std::uint32_t l = 0; l < head_.shape.n_layers; ++l) {
    origins[l].resize(std::size_t{head_.shape.origin_rows} * head_.n_kept[l]);
    FINCHKV_RETURN_IF_ERROR(read_layer_origins(l, source, origins[l]));
  }
  return origins;
}

Result<std::vector<std::int32_t>> EntryReader::read_document_tokens(const Tenant& ids, BlockSource& source) const {
  if (!head_.has_document_tokens) return Status::not_found("it was stored without its document's tokens");
  const BlockRef& ref = refs_.back();
  FINCHKV_ASSIGN_OR_RETURN(const Block block, read_payload(ref, source));
  std::vector<std::int32_t> tokens(ref.raw_bytes / sizeof(std::int32_t));
  const auto out = std::as_writable_bytes(std::span(tokens));
  if (block.encoding == BlockEncoding::kZstd) {
    FINCHKV_RETURN_IF_ERROR(about(ref, decompress_block(block.bytes, out)));
  } else if (!out.empty()) {
    std::memcpy(out.data(), block.bytes.data(), out.size());
  }
  if (token_hash(tokens, ids) != head_.identity.document_hash) {
    return Status::corrupt("the document's tokens do not hash to the identity's document hash");
  }
  return tokens;
}

Result<PackedEntry> EntryReader::read_packed(BlockSource& source) const {
  PackedEntry packed;
  packed.head = head_;
  packed.head.put_id = {};
  packed.head.table = {};
  packed.head.sealed = false;
  packed.head.wrapped_key.clear();
  packed.head.stored_bytes = 0;
  packed.head.own_table = false;
  for (const BlockRef& ref : refs_) {
    FINCHKV_ASSIGN_OR_RETURN(Block block, read_payload(ref, source));
    packed.blocks.push_back(std::move(block));
  }
  return packed;
}

Status EntryReader::verify(const Tenant& ids, BlockSource& source) const {
  KvSet set = empty_set();
  for (std::uint32_t l = 0; l < head_.shape.n_layers; ++l) {
    FINCHKV_ASSIGN_OR_RETURN(Layer layer, read_layer(l, source));
    set.layers.push_back(layer.views);
    set.memory.push_back(std::move(layer.memory));
  }
  if (const Status valid = set.validate(); !valid.is_ok()) return Status::corrupt(valid.message());
  if (head_.has_document_tokens) FINCHKV_RETURN_IF_ERROR(read_document_tokens(ids, source).status());
  return Status::ok();
}

Status EntryReader::verify_digests(BlockSource& source) const {
  std::uint64_t largest = 0;
  for (const BlockRef& ref : refs_) largest = std::max(largest, ref.stored_bytes);
  FINCHKV_ASSIGN_OR_RETURN(const Place place, Place::take(largest));
  for (const BlockRef& ref : refs_) {
    FINCHKV_RETURN_IF_ERROR(source.read(ref, place.bytes().first(ref.stored_bytes)));
  }
  return Status::ok();
}

}  // namespace finchkv::cache_store
