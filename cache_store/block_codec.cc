#include "cache_store/block_codec.h"

#include <cstring>
#include <new>
#include <vector>

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
  const std::size_t count = tensor.size() / element_bytes(dtype);
  try {
    std::vector<float> wide;
    std::span<const float> floats;
    if (dtype == DType::kF32) {
      floats = {reinterpret_cast<const float*>(tensor.data()), count};
    } else {
      wide.resize(count);
      convert_to_f32(dtype, tensor.data(), wide.data(), count);
      floats = wide;
    }
    if (is_quantised(storage)) {
      FINCHKV_RETURN_IF_ERROR(quantise(storage, axis_of(kind), quantised_shape(shape, n_kept), floats, out));
    } else {
      convert_from_f32(storage, floats.data(), out.data(), count);
    }
  } catch (const std::bad_alloc&) {
    return Status::resource_exhausted(fmt::format("no memory to convert {} numbers", count));
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
  const QuantisedShape quantised = quantised_shape(shape, n_kept);
  if (decoded == DType::kF32) {
    return dequantise(storage, axis_of(kind), quantised, stored,
                      {reinterpret_cast<float*>(out.data()), out.size() / sizeof(float)});
  }
  try {
    std::vector<float> wide(out.size() / element_bytes(decoded));
    FINCHKV_RETURN_IF_ERROR(dequantise(storage, axis_of(kind), quantised, stored, wide));
    convert_from_f32(decoded, wide.data(), out.data(), wide.size());
  } catch (const std::bad_alloc&) {
    return Status::resource_exhausted(fmt::format("no memory to decode {} bytes", out.size()));
  }
  return Status::ok();
}

}  // namespace finchkv::cache_store
