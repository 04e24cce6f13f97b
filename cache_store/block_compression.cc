#include "cache_store/block_compression.h"

#include <memory>
#include <new>

#include <fmt/format.h>
#include <zstd.h>

namespace finchkv::cache_store {
namespace {

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

// nullptr when there is no memory; the next call tries again.
ZSTD_CCtx* compressor() {
  thread_local std::unique_ptr<ZSTD_CCtx, FreeContext> context;
  if (!context) context.reset(ZSTD_createCCtx());
  return context.get();
}

ZSTD_DCtx* decompressor() {
  thread_local std::unique_ptr<ZSTD_DCtx, FreeContext> context;
  if (!context) context.reset(ZSTD_createDCtx());
  return context.get();
}

}  // namespace

std::optional<std::vector<std::byte>> compress_block(std::span<const std::byte> block, int level) {
  const std::size_t most = block.size() - (block.size() + 15) / 16;
  ZSTD_CCtx* const context = compressor();
  if (context == nullptr || most == 0) return std::nullopt;
  // Settings stay with the context; the level may differ from the last call's.
  if (ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)) != 0) return std::nullopt;
  try {
    std::vector<std::byte> out(most);
    const std::size_t size = ZSTD_compress2(context, out.data(), out.size(), block.data(), block.size());
    if (ZSTD_isError(size) != 0) return std::nullopt;  // above all: it does not fit
    out.resize(size);
    out.shrink_to_fit();
    return out;
  } catch (const std::bad_alloc&) {
    return std::nullopt;
  }
}

Status decompress_block(std::span<const std::byte> stored, std::span<std::byte> out) {
  // zstd itself would also take several frames in a row, and frames to be skipped.
  if (ZSTD_getFrameContentSize(stored.data(), stored.size()) != out.size() ||
      ZSTD_findFrameCompressedSize(stored.data(), stored.size()) != stored.size() || out.empty()) {
    return Status::corrupt(fmt::format("{} bytes are not one zstd frame of {} bytes", stored.size(), out.size()));
  }
  ZSTD_DCtx* const context = decompressor();
  if (context == nullptr) return Status::resource_exhausted("no memory for a zstd context");
  const std::size_t size = ZSTD_decompressDCtx(context, out.data(), out.size(), stored.data(), stored.size());
  if (ZSTD_isError(size) != 0) {
    return Status::corrupt(fmt::format("{} bytes do not decompress: {}", stored.size(), ZSTD_getErrorName(size)));
  }
  if (size != out.size()) {
    return Status::corrupt(fmt::format("a zstd frame has {} bytes where {} were stored", size, out.size()));
  }
  return Status::ok();
}

}  // namespace finchkv::cache_store
