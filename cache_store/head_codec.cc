// Heads and block tables as Cap'n Proto messages.
#include "cache_store/head_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <fmt/format.h>

#include "cache_store/block_codec.h"
#include "cache_store/head.capnp.h"
#include "cache_store/origin_codec.h"
#include "cache_store/sealing.h"
#include "cache_store/wrapped_key.h"

namespace finchkv::cache_store {
namespace {

// Limits on what a message may claim, far above any real model.
constexpr std::uint32_t kMaxLayers = 4096;
constexpr std::uint32_t kMaxHeads = 4096;
constexpr std::uint32_t kMaxHeadDim = 65536;
constexpr std::size_t kMaxHeadBytes = 512 << 10;
constexpr std::size_t kMaxScalingName = 32;
constexpr std::size_t kDigestBytes = sizeof(BlockDigest);
static_assert(WrappedKey::kBytes % sizeof(capnp::word) != 0, "a key behind a message must show in the record's size");

std::uint64_t load_be(const std::uint8_t* at) {
  std::uint64_t v = 0;
  for (int i = 0; i < 8; ++i) v = v << 8 | at[i];
  return v;
}

void store_be(std::uint64_t v, std::uint8_t* at) {
  for (int i = 7; i >= 0; --i, v >>= 8) at[i] = static_cast<std::uint8_t>(v);
}

void write_ref(const BlockRef& ref, schema::BlockRef::Builder out) {
  out.setOrdinal(ref.ordinal);
  out.setKind(static_cast<std::uint16_t>(ref.kind));
  out.setEncoding(static_cast<std::uint16_t>(ref.encoding));
  out.setLayer(ref.layer);
  out.setStoredBytes(ref.stored_bytes);
  out.setRawBytes(ref.raw_bytes);
  out.setDigestHigh(load_be(ref.digest.data()));
  out.setDigestLow(load_be(ref.digest.data() + 8));
}

Result<BlockRef> read_ref(schema::BlockRef::Reader in) {
  if (in.getEncoding() > static_cast<std::uint16_t>(BlockEncoding::kDelta)) {
    return Status::unsupported(
        fmt::format("block {} has encoding {}: a newer finchkv wrote it", in.getOrdinal(), in.getEncoding()));
  }
  BlockRef ref{.ordinal = in.getOrdinal(),
               .kind = static_cast<BlockKind>(in.getKind()),
               .encoding = static_cast<BlockEncoding>(in.getEncoding()),
               .layer = in.getLayer(),
               .stored_bytes = in.getStoredBytes(),
               .raw_bytes = in.getRawBytes(),
               .digest = {}};
  store_be(in.getDigestHigh(), ref.digest.data());
  store_be(in.getDigestLow(), ref.digest.data() + 8);
  return ref;
}

void write_rope(const RopeRecord& rope, schema::Rope::Builder out) {
  out.setScaling(rope.scaling.c_str());
  out.setTheta(rope.theta);
  out.setFactor(rope.factor);
  out.setOriginalContext(rope.original_context);
  out.setRotaryDims(rope.rotary_dims);
  out.setInterleaved(rope.interleaved);
  out.setAttentionFactor(rope.attention_factor);
  auto frequencies = out.initInvFreq(static_cast<unsigned>(rope.inv_freq.size()));
  for (unsigned i = 0; i < frequencies.size(); ++i) frequencies.set(i, rope.inv_freq[i]);
}

Result<RopeRecord> read_rope(schema::Rope::Reader in) {
  RopeRecord rope;
  const auto name = in.getScaling();
  rope.scaling.assign(name.begin(), std::min<std::size_t>(name.size(), kMaxScalingName + 1));
  rope.theta = in.getTheta();
  rope.factor = in.getFactor();
  rope.original_context = in.getOriginalContext();
  rope.rotary_dims = in.getRotaryDims();
  rope.interleaved = in.getInterleaved();
  rope.attention_factor = in.getAttentionFactor();
  const auto frequencies = in.getInvFreq();
  if (frequencies.size() > kMaxHeadDim) return Status::corrupt("the RoPE record has too many frequencies");
  for (const float f : frequencies) rope.inv_freq.push_back(f);
  return rope;
}

Status corrupt(std::string_view what) { return Status::corrupt(fmt::format("the head is damaged: {}", what)); }

Status newer(std::string_view field, std::uint32_t value) {
  return Status::unsupported(
      fmt::format("this finchkv knows no {} {}: use the newer one that wrote the entry", field, value));
}

// capnp wants aligned words and throws; this is the one place where bytes become a message.
template <typename Root, typename Read>
auto parse(std::span<const std::byte> bytes, const Read& read)
    -> decltype(read(std::declval<typename Root::Reader>())) {
  if (bytes.size() < 2 * sizeof(capnp::word) || bytes.size() % sizeof(capnp::word) != 0) {
    return Status::corrupt(fmt::format("{} bytes are no message", bytes.size()));
  }
  try {
    auto words = kj::heapArray<capnp::word>(bytes.size() / sizeof(capnp::word));
    std::memcpy(words.begin(), bytes.data(), bytes.size());
    capnp::ReaderOptions limits;
    limits.traversalLimitInWords = 2 * words.size() + 16;  // everything once, with room for empty structs
    limits.nestingLimit = 8;
    capnp::FlatArrayMessageReader message(words.asPtr(), limits);
    return read(message.getRoot<Root>());
  } catch (const kj::Exception& e) {
    return Status::corrupt(fmt::format("the message does not parse: {}", e.getDescription().cStr()));
  }
}

std::vector<std::byte> flatten(capnp::MessageBuilder& message) {
  const kj::Array<capnp::word> words = capnp::messageToFlatArray(message);
  const auto bytes = words.asBytes();
  std::vector<std::byte> out(bytes.size());
  std::memcpy(out.data(), bytes.begin(), bytes.size());
  return out;
}

// `plan` is the row in its plain encoding; what an encoding may make of it is bounded by it.
bool row_fits(const BlockRef& ref, const BlockRef& plan, bool sealed) {
  const auto payload = sealed ? plain_bytes(ref.stored_bytes) : std::optional(ref.stored_bytes);
  if (!payload || ref.ordinal != plan.ordinal || ref.kind != plan.kind || ref.layer != plan.layer ||
      ref.raw_bytes != plan.raw_bytes) {
    return false;
  }
  switch (ref.encoding) {
    case BlockEncoding::kPlain: return *payload == plan.stored_bytes;
    case BlockEncoding::kZstd: return ref.kind != BlockKind::kOrigins && *payload < plan.stored_bytes;
    case BlockEncoding::kDelta: return ref.kind == BlockKind::kOrigins && *payload < plan.stored_bytes;
  }
  return false;
}

Result<EntryHead> read_head(schema::EntryHead::Reader in) {
  if (in.getHeadVersion() < kOldestHeadVersion || in.getHeadVersion() > kHeadVersion) {
    return Status::unsupported(
        fmt::format("head version {} is not one of {} to {}: use the finchkv that wrote the entry", in.getHeadVersion(),
                    kOldestHeadVersion, kHeadVersion));
  }
  EntryHead head;
  const auto identity = in.getIdentity();
  FINCHKV_ASSIGN_OR_RETURN(head.identity, decode_identity(std::as_bytes(std::span(identity.begin(), identity.size()))));
  store_be(in.getPutIdHigh(), head.put_id.bytes.data());
  store_be(in.getPutIdLow(), head.put_id.bytes.data() + 8);
  head.shape = {.n_layers = in.getNLayers(),
                .n_kv_heads = in.getNKvHeads(),
                .head_dim = in.getHeadDim(),
                .origin_rows = in.getOriginRows()};
  if (in.getStorageDtype() != static_cast<std::uint16_t>(head.identity.storage)) {
    return corrupt("its storage dtype is not its identity's");
  }
  // Values past ours are a newer program's; the digest has shown that they are no damage.
  head.decoded = static_cast<DType>(in.getDecodedDtype());
  if (in.getDecodedDtype() > static_cast<std::uint16_t>(DType::kQ4))
    return newer("decoded dtype", in.getDecodedDtype());
  head.key_form = static_cast<KeyForm>(in.getKeyForm());
  if (key_form_name(head.key_form) == "unknown") return newer("key form", in.getKeyForm());
  head.provenance = static_cast<Provenance>(in.getProvenance());
  if (provenance_name(head.provenance) == "unknown") return newer("provenance", in.getProvenance());
  const auto kept = in.getNKept();
  if (head.shape.n_layers > kMaxLayers || kept.size() != head.shape.n_layers) return corrupt("its number of layers");
  for (const std::uint32_t n : kept) head.n_kept.push_back(n);
  head.next_position = in.getNextPosition();
  FINCHKV_ASSIGN_OR_RETURN(head.rope, read_rope(in.getRope()));
  head.created_unix_ms = in.getCreatedUnixMs();
  head.compress_ms = in.getCompressMs();
  head.stored_bytes = in.getStoredBytes();
  head.raw_bytes = in.getRawBytes();
  head.has_document_tokens = in.getHasDocumentTokens();
  FINCHKV_ASSIGN_OR_RETURN(head.table, read_ref(in.getTable()));
  head.own_table = in.getOwnTable();
  head.sealed = in.getSealed();
  if (in.getDocTokens() != head.identity.doc_tokens) return corrupt("its token count is not its identity's");
  FINCHKV_RETURN_IF_ERROR(check_head(head));
  return head;
}

}  // namespace

Status check_head(const EntryHead& head) {
  const KvShape& shape = head.shape;
  if (shape.n_layers == 0 || shape.n_layers > kMaxLayers || shape.n_kv_heads == 0 || shape.n_kv_heads > kMaxHeads ||
      shape.head_dim == 0 || shape.head_dim > kMaxHeadDim ||
      (shape.origin_rows != 1 && shape.origin_rows != shape.n_kv_heads) || head.n_kept.size() != shape.n_layers) {
    return corrupt("its shape cannot be");
  }
  const DType storage = head.identity.storage;
  const bool decodes =
      is_quantised(storage) ? head.decoded == DType::kF32 || head.decoded == DType::kBF16 : head.decoded == storage;
  if (!decodes) return corrupt("its decoded dtype does not go with its storage dtype");
  if (key_form_name(head.key_form) == "unknown") return corrupt("its key form is unknown");
  if (provenance_name(head.provenance) == "unknown") return corrupt("its provenance is unknown");
  if (head.table.encoding != BlockEncoding::kPlain) return corrupt("its block table is encoded");
  if (head.rope.scaling.size() > kMaxScalingName) return corrupt("its RoPE scaling has no name of ours");
  if (head.rope.rotary_dims > shape.head_dim || head.rope.inv_freq.size() != head.rope.rotary_dims / 2) {
    return corrupt("its RoPE record does not fit its heads");
  }
  const bool finite =
      std::all_of(head.rope.inv_freq.begin(), head.rope.inv_freq.end(), [](float f) { return std::isfinite(f); });
  if (!finite || !std::isfinite(head.rope.attention_factor)) return corrupt("its RoPE record is not finite");
  for (const std::uint32_t n : head.n_kept) {
    // Origins are distinct positions of the document.
    if (n > head.identity.doc_tokens) return corrupt("a layer keeps more entries than the document has tokens");
    if (head.key_form != KeyForm::kRotated && n > head.next_position) {
      return corrupt("a layer keeps more entries than there are positions before the prompt");
    }
  }
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<BlockRef> blocks, head.plan_blocks());
  std::uint64_t raw = 0;
  for (const BlockRef& block : blocks) {
    if (block.kind == BlockKind::kKeys || block.kind == BlockKind::kValues) raw += block.raw_bytes;
  }
  if (raw != head.raw_bytes) return corrupt("its byte count is not its shape's");
  return Status::ok();
}

