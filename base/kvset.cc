#include "base/kvset.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include <fmt/format.h>

namespace finchkv {

std::string_view key_form_name(KeyForm form) {
  switch (form) {
    case KeyForm::kPreRope: return "pre_rope";
    case KeyForm::kRotated: return "rotated";
    case KeyForm::kNone: return "none";
  }
  return "unknown";
}

std::uint32_t KvSet::max_kept() const {
  std::uint32_t most = 0;
  for (const KvLayer& layer : layers) most = std::max(most, layer.n_kept);
  return most;
}

std::size_t KvSet::tensor_bytes() const {
  std::size_t total = 0;
  for (const KvLayer& layer : layers) total += layer.keys.size() + layer.values.size();
  return total;
}

Status KvSet::validate() const {
  if (is_quantised(dtype)) return Status::invalid_argument("a KvSet in memory must be f32, f16 or bf16");
  if (shape.n_layers == 0 || shape.n_kv_heads == 0 || shape.head_dim == 0) {
    return Status::invalid_argument("a KvSet needs at least one layer, one KV head and one dimension");
  }
  if (layers.size() != shape.n_layers) {
    return Status::invalid_argument(
        fmt::format("the KvSet has {} layers where its shape says {}", layers.size(), shape.n_layers));
  }
  if (shape.origin_rows != 1 && shape.origin_rows != shape.n_kv_heads) {
    return Status::invalid_argument(
        fmt::format("origin_rows is {}; it must be 1 or the {} KV heads", shape.origin_rows, shape.n_kv_heads));
  }
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const KvLayer& layer = layers[l];
    const std::size_t bytes = layer_bytes(layer.n_kept);
    if (layer.keys.size() != bytes || layer.values.size() != bytes ||
        layer.origins.size() != static_cast<std::size_t>(shape.origin_rows) * layer.n_kept) {
      return Status::invalid_argument(fmt::format(
          "layer {} of the KvSet has tensors of other sizes than its {} kept entries need", l, layer.n_kept));
    }
    for (std::uint32_t row = 0; row < shape.origin_rows; ++row) {
      const auto origins = layer.origins.subspan(static_cast<std::size_t>(row) * layer.n_kept, layer.n_kept);
      for (std::size_t i = 0; i < origins.size(); ++i) {
        if (origins[i] >= doc_tokens || (i > 0 && origins[i] <= origins[i - 1])) {
          return Status::invalid_argument(
              fmt::format("layer {} row {}: origin {} at place {} is not ascending below {} document tokens", l, row,
                          origins[i], i, doc_tokens));
        }
      }
    }
  }
  return Status::ok();
}

std::shared_ptr<std::byte> allocate_shared_bytes(std::size_t bytes) {
  constexpr std::size_t kAlign = 64;
  const std::size_t rounded = (std::max<std::size_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign;
  auto* p = static_cast<std::byte*>(std::aligned_alloc(kAlign, rounded));
  if (p == nullptr) return nullptr;
  return {p, [](std::byte* q) { std::free(q); }};
}

Result<KvSet> convert_kvset(const KvSet& set, DType dtype) {
  if (is_quantised(dtype)) return Status::invalid_argument("a KvSet in memory must be f32, f16 or bf16");
  KvSet out = set;
  out.dtype = dtype;
  out.memory.clear();
  std::size_t elements_total = 0;
  std::size_t origins_total = 0;
  for (const KvLayer& layer : set.layers) {
    elements_total += (layer.keys.size() + layer.values.size()) / element_bytes(set.dtype);
    origins_total += layer.origins.size();
  }
  const std::size_t width = element_bytes(dtype);
  auto data = allocate_shared_bytes(elements_total * width);
  auto origin_data = allocate_shared_bytes(origins_total * sizeof(std::uint32_t));
  std::vector<float> row;
  if (!data || !origin_data)
    return Status::resource_exhausted(fmt::format("no memory for a KvSet of {} bytes", elements_total * width));
  std::byte* at = data.get();
  auto* origin_at = reinterpret_cast<std::uint32_t*>(origin_data.get());
  const auto convert = [&](std::span<const std::byte> from) {
    const std::size_t count = from.size() / element_bytes(set.dtype);
    std::byte* start = at;
    if (set.dtype == dtype) {
      std::memcpy(start, from.data(), from.size());
    } else {
      row.resize(count);
      convert_to_f32(set.dtype, from.data(), row.data(), count);
      convert_from_f32(dtype, row.data(), start, count);
    }
    at += count * width;
    return std::span<const std::byte>(start, count * width);
  };
  for (std::size_t l = 0; l < set.layers.size(); ++l) {
    out.layers[l].keys = convert(set.layers[l].keys);
    out.layers[l].values = convert(set.layers[l].values);
    std::copy(set.layers[l].origins.begin(), set.layers[l].origins.end(), origin_at);
    out.layers[l].origins = {origin_at, set.layers[l].origins.size()};
    origin_at += set.layers[l].origins.size();
  }
  out.memory = {data, origin_data};
  return out;
}

}  // namespace finchkv
