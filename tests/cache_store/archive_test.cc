#include "cache_store/archive.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>

#include <gtest/gtest.h>

#include "cache_store/head_codec.h"
#include "cache_store/packed_entry.h"
#include "cache_store/wrapped_key.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

using testing::make_put;
using testing::same_bytes;
using testing::SetSpec;
using Bytes = std::vector<std::byte>;

// A request and what was packed of it, which may view the request's memory.
struct Made {
  PutRequest request;
  ArchivedEntry entry;
};

std::unique_ptr<Made> make(PutRequest request) {
  auto made = std::make_unique<Made>();
  made->request = std::move(request);
  auto packed = pack_entry(made->request);
  EXPECT_TRUE(packed.is_ok()) << packed.status().message();
  made->entry.packed = *std::move(packed);
  made->entry.packed.head.created_unix_ms = 1717171717000;
  made->entry.packed.head.provenance = Provenance::kClient;
  made->entry.label = made->request.label;
  made->entry.expires_unix_ms = 99;
  made->entry.pinned = true;
  made->entry.sharing = Sharing::kShared;
  return made;
}

// The smallest entry that has everything.
std::unique_ptr<Made> make_small(std::uint32_t seed) {
  return make(make_put({.layers = 1, .heads = 1, .dim = 2, .kept = 3, .doc_tokens = 4}, seed));
}

ArchiveWriter::Sink append_to(Bytes& out) {
  return [&out](std::span<const std::byte> bytes) {
    out.insert(out.end(), bytes.begin(), bytes.end());
    return Status::ok();
  };
}

ArchiveReader::Source read_from(std::span<const std::byte> bytes, std::size_t most = ~std::size_t{0}) {
  return [bytes, most](std::span<std::byte> into) mutable -> Result<std::size_t> {
    EXPECT_FALSE(into.empty());
    const std::size_t n = std::min({into.size(), bytes.size(), most});
    if (n != 0) std::memcpy(into.data(), bytes.data(), n);
    bytes = bytes.subspan(n);
    return n;
  };
}

Bytes archive_of(const std::vector<std::unique_ptr<Made>>& made) {
  Bytes out;
  ArchiveWriter writer(append_to(out));
  for (const auto& m : made) {
    const Status added = writer.add(m->entry);
    EXPECT_TRUE(added.is_ok()) << added.message();
  }
  EXPECT_TRUE(writer.finish().is_ok());
  EXPECT_EQ(writer.bytes(), out.size());
  EXPECT_EQ(writer.entries(), made.size());
  return out;
}

struct Contents {
  std::vector<ArchivedEntry> entries;
  Status status;
};

Contents read_archive(std::span<const std::byte> bytes, std::size_t most = ~std::size_t{0}) {
  ArchiveReader reader(read_from(bytes, most));
  Contents out;
  for (;;) {
    auto entry = reader.next();
    out.status = entry.status();
    if (!entry.is_ok()) {
      EXPECT_EQ(reader.next().status().message(), out.status.message()) << "a failed reader must stay so";
      return out;
    }
    if (!*entry) return out;
    out.entries.push_back(**std::move(entry));
  }
}

bool same_entry(const ArchivedEntry& a, const ArchivedEntry& b) {
  return a.label == b.label && a.expires_unix_ms == b.expires_unix_ms && a.pinned == b.pinned &&
         a.sharing == b.sharing && encode_head(a.packed.head) == encode_head(b.packed.head) &&
         std::ranges::equal(a.packed.blocks, b.packed.blocks, [](const Block& x, const Block& y) {
           return x.ordinal == y.ordinal && x.encoding == y.encoding && same_bytes(x.bytes, y.bytes);
         });
}

