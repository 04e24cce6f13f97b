// The reader of archives, and the check of what it reads. The first byte of an input says what the rest is:
// 0 a whole archive, 1 an archive's records without their digests, which are put in (a record: its fixed part with its
// kind, label and head; a head: its message), 2 to 6 the blocks of an entry stored as f32, f16, bf16, q8, q4, each
// behind its encoding (1) and length (2).
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "cache_store/archive.h"
#include "cache_store/head_codec.h"
#include "cache_store/packed_entry.h"

namespace {

using namespace finchkv;
using namespace finchkv::cache_store;
using Bytes = std::span<const std::byte>;

void require(bool ok) {
  if (!ok) std::abort();
}

Bytes take(Bytes& from, std::size_t n) {
  const Bytes taken = from.first(std::min(n, from.size()));
  from = from.subspan(taken.size());
  return taken;
}

std::vector<std::byte> written(const ArchivedEntry& entry) {
  std::vector<std::byte> out;
  ArchiveWriter writer([&](Bytes bytes) {
    out.insert(out.end(), bytes.begin(), bytes.end());
    return Status::ok();
  });
  require(writer.add(entry).is_ok());
  require(writer.finish().is_ok());
  return out;
}

// Reads in pieces, and writes what was read again: the same bytes must come. Returns the number of entries.
std::uint64_t read_archive(Bytes bytes) {
  ArchiveReader reader(
      [&](std::span<std::byte> into) -> Result<std::size_t> {
        const Bytes piece = take(bytes, std::min<std::size_t>(into.size(), 100));
        if (!piece.empty()) std::memcpy(into.data(), piece.data(), piece.size());
        return piece.size();
      },
      {.entry_bytes = 1 << 20});
  for (;;) {
    const auto entry = reader.next();
    if (!entry.is_ok() || !*entry) return reader.entries();
    const StatusCode checked = check_packed((*entry)->packed, {}).code();
    const auto once = written(**entry);
    auto rest = Bytes(once);
    ArchiveReader again([&](std::span<std::byte> into) -> Result<std::size_t> {
      const Bytes piece = take(rest, into.size());
      if (!piece.empty()) std::memcpy(into.data(), piece.data(), piece.size());
      return piece.size();
    });
    const auto same = again.next();
    require(same.is_ok() && same->has_value());
    require(written(**same) == once);
    require(check_packed((*same)->packed, {}).code() == checked);
    require(again.next().is_ok() && again.expect_end_of_source().is_ok());
  }
}

void append(std::vector<std::byte>& out, Bytes bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }

// The record and the digest that continues the chain.
void append_record(std::vector<std::byte>& out, BlockDigest& chain, Bytes record) {
  std::vector<std::byte> linked;
  append(linked, std::as_bytes(std::span(chain)));
  append(linked, record);
  chain = block_digest(linked);
  append(out, record);
  append(out, std::as_bytes(std::span(chain)));
}

void read_records(Bytes input) {
  constexpr std::size_t kFixed = 24;
  std::vector<std::byte> archive;
  BlockDigest chain{};
  std::vector<std::byte> header;
  append(header, as_byte_span("finchkv archive\n"));
  append(header, std::as_bytes(std::span(&kArchiveVersion, 1)));
  header.resize(kFixed);
  append_record(archive, chain, header);
  while (!input.empty()) {
    std::vector<std::byte> record;
    append(record, take(input, input[0] == std::byte{'Z'} ? 16 : kFixed));
    if (record.size() == kFixed && record[0] == std::byte{'E'}) {
      std::uint16_t label = 0;
      std::uint16_t head = 0;
      std::memcpy(&label, record.data() + 4, 2);
      std::memcpy(&head, record.data() + 8, 2);
      append(record, take(input, label));
      const Bytes message = take(input, head > sizeof(BlockDigest) ? head - sizeof(BlockDigest) : 0);
      const BlockDigest digest = block_digest(message);
      append(record, std::as_bytes(std::span(digest)));
      append(record, message);
    }
    append_record(archive, chain, record);
  }
  read_archive(archive);
}

PackedEntry small_entry(DType storage) {
  PackedEntry entry;
  EntryHead& head = entry.head;
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
  head.has_document_tokens = true;
  head.raw_bytes = std::uint64_t{2} * 67 * 3 * element_bytes(head.decoded);
  return entry;
}

void read_blocks(DType storage, Bytes bytes) {
  ArchivedEntry entry;
  entry.packed = small_entry(storage);
  for (std::uint32_t ordinal = 1; ordinal <= 4; ++ordinal) {
    const Bytes start = take(bytes, 3);
    if (start.size() < 3) return;
    std::uint16_t size = 0;
    std::memcpy(&size, start.data() + 1, 2);
    entry.packed.blocks.push_back({.ordinal = ordinal,
                                   .encoding = static_cast<BlockEncoding>(start[0]),
                                   .bytes = take(bytes, size),
                                   .owner = nullptr});
  }
  // What passes can be written and read.
  const bool good = check_packed(entry.packed, {}).is_ok();
  const auto archive = written(entry);
  if (good) require(read_archive(archive) == 1);
  if (!good) read_archive(archive);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Bytes rest = std::as_bytes(std::span(data, size)).subspan(1);
  switch (data[0]) {
    case 0: read_archive(rest); break;
    case 1: read_records(rest); break;
    case 2:
    case 3:
    case 4:
    case 5:
    case 6: read_blocks(static_cast<DType>(data[0] - 2), rest); break;
    default: break;
  }
  return 0;
}
