#include "cache_store/origin_codec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstring>
#include <new>

#include <fmt/format.h>

namespace finchkv::cache_store {
namespace {

constexpr std::size_t kBlock = 64;
constexpr unsigned kMaxWidth = 32;
constexpr std::size_t kMaxPacked = kBlock * kMaxWidth / 8;
constexpr std::size_t kSlack = 8;  // gaps are read and written through 64-bit words

constexpr std::uint64_t packed_bytes(std::uint64_t count, unsigned width) { return (count * width + 7) / 8; }

std::uint64_t row_bytes(std::uint64_t per_row, unsigned width) {
  const std::uint64_t tail = per_row % kBlock;
  const std::uint64_t whole = per_row / kBlock * (1 + packed_bytes(kBlock, width));
  return whole + (tail == 0 ? 0 : 1 + packed_bytes(tail, width));
}

struct Packed {
  std::array<std::byte, 1 + kMaxPacked + kSlack> bytes;
  std::size_t size = 0;
};

void pack(std::span<const std::uint32_t> gaps, unsigned width, Packed& out) {
  out.bytes[0] = static_cast<std::byte>(width);
  std::byte* at = out.bytes.data() + 1;
  std::uint64_t word = 0;
  unsigned filled = 0;
  for (const std::uint32_t gap : gaps) {
    word |= static_cast<std::uint64_t>(gap) << filled;
    filled += width;
    if (filled < 32) continue;
    std::memcpy(at, &word, 4);
    at += 4;
    word >>= 32;
    filled -= 32;
  }
  std::memcpy(at, &word, 4);
  out.size = 1 + packed_bytes(gaps.size(), width);
}

// Appends the blocks of one row. False where an origin is not above the one before and below the limit.
bool encode_row(std::span<const std::uint32_t> row, std::uint64_t limit, std::vector<std::byte>& out) {
  std::array<std::uint32_t, kBlock> gaps;
  Packed packed;
  std::uint64_t next = 0;  // the least that the next origin can be
  for (std::size_t first = 0; first < row.size(); first += kBlock) {
    const std::size_t n = std::min(kBlock, row.size() - first);
    std::uint32_t all = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint64_t origin = row[first + i];
      if (origin < next || origin >= limit) return false;
      gaps[i] = static_cast<std::uint32_t>(origin - next);
      all |= gaps[i];
      next = origin + 1;
    }
    pack(std::span(gaps).first(n), static_cast<unsigned>(std::bit_width(all)), packed);
    out.insert(out.end(), packed.bytes.begin(), packed.bytes.begin() + static_cast<std::ptrdiff_t>(packed.size));
  }
  return true;
}

// Gaps of `width` bits at `from`, which is readable for kSlack bytes more than they take. Returns the gaps' union.
std::uint32_t unpack(const std::byte* from, unsigned width, std::uint64_t& next, std::span<std::uint32_t> to) {
  const std::uint32_t mask = width == 32 ? 0xffffffffU : (1U << width) - 1;
  std::uint32_t all = 0;
  std::uint64_t origin = next;
  for (std::size_t i = 0; i < to.size(); ++i) {
    const std::size_t bit = i * width;
    std::uint64_t word = 0;
    std::memcpy(&word, from + bit / 8, sizeof(word));
    const auto gap = static_cast<std::uint32_t>(word >> (bit % 8)) & mask;
    all |= gap;
    origin += gap;
    to[i] = static_cast<std::uint32_t>(origin);
    ++origin;
  }
  next = origin;
  return all;
}

}  // namespace

OriginBytes origin_bytes(std::uint64_t rows, std::uint64_t per_row, std::uint64_t limit) {
  const auto width = static_cast<unsigned>(std::bit_width(limit == 0 ? 0 : limit - 1));
  return {.least = rows * row_bytes(per_row, 0), .most = rows * row_bytes(per_row, std::min(width, kMaxWidth))};
}

Result<std::vector<std::byte>> encode_origins(std::span<const std::uint32_t> origins, std::uint32_t rows,
                                              std::uint64_t limit) {
  assert(rows > 0 && origins.size() % rows == 0);
  const std::size_t per_row = origins.size() / rows;
  try {
    std::vector<std::byte> out;
    out.reserve(origins.size() + rows * (per_row / kBlock + 1));
    for (std::uint32_t r = 0; r < rows; ++r) {
      if (!encode_row(origins.subspan(r * per_row, per_row), limit, out)) {
        return Status::invalid_argument(fmt::format("origins of row {} are not ascending below {}", r, limit));
      }
    }
    return out;
  } catch (const std::bad_alloc&) {
    return Status::resource_exhausted(fmt::format("no memory to encode {} origins", origins.size()));
  }
}

Status decode_origins(std::span<const std::byte> stored, std::uint32_t rows, std::uint64_t limit,
                      std::span<std::uint32_t> origins) {
  assert(rows > 0 && origins.size() % rows == 0);
  const std::size_t per_row = origins.size() / rows;
  const std::uint64_t bound = std::min(limit, std::uint64_t{1} << 32);
  std::size_t at = 0;
  for (std::uint32_t r = 0; r < rows; ++r) {
    std::uint64_t next = 0;
    for (std::size_t first = 0; first < per_row; first += kBlock) {
      const std::span<std::uint32_t> to = origins.subspan(r * per_row + first, std::min(kBlock, per_row - first));
      if (at == stored.size()) return Status::corrupt(fmt::format("the origins end within row {}", r));
      const auto width = std::to_integer<unsigned>(stored[at++]);
      if (width > kMaxWidth) return Status::corrupt(fmt::format("row {} has gaps of {} bits", r, width));
      const std::uint64_t size = packed_bytes(to.size(), width);
      if (size > stored.size() - at) return Status::corrupt(fmt::format("the origins end within row {}", r));
      const std::byte* from = stored.data() + at;
      std::array<std::byte, kMaxPacked + kSlack> copy;
      if (stored.size() - at < size + kSlack) {  // the last blocks: the words of the last gaps would reach too far
        std::copy_n(from, size, copy.begin());
        std::fill_n(copy.begin() + static_cast<std::ptrdiff_t>(size), kSlack, std::byte{0});
        from = copy.data();
      }
      const std::uint32_t all = unpack(from, width, next, to);
      if (next > bound) return Status::corrupt(fmt::format("row {} has an origin that is not below {}", r, limit));
      // Bits behind the last gap are zero, and the width is the least that will do: one encoding of every set.
      const unsigned spare = static_cast<unsigned>(size * 8 - to.size() * width);
      const bool padded = spare != 0 && std::to_integer<unsigned>(from[size - 1]) >> (8 - spare) != 0;
      if (padded || static_cast<unsigned>(std::bit_width(all)) != width) {
        return Status::corrupt(fmt::format("row {} has gaps that are not packed as they should be", r));
      }
      at += size;
    }
  }
  if (at != stored.size()) {
    return Status::corrupt(fmt::format("{} bytes follow the last origin", stored.size() - at));
  }
  return Status::ok();
}

}  // namespace finchkv::cache_store