Result<std::vector<BlockRef>> EntryHead::plan_blocks() const {
  std::vector<BlockRef> blocks;
  blocks.reserve(block_count() - 1);
  const auto add = [&](BlockKind kind, std::uint32_t layer, std::optional<std::uint64_t> stored,
                       std::optional<std::uint64_t> raw) {
    if (!stored || !raw) return false;
    blocks.push_back({.ordinal = static_cast<std::uint32_t>(blocks.size()) + 1,
                      .kind = kind,
                      .encoding = BlockEncoding::kPlain,
                      .layer = layer,
                      .stored_bytes = *stored,
                      .raw_bytes = *raw,
                      .digest = {}});
    return true;
  };
  for (std::uint32_t l = 0; l < shape.n_layers; ++l) {
    const std::uint32_t n = n_kept[l];
    const auto raw = raw_tensor_bytes(decoded, shape, n);
    const auto origins = raw_tensor_bytes(DType::kF32, {1, shape.origin_rows, 1, 1}, n);
    if (!add(BlockKind::kKeys, l, stored_tensor_bytes(identity.storage, BlockKind::kKeys, shape, n), raw) ||
        !add(BlockKind::kValues, l, stored_tensor_bytes(identity.storage, BlockKind::kValues, shape, n), raw) ||
        !add(BlockKind::kOrigins, l, origins, origins)) {
      return Status::corrupt(fmt::format("layer {} would be larger than a block of 4 GiB", l));
    }
  }
  if (has_document_tokens) {
    constexpr std::uint64_t kMostTokens = std::uint64_t{1} << 29;
    if (identity.doc_tokens > kMostTokens) return Status::corrupt("the document's ids would not fit a block");
    add(BlockKind::kDocumentTokens, 0, identity.doc_tokens * 4, identity.doc_tokens * 4);
  }
  return blocks;
}

