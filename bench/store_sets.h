// Entries of a wanted size for the store's benchmarks: shapes of Llama-3.1-8B, random bf16 contents.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <random>

#include "cache_store/store.h"

namespace finchkv::bench {

/// Keys and values take `bytes`, to within one token's. `name` makes ids differ; `cost_ms` is what eviction weighs.
inline cache_store::PutRequest make_entry(std::uint64_t bytes, std::uint64_t name, std::uint64_t cost_ms = 1000) {
  constexpr std::uint32_t kLayers = 32, kHeads = 8, kDim = 128;
  constexpr std::uint64_t kPerToken = 2ULL * kLayers * kHeads * kDim * 2;
  const bool small = bytes < kPerToken;
  const std::uint32_t layers = small ? 1 : kLayers;
  const std::uint64_t per_token = kPerToken / kLayers * layers;
  cache_store::PutRequest put;
  KvSet& set = put.set;
  set.shape = {.n_layers = layers, .n_kv_heads = kHeads, .head_dim = kDim, .origin_rows = kHeads};
  set.dtype = DType::kBF16;
  const auto kept = static_cast<std::uint32_t>(std::max<std::uint64_t>(1, bytes / per_token));
  set.doc_tokens = std::uint64_t{kept} * 16;
  set.next_position = kept;
  set.rope.rotary_dims = kDim;
  for (std::uint32_t i = 0; i < kDim / 2; ++i) set.rope.inv_freq.push_back(1.0F / static_cast<float>(i + 1));
  std::mt19937_64 random(name);
  const std::size_t tensor = set.layer_bytes(kept);
  for (std::uint32_t l = 0; l < layers; ++l) {
    const std::shared_ptr<std::byte> memory = allocate_shared_bytes(2 * tensor);
    for (std::size_t i = 0; i < 2 * tensor; i += 8) {
      const std::uint64_t bits = random() & 0xbfffbfffbfffbfffULL;  // no exponent of all ones: finite
      std::memcpy(memory.get() + i, &bits, 8);
    }
    auto origins = std::make_shared<std::vector<std::uint32_t>>();
    for (std::uint32_t i = 0; i < kHeads * kept; ++i) origins->push_back(i % kept * 16 + random() % 16);
    set.layers.push_back({kept, {memory.get(), tensor}, {memory.get() + tensor, tensor}, *origins});
    set.memory.push_back(memory);
    set.memory.push_back(origins);
  }
  cache_store::CacheIdentity& id = put.identity;
  std::memcpy(id.document_hash.data(), &name, sizeof(name));
  id.document_hash[31] = 1;
  id.prompt_hash[0] = 1;
  id.prompt_tokens = 8;
  id.doc_tokens = set.doc_tokens;
  id.reader = "chunks";
  id.policy = "finch-span";
  id.keep = kept;
  id.storage = DType::kBF16;
  put.compress_ms = cost_ms;
  return put;
}

}  // namespace finchkv::bench