// Entries whose records start with digests that fit, whatever is in them.
class Forger {
 public:
  Forger() {
    bytes_ = archive_of({});
    bytes_.resize(24 + sizeof(BlockDigest));
    std::memcpy(chain_.data(), bytes_.data() + 24, sizeof(BlockDigest));
  }
  void record(std::span<const std::byte> record) {
    Bytes linked(sizeof(BlockDigest));
    std::memcpy(linked.data(), chain_.data(), linked.size());
    linked.insert(linked.end(), record.begin(), record.end());
    chain_ = block_digest(linked);
    raw(record);
    raw(std::as_bytes(std::span(chain_)));
  }
  void entry(const Bytes& head, std::uint8_t sharing = 0) {
    Bytes record(24);
    record[0] = std::byte{'E'};
    record[2] = std::byte{sharing};
    const auto size = static_cast<std::uint32_t>(head.size());
    std::memcpy(record.data() + 8, &size, sizeof(size));
    record.insert(record.end(), head.begin(), head.end());
    this->record(record);
  }
  void raw(std::span<const std::byte> more) { bytes_.insert(bytes_.end(), more.begin(), more.end()); }
  [[nodiscard]] Status status() const { return read_archive(bytes_).status; }

 private:
  Bytes bytes_;
  BlockDigest chain_{};
};

EncodedEntry finished(const Made& made) {
  auto encoded = finish_entry(made.entry.packed, {});
  EXPECT_TRUE(encoded.is_ok());
  return *std::move(encoded);
}

TEST(Archive, EntriesComeBackInEveryDtype) {
  std::vector<std::unique_ptr<Made>> made;
  std::uint32_t seed = 0;
  for (const DType storage : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8, DType::kQ4}) {
    for (const bool per_head : {false, true}) {
      PutRequest request = make_put(
          {.layers = 3, .dim = 66, .kept = 65, .doc_tokens = 99, .origins_per_head = per_head}, ++seed, {}, storage);
      if (per_head) request.document_tokens.reset();
      made.push_back(make(std::move(request)));
    }
  }
  PutRequest empty = make_put({.kept = 0}, ++seed);
  empty.identity.keep = 1;
  made.push_back(make(std::move(empty)));
  const Bytes bytes = archive_of(made);
  for (const std::size_t most : {std::size_t{1}, std::size_t{1000}, bytes.size()}) {
    const Contents read = read_archive(bytes, most);
    ASSERT_TRUE(read.status.is_ok()) << read.status.message();
    ASSERT_EQ(read.entries.size(), made.size());
    for (std::size_t i = 0; i < made.size(); ++i) {
      EXPECT_TRUE(same_entry(read.entries[i], made[i]->entry)) << i;
      EXPECT_EQ(cache_id(read.entries[i].packed.head.identity, {}), cache_id(made[i]->request.identity, {}));
      const Status good = check_packed(read.entries[i].packed, {});
      EXPECT_TRUE(good.is_ok()) << i << ": " << good.message();
    }
  }
}

TEST(Archive, CompressedBlocksStayCompressed) {
  PutRequest request = make_put({.dim = 64, .kept = 64, .doc_tokens = 1000}, 1);
  const auto flat = std::make_shared<std::vector<float>>(std::size_t{2} * 64 * 64, 0.25F);
  for (KvLayer& layer : request.set.layers) layer.keys = layer.values = std::as_bytes(std::span<const float>(*flat));
  request.set.memory.push_back(flat);
  request.zstd_tensors = true;
  std::vector<std::unique_ptr<Made>> made;
  made.push_back(make(std::move(request)));
  ASSERT_EQ(made[0]->entry.packed.blocks[0].encoding, BlockEncoding::kZstd);
  const Bytes bytes = archive_of(made);
  EXPECT_LT(bytes.size(), 10000U);
  const Contents read = read_archive(bytes);
  ASSERT_TRUE(read.status.is_ok()) << read.status.message();
  EXPECT_TRUE(same_entry(read.entries.at(0), made[0]->entry));
  EXPECT_TRUE(check_packed(read.entries[0].packed, {}).is_ok());
}