std::vector<std::byte> encode_head_message(const EntryHead& head) {
  capnp::MallocMessageBuilder message(2048);
  auto out = message.initRoot<schema::EntryHead>();
  out.setHeadVersion(kHeadVersion);
  const auto identity = canonical_encoding(head.identity);
  out.setIdentity({reinterpret_cast<const kj::byte*>(identity.data()), identity.size()});
  out.setPutIdHigh(load_be(head.put_id.bytes.data()));
  out.setPutIdLow(load_be(head.put_id.bytes.data() + 8));
  out.setNLayers(head.shape.n_layers);
  out.setNKvHeads(head.shape.n_kv_heads);
  out.setHeadDim(head.shape.head_dim);
  out.setOriginRows(head.shape.origin_rows);
  out.setStorageDtype(static_cast<std::uint16_t>(head.identity.storage));
  out.setDecodedDtype(static_cast<std::uint16_t>(head.decoded));
  out.setKeyForm(static_cast<std::uint16_t>(head.key_form));
  out.setProvenance(static_cast<std::uint16_t>(head.provenance));
  auto kept = out.initNKept(static_cast<unsigned>(head.n_kept.size()));
  for (unsigned i = 0; i < kept.size(); ++i) kept.set(i, head.n_kept[i]);
  out.setDocTokens(head.identity.doc_tokens);
  out.setNextPosition(head.next_position);
  write_rope(head.rope, out.initRope());
  out.setCreatedUnixMs(head.created_unix_ms);
  out.setCompressMs(head.compress_ms);
  out.setStoredBytes(head.stored_bytes);
  out.setRawBytes(head.raw_bytes);
  out.setHasDocumentTokens(head.has_document_tokens);
  write_ref(head.table, out.initTable());
  out.setOwnTable(head.own_table);
  out.setSealed(head.sealed);

  return flatten(message);
}

