#include "cache_store/sealing.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "cache_store/seal_context.h"

namespace finchkv::cache_store {
namespace {

constexpr std::uint64_t kSealedSegmentBytes = kSegmentBytes + kTagBytes;
// Behind the part that all segments of a block share: number (4), last (1).
constexpr std::size_t kSegmentTail = 5;

// Random nonces of records have the first bit set, those of segments have not: the two never meet under one key.
constexpr std::byte kRecordNonceBit{0x80};

Status check_context(const PutContext& put) {
  if (put.tenant.size() <= kMaxContextText) return Status::ok();
  return Status::invalid_argument(fmt::format("a tenant's name of {} bytes is too long to seal under: at most {}",
                                              put.tenant.size(), kMaxContextText));
}

Status check_block(const PutContext& put, std::uint32_t ordinal, std::uint64_t plain) {
  FINCHKV_RETURN_IF_ERROR(check_context(put));
  if (plain <= kMaxPlainBytes) return Status::ok();
  return Status::invalid_argument(
      fmt::format("block {} of {} bytes is too long to seal: at most {}", ordinal, plain, kMaxPlainBytes));
}

Status wrong_memory(std::uint32_t ordinal, std::string_view what, std::uint64_t got, std::uint64_t expected) {
  return Status::invalid_argument(
      fmt::format("block {}: {} has {} bytes, {} are needed", ordinal, what, got, expected));
}

Status wrong_size(std::uint32_t ordinal, std::uint64_t got, std::uint64_t expected) {
  return Status::corrupt(
      fmt::format("block {} has {} bytes, {} were expected; restore or remove the entry", ordinal, got, expected));
}

Result<std::vector<std::byte>> record_context(const PutContext& put, std::string_view purpose) {
  FINCHKV_RETURN_IF_ERROR(check_context(put));
  if (purpose.size() > kMaxContextText) {
    return Status::invalid_argument(
        fmt::format("a record's purpose has {} bytes: at most {}", purpose.size(), kMaxContextText));
  }
  return std::move(AssociatedData("finchkv-record-1").text(put.tenant).put(put.put_id).text(purpose)).take();
}

}  // namespace

std::optional<std::uint64_t> plain_bytes(std::uint64_t sealed) {
  const std::uint64_t full = sealed / kSealedSegmentBytes;
  const std::uint64_t rest = sealed % kSealedSegmentBytes;
  // A last segment without bytes is how an empty block looks, and only that.
  const bool possible = rest == 0 ? full > 0 : rest > kTagBytes || (rest == kTagBytes && full == 0);
  if (!possible) return std::nullopt;
  const std::uint64_t plain = full * kSegmentBytes + (rest == 0 ? 0 : rest - kTagBytes);
  if (plain > kMaxPlainBytes) return std::nullopt;
  return plain;
}

BlockSegments::BlockSegments(const PutContext& put, std::uint32_t ordinal, std::uint64_t plain)
    : ordinal_(ordinal), plain_(plain) {
  AssociatedData shared("finchkv-segment-1");
  shared.text(put.tenant).put(put.put_id).number(ordinal).number(plain);
  associated_ = std::move(shared).take();
  associated_.resize(associated_.size() + kSegmentTail);
}

BlockSegments::Range BlockSegments::plain_range(std::uint64_t segment) const {
  assert(segment < count());
  const std::uint64_t offset = segment * kSegmentBytes;
  return {offset, std::min(kSegmentBytes, plain_ - offset)};
}

BlockSegments::Range BlockSegments::sealed_range(std::uint64_t segment) const {
  return {segment * kSealedSegmentBytes, plain_range(segment).bytes + kTagBytes};
}

// A nonce needs to be different from all others under its key, not unpredictable. The key serves one put, in which a
// block has one ordinal and a segment one number, and each is sealed once: so the pair is enough, and needs no space.
Nonce BlockSegments::nonce(std::uint64_t segment) const {
  Nonce nonce{};
  store_big_endian(ordinal_, nonce.data() + 4);
  store_big_endian(static_cast<std::uint32_t>(segment), nonce.data() + 8);
  return nonce;
}

std::span<const std::byte> BlockSegments::associated(std::uint64_t segment) {
  std::byte* tail = associated_.data() + associated_.size() - kSegmentTail;
  store_big_endian(static_cast<std::uint32_t>(segment), tail);
  tail[4] = std::byte{segment + 1 == count()};
  return associated_;
}

Result<BlockSealer> BlockSealer::create(const DataKey& key, const PutContext& put, std::uint32_t ordinal,
                                        std::uint64_t plain) {
  FINCHKV_RETURN_IF_ERROR(check_block(put, ordinal, plain));
  FINCHKV_ASSIGN_OR_RETURN(AesGcm cipher, AesGcm::create(key.bytes(), AesGcm::Direction::kSeal));
  return BlockSealer(put, ordinal, plain, std::move(cipher));
}

Status BlockSealer::seal_next(std::span<const std::byte> plain, std::span<std::byte> out) {
  if (next_ >= count()) return Status::invalid_argument(fmt::format("block {} has no more segments", ordinal_));
  const Range range = plain_range(next_);
  if (plain.size() != range.bytes) return wrong_memory(ordinal_, "a segment", plain.size(), range.bytes);
  if (out.size() != range.bytes + kTagBytes) {
    return wrong_memory(ordinal_, "a sealed segment", out.size(), range.bytes + kTagBytes);
  }
  const std::uint64_t segment = next_++;
  return cipher_.seal(nonce(segment), associated(segment), plain, out);
}

Result<BlockOpener> BlockOpener::create(const DataKey& key, const PutContext& put, std::uint32_t ordinal,
                                        std::uint64_t plain) {
  FINCHKV_RETURN_IF_ERROR(check_block(put, ordinal, plain));
  FINCHKV_ASSIGN_OR_RETURN(AesGcm cipher, AesGcm::create(key.bytes(), AesGcm::Direction::kOpen));
  return BlockOpener(put, ordinal, plain, std::move(cipher));
}

Status BlockOpener::open_segment(std::uint64_t segment, std::span<const std::byte> sealed, std::span<std::byte> out) {
  if (segment >= count()) {
    return Status::invalid_argument(fmt::format("block {} has no segment {}", ordinal_, segment));
  }
  const Range range = plain_range(segment);
  if (out.size() != range.bytes) return wrong_memory(ordinal_, "memory for a segment", out.size(), range.bytes);
  if (sealed.size() == range.bytes + kTagBytes && cipher_.open(nonce(segment), associated(segment), sealed, out)) {
    return Status::ok();
  }
  wipe(out);
  return Status::corrupt(
      fmt::format("block {}: segment {} of {} does not authenticate: it was changed, or belongs elsewhere; restore or "
                  "remove the entry",
                  ordinal_, segment, count()));
}

Status seal_block(const DataKey& key, const PutContext& put, std::uint32_t ordinal, std::span<const std::byte> plain,
                  std::span<std::byte> out) {
  FINCHKV_ASSIGN_OR_RETURN(BlockSealer sealer, BlockSealer::create(key, put, ordinal, plain.size()));
  if (out.size() != sealed_bytes(plain.size())) {
    return wrong_memory(ordinal, "memory for the sealed block", out.size(), sealed_bytes(plain.size()));
  }
  for (std::uint64_t i = 0; i < sealer.count(); ++i) {
    const auto from = sealer.plain_range(i);
    const auto to = sealer.sealed_range(i);
    FINCHKV_RETURN_IF_ERROR(sealer.seal_next(plain.subspan(from.offset, from.bytes), out.subspan(to.offset, to.bytes)));
  }
  return Status::ok();
}

Status open_block(const DataKey& key, const PutContext& put, std::uint32_t ordinal, std::span<const std::byte> sealed,
                  std::span<std::byte> out) {
  const Status opened = [&]() -> Status {
    FINCHKV_ASSIGN_OR_RETURN(BlockOpener opener, BlockOpener::create(key, put, ordinal, out.size()));
    if (sealed.size() != sealed_bytes(out.size())) return wrong_size(ordinal, sealed.size(), sealed_bytes(out.size()));
    for (std::uint64_t i = 0; i < opener.count(); ++i) {
      const auto from = opener.sealed_range(i);
      const auto to = opener.plain_range(i);
      FINCHKV_RETURN_IF_ERROR(
          opener.open_segment(i, sealed.subspan(from.offset, from.bytes), out.subspan(to.offset, to.bytes)));
    }
    return Status::ok();
  }();
  if (!opened.is_ok()) wipe(out);
  return opened;
}

Status open_block_in_place(const DataKey& key, const PutContext& put, std::uint32_t ordinal, std::span<std::byte> bytes,
                           std::uint64_t plain) {
  auto opener = InPlaceOpener::create(key, put, ordinal, bytes, plain);
  if (!opener.is_ok()) return opener.status();
  opener->advance(bytes.size());
  return opener->finish();
}

Result<InPlaceOpener> InPlaceOpener::create(const DataKey& key, const PutContext& put, std::uint32_t ordinal,
                                            std::span<std::byte> bytes, std::uint64_t plain) {
  auto opener = BlockOpener::create(key, put, ordinal, plain);
  const Status possible = !opener.is_ok()                       ? opener.status()
                          : bytes.size() != sealed_bytes(plain) ? wrong_size(ordinal, bytes.size(), sealed_bytes(plain))
                                                                : Status::ok();
  if (possible.is_ok()) return InPlaceOpener(*std::move(opener), bytes);
  wipe(bytes);
  return possible;
}

void InPlaceOpener::advance(std::uint64_t there) {
  for (; failed_.is_ok() && next_ < opener_.count(); ++next_) {
    const auto from = opener_.sealed_range(next_);
    if (from.offset + from.bytes > there) return;
    const auto to = opener_.plain_range(next_);
    // The cipher works over its own input or far from it, but not a few bytes beside it: open, then close up.
    const auto over = bytes_.subspan(from.offset, to.bytes);
    failed_ = opener_.open_segment(next_, bytes_.subspan(from.offset, from.bytes), over);
    if (failed_.is_ok() && next_ > 0) std::memmove(bytes_.data() + to.offset, over.data(), over.size());
  }
}

void InPlaceOpener::restart() {
  next_ = 0;
  failed_ = Status::ok();
}

Status InPlaceOpener::finish() {
  if (!failed_.is_ok()) return failed_;
  if (next_ < opener_.count()) return Status::internal("a sealed block was not read to its end before it was used");
  bytes_ = {};
  return Status::ok();
}

Result<std::vector<std::byte>> seal_record(const DataKey& key, const PutContext& put, std::string_view purpose,
                                           std::span<const std::byte> plain) {
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<std::byte> context, record_context(put, purpose));
  if (plain.size() > kMaxRecordBytes) {
    return Status::invalid_argument(
        fmt::format("a record ({}) has {} bytes: at most {}", purpose, plain.size(), kMaxRecordBytes));
  }
  FINCHKV_ASSIGN_OR_RETURN(AesGcm cipher, AesGcm::create(key.bytes(), AesGcm::Direction::kSeal));
  Nonce nonce;
  fill_random(nonce);
  nonce[0] |= kRecordNonceBit;
  std::vector<std::byte> record(plain.size() + kRecordOverhead);
  std::copy(nonce.begin(), nonce.end(), record.begin());
  FINCHKV_RETURN_IF_ERROR(cipher.seal(nonce, context, plain, std::span(record).subspan(kNonceBytes)));
  return record;
}

Result<std::vector<std::byte>> open_record(const DataKey& key, const PutContext& put, std::string_view purpose,
                                           std::span<const std::byte> record) {
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<std::byte> context, record_context(put, purpose));
  if (record.size() >= kRecordOverhead && record.size() <= kMaxRecordBytes + kRecordOverhead &&
      (record[0] & kRecordNonceBit) == kRecordNonceBit) {
    FINCHKV_ASSIGN_OR_RETURN(AesGcm cipher, AesGcm::create(key.bytes(), AesGcm::Direction::kOpen));
    Nonce nonce;
    std::copy_n(record.begin(), kNonceBytes, nonce.begin());
    std::vector<std::byte> plain(record.size() - kRecordOverhead);
    if (cipher.open(nonce, context, record.subspan(kNonceBytes), plain)) return plain;
  }
  return Status::corrupt(fmt::format(
      "the record ({}) of an entry does not authenticate: it was changed, or belongs elsewhere; write it again",
      purpose));
}

}  // namespace finchkv::cache_store