TEST(Archive, NoEntriesAndManyEntries) {
  EXPECT_EQ(archive_of({}).size(), 72U);
  EXPECT_TRUE(read_archive(archive_of({})).status.is_ok());
  std::vector<std::unique_ptr<Made>> made;
  for (std::uint32_t i = 0; i < 1000; ++i) made.push_back(make_small(i));
  const Contents read = read_archive(archive_of(made));
  ASSERT_TRUE(read.status.is_ok()) << read.status.message();
  ASSERT_EQ(read.entries.size(), 1000U);
  for (std::size_t i = 0; i < 1000; ++i) ASSERT_TRUE(same_entry(read.entries[i], made[i]->entry)) << i;
}

TEST(Archive, EveryCutIsCorrupt) {
  std::vector<std::unique_ptr<Made>> made;
  made.push_back(make_small(1));
  made.push_back(make_small(2));
  const Bytes bytes = archive_of(made);
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    const Contents read = read_archive(std::span(bytes).first(n));
    ASSERT_EQ(read.status.code(), StatusCode::kCorrupt) << n;
    for (std::size_t i = 0; i < read.entries.size(); ++i) {
      ASSERT_TRUE(same_entry(read.entries[i], made[i]->entry)) << n;
    }
  }
}

TEST(Archive, EverySingleBitFlipIsNoticed) {
  std::vector<std::unique_ptr<Made>> made;
  made.push_back(make_small(1));
  made.push_back(make_small(2));
  Bytes bytes = archive_of(made);
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    const auto mask = static_cast<std::byte>(1U << (bit % 8));
    bytes[bit / 8] ^= mask;
    const Contents read = read_archive(bytes);
    ASSERT_FALSE(read.status.is_ok()) << "bit " << bit;
    for (std::size_t i = 0; i < read.entries.size(); ++i) {
      ASSERT_TRUE(same_entry(read.entries[i], made[i]->entry)) << "bit " << bit;
    }
    bytes[bit / 8] ^= mask;
  }
}

TEST(Archive, TheDamagedEntryIsNamed) {
  std::vector<std::unique_ptr<Made>> made;
  made.push_back(make_small(1));
  const std::size_t first = archive_of(made).size() - 32;  // without the end
  made.push_back(make_small(2));
  made.push_back(make_small(3));
  Bytes bytes = archive_of(made);
  bytes[first + 100] ^= std::byte{1};
  const Contents read = read_archive(bytes);
  EXPECT_EQ(read.entries.size(), 1U);
  EXPECT_NE(read.status.message().find("at entry 2:"), std::string::npos) << read.status.message();
}

TEST(Archive, LeftOutRepeatedAndExchangedEntriesAreNoticed) {
  std::vector<std::unique_ptr<Made>> made;
  made.push_back(make_small(1));
  const std::size_t first = archive_of(made).size() - 32;  // where the second entry starts
  made.push_back(make_small(2));
  const Bytes bytes = archive_of(made);
  const auto part = [&](std::size_t from, std::size_t n) { return std::span(bytes).subspan(from, n); };
  const auto refused = [&](std::initializer_list<std::span<const std::byte>> parts, std::size_t good) {
    Bytes joined;
    for (const auto p : parts) joined.insert(joined.end(), p.begin(), p.end());
    const Contents read = read_archive(joined);
    EXPECT_EQ(read.status.code(), StatusCode::kCorrupt);
    EXPECT_EQ(read.entries.size(), good);
  };
  const auto start = part(0, 40);
  const auto one = part(40, first - 40);
  const auto two = part(first, bytes.size() - 32 - first);
  const auto end = part(bytes.size() - 32, 32);
  EXPECT_TRUE(read_archive(bytes).status.is_ok());
  refused({start, two, end}, 0);
  refused({start, one, end}, 1);
  refused({start, two, one, end}, 0);
  refused({start, one, one, two, end}, 1);
  refused({start, end}, 0);
}

