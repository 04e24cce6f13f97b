#include "cache_store/memory_blocks.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/digest.h"

namespace finchkv::cache_store {
namespace {

// Small enough to be hashed while it is still in the nearest caches.
constexpr std::size_t kTile = 16 << 10;

class MemorySource final : public BlockSource {
 public:
  MemorySource(std::weak_ptr<const MemoryBlocks> blocks, std::function<Status()> progress)
      : blocks_(std::move(blocks)), progress_(std::move(progress)) {}

  Status read(const BlockRef& ref, std::span<std::byte> into) override { return fetch(ref, into, nullptr); }
  Status read_with(const BlockRef& ref, std::span<std::byte> into, BlockWork& work) override {
    return fetch(ref, into, &work);
  }

 private:
  Status fetch(const BlockRef& ref, std::span<std::byte> into, BlockWork* work) {
    const auto blocks = blocks_.lock();
    const Status status =
        blocks ? blocks->read(ref, into, work) : Status::not_found(fmt::format("{} has gone", describe(ref)));
    FINCHKV_RETURN_IF_ERROR(progress_());  // first: it says why blocks may have gone
    return status;
  }

  std::weak_ptr<const MemoryBlocks> blocks_;
  std::function<Status()> progress_;
};

}  // namespace

Result<std::shared_ptr<const MemoryBlocks>> MemoryBlocks::copy_of(const EncodedEntry& entry) {
  std::shared_ptr<MemoryBlocks> out(new MemoryBlocks);
  out->memory_ = allocate_shared_bytes(entry.block_bytes);
  if (!out->memory_) {
    return Status::resource_exhausted(fmt::format("no memory for an entry of {} bytes", entry.block_bytes));
  }
  std::byte* at = out->memory_.get();
  for (const Block& block : entry.blocks) {
    if (!block.bytes.empty()) std::memcpy(at, block.bytes.data(), block.bytes.size());
    out->blocks_.emplace_back(at, block.bytes.size());
    at += block.bytes.size();
  }
  return std::shared_ptr<const MemoryBlocks>(std::move(out));
}

Status MemoryBlocks::read(const BlockRef& ref, std::span<std::byte> into, BlockWork* work) const {
  if (ref.ordinal >= blocks_.size()) return Status::not_found(fmt::format("{} is missing", describe(ref)));
  std::span<const std::byte> left = blocks_[ref.ordinal];
  if (left.size() != into.size()) {
    return Status::corrupt(
        fmt::format("{} has {} bytes where {} were stored", describe(ref), left.size(), into.size()));
  }
  BlockHasher hasher;
  for (std::byte* at = into.data(); !left.empty();) {
    const std::size_t bytes = std::min(kTile, left.size());
    std::memcpy(at, left.data(), bytes);
    hasher.update({at, bytes});
    left = left.subspan(bytes);
    at += bytes;
    if (work != nullptr) work->arrived(into.size() - left.size());
  }
  if (hasher.digest() != ref.digest) return Status::corrupt(fmt::format("{} does not match its digest", describe(ref)));
  return Status::ok();
}

std::unique_ptr<BlockSource> make_memory_source(std::weak_ptr<const MemoryBlocks> blocks,
                                                std::function<Status()> progress) {
  return std::make_unique<MemorySource>(std::move(blocks), std::move(progress));
}

}  // namespace finchkv::cache_store