std::vector<std::byte> make_head_record(std::span<const std::byte> message, std::span<const std::byte> wrapped_key) {
  std::vector<std::byte> record(kDigestBytes + message.size() + wrapped_key.size());
  std::memcpy(record.data() + kDigestBytes, message.data(), message.size());
  std::ranges::copy(wrapped_key, record.begin() + static_cast<std::ptrdiff_t>(kDigestBytes + message.size()));
  const BlockDigest digest = block_digest(std::span(record).subspan(kDigestBytes));
  std::memcpy(record.data(), digest.data(), kDigestBytes);
  return record;
}

std::vector<std::byte> encode_head(const EntryHead& head) {
  return make_head_record(encode_head_message(head), head.wrapped_key);
}

std::vector<std::byte> replace_wrapped_key(std::span<const std::byte> record, std::span<const std::byte> wrapped_key) {
  return make_head_record(record.subspan(kDigestBytes, record.size() - kDigestBytes - wrapped_key.size()), wrapped_key);
}

bool head_is_as_written(std::span<const std::byte> record) {
  if (record.size() <= kDigestBytes) return false;
  const BlockDigest digest = block_digest(record.subspan(kDigestBytes));
  return std::memcmp(digest.data(), record.data(), kDigestBytes) == 0;
}

Result<EntryHead> decode_head_unbound(std::span<const std::byte> record) {
  if (record.size() <= kDigestBytes || record.size() > kMaxHeadBytes) {
    return corrupt(fmt::format("{} bytes is not a possible size", record.size()));
  }
  if (!head_is_as_written(record)) return corrupt("its digest does not match");
  const auto body = record.subspan(kDigestBytes);
  // A message is whole words, so what is left over is the wrapped key, or damage.
  const bool has_key = body.size() % sizeof(capnp::word) != 0;
  if (has_key && body.size() <= WrappedKey::kBytes) return corrupt("it has no message");
  const auto message = has_key ? body.first(body.size() - WrappedKey::kBytes) : body;
  FINCHKV_ASSIGN_OR_RETURN(
      EntryHead head, parse<schema::EntryHead>(message, [](schema::EntryHead::Reader in) { return read_head(in); }));
  if (head.sealed != has_key) return corrupt("its data key is missing, or there is one for nothing");
  const auto key = body.subspan(message.size());
  head.wrapped_key.assign(key.begin(), key.end());
  head.message_digest = sha256(message);
  return head;
}