TEST(Archive, WhatStandsBehindTheEndIsNotRead) {
  std::vector<std::unique_ptr<Made>> made;
  made.push_back(make_small(1));
  Bytes bytes = archive_of(made);
  const std::size_t size = bytes.size();
  {
    ArchiveReader reader(read_from(bytes));
    while (*reader.next()) {
    }
    EXPECT_TRUE(reader.expect_end_of_source().is_ok());
  }
  bytes.push_back(std::byte{7});
  ArchiveReader reader(read_from(bytes));
  EXPECT_TRUE((*reader.next()).has_value());
  EXPECT_FALSE((*reader.next()).has_value());
  EXPECT_FALSE((*reader.next()).has_value());
  EXPECT_EQ(reader.bytes(), size);
  EXPECT_EQ(reader.expect_end_of_source().code(), StatusCode::kCorrupt);
}

TEST(Archive, ClaimsWithoutBytesAreCorrupt) {
  const auto made = make_small(1);
  const EncodedEntry encoded = finished(*made);
  const auto refused = [](const EntryHead& head, std::span<const std::byte> table, StatusCode code) {
    Forger forged;
    forged.entry(encode_head(head));
    forged.raw(table);
    EXPECT_EQ(forged.status().code(), code) << forged.status().message();
  };
  {
    EntryHead head = encoded.head;
    head.table.stored_bytes = std::uint64_t{1} << 60;
    refused(head, {}, StatusCode::kCorrupt);
    head.stored_bytes = std::uint64_t{1} << 60;
    refused(head, {}, StatusCode::kResourceExhausted);
  }
  auto plan = *encoded.head.plan_blocks();
  for (const std::size_t i : {0U, 2U, 3U}) {  // keys, origins, the document
    auto rows = plan;
    rows[i].stored_bytes = std::uint64_t{1} << 60;
    const auto table = encode_table(rows);
    EntryHead head = encoded.head;
    head.table.stored_bytes = table.size();
    head.table.digest = block_digest(table);
    refused(head, table, StatusCode::kCorrupt);
  }
  for (const std::size_t at : {4U, 8U}) {  // label, head
    Forger forged;
    Bytes record(24, std::byte{0});
    record[0] = std::byte{'E'};
    std::memset(record.data() + at, 0xff, 4);
    forged.record(record);
    EXPECT_EQ(forged.status().code(), StatusCode::kCorrupt);
  }
}

TEST(Archive, ALimitHolds) {
  std::vector<std::unique_ptr<Made>> made;
  made.push_back(make_small(1));
  const Bytes bytes = archive_of(made);
  const std::uint64_t size = finished(*made[0]).block_bytes;
  EXPECT_TRUE(ArchiveReader(read_from(bytes), {.entry_bytes = size}).next().is_ok());
  EXPECT_EQ(ArchiveReader(read_from(bytes), {.entry_bytes = size - 1}).next().status().code(),
            StatusCode::kResourceExhausted);
}

TEST(Archive, SealedHeadsAndUnknownSharingAreRefused) {
  EncodedEntry encoded = finished(*make_small(1));
  {
    Forger forged;
    forged.entry(encoded.head_record, 2);
    EXPECT_EQ(forged.status().code(), StatusCode::kUnsupported);
  }
  Forger forged;
  encoded.head.sealed = true;
  encoded.head.wrapped_key.resize(WrappedKey::kBytes);
  forged.entry(encode_head(encoded.head));
  EXPECT_EQ(forged.status().code(), StatusCode::kCorrupt);
}

TEST(Archive, OtherFilesAndNewerVersions) {
  const std::string text = "safetensors or whatever else people have in files of theirs";
  const Contents other = read_archive(as_byte_span(text));
  EXPECT_EQ(other.status.code(), StatusCode::kCorrupt);
  EXPECT_NE(other.status.message().find("does not start like"), std::string::npos);
  Bytes newer = archive_of({});
  newer[16] = std::byte{2};
  Bytes linked(sizeof(BlockDigest));
  linked.insert(linked.end(), newer.begin(), newer.begin() + 24);
  const BlockDigest digest = block_digest(linked);
  std::memcpy(newer.data() + 24, digest.data(), digest.size());
  EXPECT_EQ(read_archive(newer).status.code(), StatusCode::kUnsupported);
}

