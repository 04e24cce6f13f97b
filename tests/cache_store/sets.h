// KvSets and identities for the store's tests: small, seeded, all different.
#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "cache_store/store.h"

namespace finchkv::cache_store::testing {

struct SetSpec {
  std::uint32_t layers = 2;
  std::uint32_t heads = 2;
  std::uint32_t dim = 8;
  std::uint32_t kept = 5;
  std::uint32_t doc_tokens = 40;
  bool origins_per_head = false;
  DType dtype = DType::kF32;
};

inline KvSet make_set(const SetSpec& spec, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  KvSet set;
  set.shape = {spec.layers, spec.heads, spec.dim, spec.origins_per_head ? spec.heads : 1};
  set.dtype = DType::kF32;
  set.doc_tokens = spec.doc_tokens;
  set.next_position = spec.kept;
  set.rope.rotary_dims = spec.dim;
  for (std::uint32_t i = 0; i < spec.dim / 2; ++i) {
    set.rope.inv_freq.push_back(1.0F / static_cast<float>(i + 1));
  }
  const std::size_t count = std::size_t{spec.heads} * spec.kept * spec.dim;
  for (std::uint32_t l = 0; l < spec.layers; ++l) {
    auto numbers = std::make_shared<std::vector<float>>(2 * count);
    for (float& x : *numbers) x = normal(random);
    auto origins = std::make_shared<std::vector<std::uint32_t>>();
    for (std::uint32_t row = 0; row < set.shape.origin_rows; ++row) {
      std::vector<std::uint32_t> all(spec.doc_tokens);
      std::iota(all.begin(), all.end(), 0U);
      std::vector<std::uint32_t> chosen;
      std::sample(all.begin(), all.end(), std::back_inserter(chosen), spec.kept, random);
      origins->insert(origins->end(), chosen.begin(), chosen.end());
    }
    const auto bytes = std::as_bytes(std::span<const float>(*numbers));
    set.layers.push_back({spec.kept, bytes.first(count * 4), bytes.subspan(count * 4), *origins});
    set.memory.push_back(numbers);
    set.memory.push_back(origins);
  }
  if (spec.dtype == DType::kF32) return set;
  auto converted = convert_kvset(set, spec.dtype);
  EXPECT_TRUE(converted.is_ok());
  return *converted;
}

inline std::vector<std::int32_t> make_document(std::uint32_t tokens, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::int32_t> ids(tokens);
  for (auto& id : ids) id = static_cast<std::int32_t>(random() % 50000);
  return ids;
}

/// A put whose identity is different for every seed.
inline PutRequest make_put(const SetSpec& spec, std::uint32_t seed, const Tenant& tenant = {},
                           DType storage = DType::kF32) {
  PutRequest request;
  request.set = make_set(spec, seed);
  request.document_tokens = make_document(spec.doc_tokens, seed);
  CacheIdentity& id = request.identity;
  id.model_fingerprint.fill(1);
  id.weights_fingerprint.fill(2);
  id.tokenizer_fingerprint.fill(3);
  id.document_hash = token_hash(*request.document_tokens, tenant);
  const std::vector<std::int32_t> prompt = {1, 2, static_cast<std::int32_t>(seed)};
  id.prompt_hash = token_hash(prompt, tenant);
  id.doc_tokens = spec.doc_tokens;
  id.prompt_tokens = prompt.size();
  id.reader = "chunks";
  id.policy = "finch-span";
  id.policy_revision = 1;
  id.model_code_revision = 1;
  id.keep = spec.kept;
  id.chunk = 16;
  id.parameters = {{"span", 7}};
  id.storage = storage;
  request.compress_ms = 1234;
  request.label = "label " + std::to_string(seed);
  return request;
}

inline bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

inline void expect_same_set(const KvSet& a, const KvSet& b) {
  EXPECT_EQ(a.shape, b.shape);
  EXPECT_EQ(a.dtype, b.dtype);
  EXPECT_EQ(a.key_form, b.key_form);
  EXPECT_EQ(a.doc_tokens, b.doc_tokens);
  EXPECT_EQ(a.next_position, b.next_position);
  EXPECT_EQ(a.rope, b.rope);
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (std::size_t l = 0; l < a.layers.size(); ++l) {
    EXPECT_EQ(a.layers[l].n_kept, b.layers[l].n_kept);
    EXPECT_TRUE(same_bytes(a.layers[l].keys, b.layers[l].keys)) << "keys of layer " << l;
    EXPECT_TRUE(same_bytes(a.layers[l].values, b.layers[l].values)) << "values of layer " << l;
    EXPECT_TRUE(std::ranges::equal(a.layers[l].origins, b.layers[l].origins)) << "origins of layer " << l;
  }
}

/// A directory that does not exist yet, removed with everything in it at the end.
class ScratchDirectory {
 public:
  ScratchDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "finchkv-test-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) std::abort();
    parent_ = pattern;
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(parent_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  [[nodiscard]] std::string store() const { return (parent_ / "store").string(); }
  [[nodiscard]] const std::filesystem::path& path() const { return parent_; }

 private:
  std::filesystem::path parent_;
};

}  // namespace finchkv::cache_store::testing
