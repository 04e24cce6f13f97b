// Everything of cache_store that reads bytes from outside. The first byte of an input says which reader gets the rest:
// 0 a head, 1 an identity, 2 a safetensors file, 3 a block table, 4 to 7 the blocks of an entry stored as f32, bf16,
// q8, q4. Digests are made to fit, since behind them is where a reader could stumble.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "cache_store/block_codec.h"
#include "cache_store/codec.h"
#include "cache_store/head_codec.h"
#include "cache_store/safetensors.h"
#include "tests/cache_store/encoded.h"

namespace {

using namespace finchkv;
using namespace finchkv::cache_store;
using Bytes = std::span<const std::byte>;

void require(bool ok) {
  if (!ok) std::abort();
}

void read_head(Bytes body) {
  const BlockDigest digest = block_digest(body);
  std::vector<std::byte> record(digest.size() + body.size());
  std::memcpy(record.data(), digest.data(), digest.size());
  if (!body.empty()) std::memcpy(record.data() + digest.size(), body.data(), body.size());
  const auto head = decode_head_unbound(record);
  if (!head.is_ok()) return;
  require(check_head(*head).is_ok());
  // What was accepted can be written and read again.
  require(decode_head_unbound(encode_head(*head)).is_ok());
}

void read_identity(Bytes bytes) {
  const auto identity = decode_identity(bytes);
  if (!identity.is_ok()) return;
  const auto again = canonical_encoding(*identity);
  require(again.size() == bytes.size() && std::memcmp(again.data(), bytes.data(), bytes.size()) == 0);
}

void read_file(Bytes bytes) {
  const auto imported = parse_safetensors(bytes, "input");
  if (imported.is_ok()) require(imported->set.validate().is_ok());
}

EntryHead small_head(DType storage) {
  EntryHead head;
  head.identity.kind = EntryKind::kDocument;
  head.identity.doc_tokens = 200;
  head.identity.keep = 67;
  head.identity.reader = "whole";
  head.identity.policy = "full";
  head.identity.storage = storage;
  head.shape = {.n_layers = 1, .n_kv_heads = 1, .head_dim = 3, .origin_rows = 1};
  head.decoded = is_quantised(storage) ? DType::kBF16 : storage;
  head.n_kept = {67};
  head.next_position = 67;
  return head;
}

void read_table_bytes(Bytes bytes) {
  EntryHead head = small_head(DType::kF32);
  head.stored_bytes = bytes.size() + 3 * 67 * 4 * 2 + 67 * 4;
  const auto table = decode_table(head, bytes);
  if (table.is_ok()) require(table->size() == 3);
}

void read_blocks(DType storage, Bytes bytes) {
  EncodedEntry entry;
  EntryHead& head = entry.head;
  head = small_head(storage);
  auto plan = head.plan_blocks();
  require(plan.is_ok());
  entry.blocks.resize(1);
  for (BlockRef& ref : *plan) {
    const std::size_t take = std::min<std::size_t>(ref.stored_bytes, bytes.size());
    entry.blocks.push_back({.ordinal = ref.ordinal, .encoding = {}, .bytes = bytes.first(take), .owner = nullptr});
    bytes = bytes.subspan(take);
    ref.digest = block_digest(entry.blocks.back().bytes);
    head.stored_bytes += ref.stored_bytes;
  }
  const auto table = encode_table(*plan);
  head.table.stored_bytes = table.size();
  head.table.digest = block_digest(table);
  head.stored_bytes += table.size();
  entry.blocks[0].bytes = table;
  const auto set = testing::read_kvset(entry);
  if (set.is_ok()) require(set->validate().is_ok());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Bytes rest = std::as_bytes(std::span(data, size)).subspan(1);
  switch (data[0]) {
    case 0: read_head(rest); break;
    case 1: read_identity(rest); break;
    case 2: read_file(rest); break;
    case 3: read_table_bytes(rest); break;
    case 4: read_blocks(DType::kF32, rest); break;
    case 5: read_blocks(DType::kBF16, rest); break;
    case 6: read_blocks(DType::kQ8, rest); break;
    case 7: read_blocks(DType::kQ4, rest); break;
    default: break;
  }
  return 0;
}