// A file that was written when this version was made: whatever comes later must read it.
TEST(Archive, TheFirstVersionIsStillRead) {
  std::ifstream file(FINCHKV_TEST_DATA "/archive/version1.finchkv", std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const Contents read = read_archive(as_byte_span(text));
  ASSERT_TRUE(read.status.is_ok()) << read.status.message();
  ASSERT_EQ(read.entries.size(), 2U);
  const std::array<std::string, 2> ids = {"bf0f9fcfd23737c15a3e5bef26497fe82ce43e9347d1c019d43dddcb15c5a6a7",
                                          "4b1ae1f2098725aa0a4ad83cc2bd7fd9e4c645ae9f4e03e74188f2c9b3264c01"};
  for (std::size_t i = 0; i < 2; ++i) {
    const ArchivedEntry& entry = read.entries[i];
    EXPECT_EQ(cache_id(entry.packed.head.identity, {}).hex(), ids[i]);
    EXPECT_EQ(entry.label, i == 0 ? "label 1" : "label 2");
    EXPECT_EQ(entry.expires_unix_ms, 1800000000000U);
    EXPECT_TRUE(entry.pinned);
    EXPECT_EQ(entry.sharing, Sharing::kPrivate);
    EXPECT_EQ(entry.packed.head.provenance, Provenance::kClient);
    EXPECT_EQ(entry.packed.head.created_unix_ms, 1717171717000U);
    const Status good = check_packed(entry.packed, {});
    EXPECT_TRUE(good.is_ok()) << good.message();
  }
  EXPECT_TRUE(read.entries[0].packed.head.has_document_tokens);
  EXPECT_EQ(read.entries[1].packed.head.identity.storage, DType::kQ4);
}

TEST(Archive, ErrorsOfSinkAndSourceComeThrough) {
  const auto made = make_small(1);
  Bytes out;
  const Bytes whole = [&] {
    ArchiveWriter writer(append_to(out));
    EXPECT_TRUE(writer.add(made->entry).is_ok());
    EXPECT_TRUE(writer.finish().is_ok());
    EXPECT_EQ(writer.add(made->entry).code(), StatusCode::kInvalidArgument);
    return out;
  }();
  std::uint64_t room = 100;
  ArchiveWriter writer([&](std::span<const std::byte> bytes) {
    if (bytes.size() > room) return Status::resource_exhausted("full");
    room -= bytes.size();
    return Status::ok();
  });
  EXPECT_EQ(writer.add(made->entry).message(), "full");
  room = 1 << 20;
  EXPECT_EQ(writer.add(made->entry).message(), "full");
  EXPECT_EQ(writer.finish().message(), "full");

  std::size_t calls = 0;
  auto source = read_from(whole);
  ArchiveReader reader([&](std::span<std::byte> into) -> Result<std::size_t> {
    if (++calls == 5) return Status::unavailable("the socket broke");
    return source(into);
  });
  const auto entry = reader.next();
  EXPECT_EQ(entry.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(entry.status().message().find("the socket broke"), std::string::npos);
}

TEST(Archive, AnEntryThatCannotBeReadBackIsNotWritten) {
  const auto made = make_small(1);
  ArchivedEntry bad = made->entry;
  bad.packed.blocks.pop_back();
  ArchivedEntry nameless = made->entry;
  nameless.packed.head.identity.policy.clear();
  ArchivedEntry talkative = made->entry;
  talkative.label.assign(1000, 'x');
  Bytes out;
  ArchiveWriter writer(append_to(out));
  EXPECT_EQ(writer.add(bad).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(writer.add(nameless).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(writer.add(talkative).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(writer.add(made->entry).is_ok());
  EXPECT_TRUE(writer.finish().is_ok());
  EXPECT_EQ(read_archive(out).entries.size(), 1U);
}

}  // namespace
}  // namespace finchkv::cache_store
