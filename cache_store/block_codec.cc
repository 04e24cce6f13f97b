#include "cache_store/block_codec.h"

#include <cstring>

#include <fmt/format.h>

#include "base/quantised.h"

namespace finchkv::cache_store {
namespace {

// RocksDB keeps a value's length in 32 bits.
constexpr std::uint64_t kMaxBlockBytes = (std::uint64_t{4} << 30) - 4096;

GroupAxis axis_of(BlockKind kind) { return kind == BlockKind::kKeys ? GroupAxis::kTokens : GroupAxis::kChannels; }

QuantisedShape quantised_shape(const KvShape& shape, std::uint32_t n_kept) {
  return {.heads = shape.n_kv_heads, .tokens = n_kept, .channels = shape.head_dim};
}

}  // namespace

std::optional<std::uint64_t> raw_tensor_bytes(DType dtype, const KvShape& shape, std::uint32_t n_kept) {
  const std::uint64_t width = element_bytes(dtype);
  const std::uint64_t rows = std::uint64_t{shape.n_kv_heads} * n_kept;
  if (rows == 0 || shape.head_dim == 0) return 0;
  if (rows > kMaxBlockBytes / width / shape.head_dim) return std::nullopt;
  return rows * shape.head_dim * width;
}

std::optional<std::uint64_t> stored_tensor_bytes(DType storage, BlockKind kind, const KvShape& shape,
                                                 std::uint32_t n_kept) {
  if (!is_quantised(storage)) return raw_tensor_bytes(storage, shape, n_kept);
  const auto bytes = quantised_bytes(storage, axis_of(kind), quantised_shape(shape, n_kept));
  if (!bytes || *bytes > kMaxBlockBytes) return std::nullopt;
  return bytes;
}

Result<Block> encode_tensor(std::span<const std::byte> tensor, DType dtype, DType storage, BlockKind kind,
                            const KvShape& shape, std::uint32_t n_kept) {
  if (dtype == storage) return Block{.ordinal = 0, .bytes = tensor, .owner = nullptr};
  const auto bytes = stored_tensor_bytes(storage, kind, shape, n_kept);
  if (!bytes) return Status::invalid_argument("the tensor is larger than a block of 4 GiB");
  const std::shared_ptr<std::byte> memory = allocate_shared_bytes(*bytes);
  if (!memory) return Status::resource_exhausted(fmt::format("no memory for a block of {} bytes", *bytes));
  const std::span<std::byte> out(memory.get(), *bytes);
  if (is_quantised(storage)) {
    FINCHKV_RETURN_IF_ERROR(quantise(storage, axis_of(kind), quantised_shape(shape, n_kept), dtype, tensor, out));
  } else {
    convert_elements(dtype, tensor.data(), storage, out.data(), tensor.size() / element_bytes(dtype));
  }
  return Block{.ordinal = 0, .bytes = out, .owner = memory};
}

Status decode_tensor(std::span<const std::byte> stored, DType storage, BlockKind kind, const KvShape& shape,
                     std::uint32_t n_kept, DType decoded, std::span<std::byte> out) {
  if (stored.empty()) return Status::ok();
  if (storage == decoded) {
    std::memcpy(out.data(), stored.data(), stored.size());
    return Status::ok();
  }
  return dequantise(storage, axis_of(kind), quantised_shape(shape, n_kept), stored, decoded, out);
}

Status check_tensor(std::span<const std::byte> stored, DType storage, BlockKind kind, const KvShape& shape,
                    std::uint32_t n_kept) {
  if (!is_quantised(storage)) return Status::ok();
  return check_quantised(storage, axis_of(kind), quantised_shape(shape, n_kept), stored);
}

}  // namespace finchkv::cache_store
