#include "cache_store/archive.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "cache_store/entry_reader.h"

namespace finchkv::cache_store {
namespace {

constexpr std::size_t kHeaderBytes = 24;  // magic, version (4), zero (4)
constexpr std::size_t kStartBytes = 8;    // of any record: its kind and what goes with that
constexpr std::byte kEntryRecord{'E'};
constexpr std::byte kEndRecord{'Z'};

// An entry's record: kind, pinned, sharing, zero (1 each), label length (4), head length (4), zero (4), expiry (8);
// label, head, digest. Behind it the table and the blocks, which the head's table root stands for.
constexpr std::size_t kEntryBytes = 24;
// The end: kind (1), zeroes (7), number of entries (8), digest.
constexpr std::size_t kEndBytes = 16;

// What may be claimed before there are bytes to show for it.
constexpr std::uint32_t kMostLabelBytes = 4096;
constexpr std::uint32_t kMostHeadBytes = 1 << 20;
constexpr std::uint64_t kMostTableRowBytes = 256;  // a row takes 48
constexpr std::uint64_t kMostTableStartBytes = 1024;

template <typename T>
void append(std::vector<std::byte>& out, T value) {
  const auto at = out.size();
  out.resize(at + sizeof(T));
  std::memcpy(out.data() + at, &value, sizeof(T));
}

void append_bytes(std::vector<std::byte>& out, std::span<const std::byte> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

template <typename T>
T load(std::span<const std::byte> bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

std::vector<std::byte> header() {
  std::vector<std::byte> out;
  append_bytes(out, as_byte_span(kArchiveMagic));
  append(out, kArchiveVersion);
  append(out, std::uint32_t{0});
  return out;
}

BlockDigest chained(const BlockDigest& previous, std::span<const std::byte> record) {
  std::vector<std::byte> bytes(previous.size());
  std::memcpy(bytes.data(), previous.data(), previous.size());
  append_bytes(bytes, record);
  return block_digest(bytes);
}

}  // namespace

Status ArchiveWriter::write(std::span<const std::byte> bytes) {
  if (bytes.empty()) return Status::ok();
  status_ = sink_(bytes);
  if (status_.is_ok()) bytes_ += bytes.size();
  return status_;
}

Status ArchiveWriter::write_record(std::span<const std::byte> record) {
  chain_ = chained(chain_, record);
  FINCHKV_RETURN_IF_ERROR(write(record));
  return write(std::as_bytes(std::span(chain_)));
}

Status ArchiveWriter::begin() {
  if (finished_) return Status::invalid_argument("the archive has its end already");
  FINCHKV_RETURN_IF_ERROR(status_);
  if (begun_) return Status::ok();
  begun_ = true;
  return write_record(header());
}

Status ArchiveWriter::add(const ArchivedEntry& entry) {
  FINCHKV_RETURN_IF_ERROR(check_label(entry.label));
  FINCHKV_RETURN_IF_ERROR(entry.packed.head.identity.validate());
  FinishOptions options;
  options.provenance = entry.packed.head.provenance;
  FINCHKV_ASSIGN_OR_RETURN(const EncodedEntry encoded, finish_entry(entry.packed, options));
  FINCHKV_RETURN_IF_ERROR(begin());

  std::vector<std::byte> record;
  record.push_back(kEntryRecord);
  append(record, static_cast<std::uint8_t>(entry.pinned));
  append(record, static_cast<std::uint8_t>(entry.sharing));
  append(record, std::uint8_t{0});
  append(record, static_cast<std::uint32_t>(entry.label.size()));
  append(record, static_cast<std::uint32_t>(encoded.head_record.size()));
  append(record, std::uint32_t{0});
  append(record, entry.expires_unix_ms);
  append_bytes(record, as_byte_span(entry.label));
  append_bytes(record, encoded.head_record);
  FINCHKV_RETURN_IF_ERROR(write_record(record));
  for (const Block& block : encoded.blocks) FINCHKV_RETURN_IF_ERROR(write(block.bytes));
  ++entries_;
  return Status::ok();
}

Status ArchiveWriter::finish() {
  FINCHKV_RETURN_IF_ERROR(begin());
  finished_ = true;
  std::vector<std::byte> record(kStartBytes);
  record[0] = kEndRecord;
  append(record, entries_);
  return write_record(record);
}

// An entry's blocks as they come by, in the order of their ordinals.
class ArchiveReader::Blocks final : public BlockSource {
 public:
  explicit Blocks(ArchiveReader& archive) : archive_(archive) {}
  Status read(const BlockRef& ref, std::span<std::byte> into) override {
    FINCHKV_RETURN_IF_ERROR(archive_.read_all(into));
    if (block_digest(into) == ref.digest) return Status::ok();
    return Status::corrupt(fmt::format("{} does not match its digest", describe(ref)));
  }

 private:
  ArchiveReader& archive_;
};

Result<std::size_t> ArchiveReader::read_some(std::span<std::byte> into) {
  FINCHKV_ASSIGN_OR_RETURN(const std::size_t got, source_(into));
  if (got > into.size()) return Status::internal("the archive's source gave more bytes than there was room for");
  bytes_ += got;
  return got;
}

Status ArchiveReader::read_all(std::span<std::byte> into) {
  while (!into.empty()) {
    FINCHKV_ASSIGN_OR_RETURN(const std::size_t got, read_some(into));
    if (got == 0) return Status::corrupt(fmt::format("it is cut off after {} bytes", bytes_));
    into = into.subspan(got);
  }
  return Status::ok();
}

// Reads the digest behind the record.
Status ArchiveReader::check_chain(std::span<const std::byte> record) {
  BlockDigest stored{};
  FINCHKV_RETURN_IF_ERROR(read_all(std::as_writable_bytes(std::span(stored))));
  chain_ = chained(chain_, record);
  return chain_ == stored ? Status::ok() : Status::corrupt("its record does not match its digest");
}

Status ArchiveReader::read_header() {
  std::array<std::byte, kHeaderBytes> bytes{};
  FINCHKV_RETURN_IF_ERROR(read_all(bytes));
  if (std::memcmp(bytes.data(), kArchiveMagic.data(), kArchiveMagic.size()) != 0) {
    return Status::corrupt("it does not start like a finchkv archive");
  }
  const auto version = load<std::uint32_t>(bytes, kArchiveMagic.size());
  FINCHKV_RETURN_IF_ERROR(check_chain(bytes));
  if (version == kArchiveVersion) return Status::ok();
  return Status::unsupported(fmt::format(
      "it has version {}, this finchkv reads version {}: use the finchkv that wrote it", version, kArchiveVersion));
}

Result<std::optional<ArchivedEntry>> ArchiveReader::next() {
  FINCHKV_RETURN_IF_ERROR(status_);
  if (finished_) return std::optional<ArchivedEntry>();
  if (!begun_) {
    begun_ = true;
    if (const Status ok = read_header(); !ok.is_ok()) {
      status_ = Status(ok.code(), fmt::format("the archive cannot be read: {}", ok.message()));
      return status_;
    }
  }
  auto record = read_record();
  if (!record.is_ok()) {
    status_ = Status(record.status().code(), fmt::format("the archive cannot be read at entry {}: {}", entries_ + 1,
                                                         record.status().message()));
    return status_;
  }
  return record;
}

Result<std::optional<ArchivedEntry>> ArchiveReader::read_record() {
  std::array<std::byte, kStartBytes> start{};
  FINCHKV_RETURN_IF_ERROR(read_all(start));
  if (start[0] == kEndRecord) {
    FINCHKV_RETURN_IF_ERROR(read_end(start));
    finished_ = true;
    return std::optional<ArchivedEntry>();
  }
  if (start[0] != kEntryRecord) return Status::corrupt("no entry starts here");
  FINCHKV_ASSIGN_OR_RETURN(ArchivedEntry entry, read_entry(start));
  ++entries_;
  return std::optional(std::move(entry));
}

Status ArchiveReader::read_end(std::span<const std::byte> start) {
  std::array<std::byte, kEndBytes> record{};
  std::copy(start.begin(), start.end(), record.begin());
  FINCHKV_RETURN_IF_ERROR(read_all(std::span(record).subspan(start.size())));
  FINCHKV_RETURN_IF_ERROR(check_chain(record));
  const auto count = load<std::uint64_t>(record, kStartBytes);
  if (count == entries_) return Status::ok();
  return Status::corrupt(fmt::format("its end counts {} entries, there were {}", count, entries_));
}

Result<ArchivedEntry> ArchiveReader::read_entry(std::span<const std::byte> start) {
  std::vector<std::byte> record(kEntryBytes);
  std::copy(start.begin(), start.end(), record.begin());
  FINCHKV_RETURN_IF_ERROR(read_all(std::span(record).subspan(start.size())));
  const auto label_bytes = load<std::uint32_t>(record, 4);
  const auto head_bytes = load<std::uint32_t>(record, 8);
  if (label_bytes > kMostLabelBytes || head_bytes > kMostHeadBytes) {
    return Status::corrupt(fmt::format("no entry has a label of {} and a head of {} bytes", label_bytes, head_bytes));
  }
  record.resize(kEntryBytes + label_bytes + head_bytes);
  FINCHKV_RETURN_IF_ERROR(read_all(std::span(record).subspan(kEntryBytes)));
  FINCHKV_RETURN_IF_ERROR(check_chain(record));

  ArchivedEntry entry;
  const auto pinned = load<std::uint8_t>(record, 1);
  const auto sharing = load<std::uint8_t>(record, 2);
  if (pinned > 1 || sharing > static_cast<std::uint8_t>(Sharing::kShared)) {
    return Status::unsupported("this finchkv does not know how it was kept: use the newer one that wrote the archive");
  }
  entry.pinned = pinned != 0;
  entry.sharing = static_cast<Sharing>(sharing);
  entry.expires_unix_ms = load<std::uint64_t>(record, 16);
  const auto label = std::span(record).subspan(kEntryBytes, label_bytes);
  entry.label.assign(reinterpret_cast<const char*>(label.data()), label.size());
  if (const Status ok = check_label(entry.label); !ok.is_ok()) return Status::corrupt(ok.message());
  FINCHKV_ASSIGN_OR_RETURN(entry.packed, read_packed(std::span(record).subspan(kEntryBytes + label_bytes)));
  return entry;
}

Result<PackedEntry> ArchiveReader::read_packed(std::span<const std::byte> head_record) {
  FINCHKV_ASSIGN_OR_RETURN(EntryHead head, decode_head_unbound(head_record));
  if (head.sealed) return Status::corrupt("its head is a sealed entry's");
  if (head.stored_bytes > limits_.entry_bytes) {
    return Status::resource_exhausted(
        fmt::format("it has {} bytes, the limit is {}: raise it", head.stored_bytes, limits_.entry_bytes));
  }
  if (head.table.stored_bytes > kMostTableStartBytes + kMostTableRowBytes * head.block_count()) {
    return Status::corrupt(fmt::format("no block table has {} bytes", head.table.stored_bytes));
  }
  Blocks blocks(*this);
  FINCHKV_ASSIGN_OR_RETURN(const EntryReader reader, EntryReader::open(std::move(head), "", nullptr, blocks));
  return reader.read_packed(blocks);
}

Status ArchiveReader::expect_end_of_source() {
  FINCHKV_RETURN_IF_ERROR(status_);
  std::array<std::byte, 1> more{};
  FINCHKV_ASSIGN_OR_RETURN(const std::size_t got, source_(more));
  if (got == 0) return Status::ok();
  return Status::corrupt(fmt::format("something stands behind the archive's end, after {} bytes", bytes_));
}

}  // namespace finchkv::cache_store