Result<EntryHead> decode_head(std::span<const std::byte> record, const CacheId& id, const Tenant& tenant) {
  FINCHKV_ASSIGN_OR_RETURN(EntryHead head, decode_head_unbound(record));
  if (cache_id(head.identity, tenant) != id) return corrupt("it belongs to another id");
  return head;
}

std::vector<std::byte> encode_table(const std::vector<BlockRef>& blocks) {
  capnp::MallocMessageBuilder message(static_cast<unsigned>(blocks.size() * 6 + 16));
  auto out = message.initRoot<schema::BlockTable>().initBlocks(static_cast<unsigned>(blocks.size()));
  for (unsigned i = 0; i < out.size(); ++i) write_ref(blocks[i], out[i]);
  return flatten(message);
}

Result<std::vector<BlockRef>> decode_table(const EntryHead& head, std::span<const std::byte> bytes) {
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<BlockRef> plan, head.plan_blocks());
  return parse<schema::BlockTable>(bytes, [&](schema::BlockTable::Reader in) -> Result<std::vector<BlockRef>> {
    const auto rows = in.getBlocks();
    if (rows.size() != plan.size()) {
      return Status::corrupt(fmt::format("the block table has {} rows, not {}", rows.size(), plan.size()));
    }
    std::vector<BlockRef> blocks;
    blocks.reserve(plan.size());
    std::uint64_t stored = bytes.size();
    for (unsigned i = 0; i < rows.size(); ++i) {
      FINCHKV_ASSIGN_OR_RETURN(BlockRef ref, read_ref(rows[i]));
      if (!row_fits(ref, plan[i], head.sealed))
        return Status::corrupt(fmt::format("row {} of the block table does not fit the head", i));
      stored += ref.stored_bytes;
      blocks.push_back(ref);
    }
    if (stored != head.stored_bytes) return Status::corrupt("the block table's byte count is not the head's");
    return blocks;
  });
}

}  // namespace finchkv::cache_store
