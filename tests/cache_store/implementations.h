// Every implementation of Store, and a fixture that opens them: what the store_*_test.cc files run over.
//
// A new implementation is one more line in implementations().
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cache_store/codec.h"
#include "cache_store/key_ring.h"
#include "cache_store/memory_store.h"
#include "cache_store/rocksdb_store.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store::testing {

struct OpenOptions {
  std::optional<StoreSettings> settings = std::nullopt;  ///< none: what the storage has kept
  std::function<void()> during_put = nullptr;            ///< where a store can say: between a put's steps
  std::chrono::milliseconds upkeep_interval{0};          ///< of a store that does things by itself
};

struct Implementation {
  std::string name;
  bool persistent;
  std::function<Result<std::shared_ptr<StoreHost>>(const ScratchDirectory&, const OpenOptions&)> open;
};

inline Implementation rocksdb_implementation(std::string name, std::uint64_t large_put_bytes) {
  return {std::move(name), true, [large_put_bytes](const ScratchDirectory& scratch, const OpenOptions& how) {
            RocksDbOptions options;
            options.large_put_bytes = large_put_bytes;
            options.settings = how.settings;
            options.upkeep_interval = how.upkeep_interval;
            if (how.during_put) options.on_put_step = [during = how.during_put](PutStep) { during(); };
            return open_rocksdb_store(scratch.store(), options);
          }};
}

inline std::vector<Implementation> implementations() {
  return {{"memory", false,
           [](const ScratchDirectory&, const OpenOptions& how) {
             return open_memory_store(how.settings.value_or(StoreSettings{}));
           }},
          rocksdb_implementation("rocksdb", 4U << 20),
          rocksdb_implementation("rocksdb_mixed", 4U << 10),  // small puts through the log, others as tables
          rocksdb_implementation("rocksdb_tables", 0)};       // every put a table of its own
}

inline const Tenant kAlice{"alice", std::vector<std::byte>(32, std::byte{7})};
inline const Tenant kBob{"bob", std::vector<std::byte>(32, std::byte{8})};

/// A key ring of keys that differ in their first byte, the current one first.
inline std::shared_ptr<const KeyRing> ring_of(std::initializer_list<std::uint8_t> firsts) {
  std::vector<KeyEncryptionKey> keys;
  for (const std::uint8_t first : firsts) {
    std::array<std::byte, kKeyBytes> bytes;
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(first + i);
    keys.push_back(KeyEncryptionKey::copy_of(bytes));
  }
  auto ring = KeyRing::make(std::move(keys));
  EXPECT_TRUE(ring.is_ok()) << ring.status().to_string();
  return std::make_shared<const KeyRing>(*std::move(ring));
}

/// 130 KiB and some as f32.
inline constexpr SetSpec kMiddling{.layers = 2, .heads = 2, .dim = 64, .kept = 64, .doc_tokens = 200};

class StoreTest : public ::testing::TestWithParam<Implementation> {
 protected:
  void SetUp() override { open({}); }

  void open(const OpenOptions& how) {
    store_.reset();
    host_.reset();
    auto host = GetParam().open(scratch_, how);
    ASSERT_TRUE(host.is_ok()) << host.status().to_string();
    host_ = *std::move(host);
    store_ = view({});
  }
  /// An empty storage of the kind, under these settings.
  void open_with(const StoreSettings& settings) { open({.settings = settings}); }

  std::unique_ptr<Store> view(const Tenant& tenant, ViewOptions options = {}) {
    auto store = host_->view(tenant, std::move(options));
    EXPECT_TRUE(store.is_ok()) << store.status().to_string();
    return store.is_ok() ? *std::move(store) : nullptr;
  }
  std::unique_ptr<Store> publisher(const Tenant& tenant = {}) { return view(tenant, {.publisher = true}); }
  std::unique_ptr<Store> sealed_view(const Tenant& tenant, std::initializer_list<std::uint8_t> keys) {
    return view(tenant, {.keys = ring_of(keys)});
  }

  EntryInfo put(Store& store, const PutRequest& request) {
    auto info = store.put(request);
    EXPECT_TRUE(info.is_ok()) << info.status().to_string();
    return info.is_ok() ? *info : EntryInfo{};
  }
  EntryInfo put_middling(Store& store, std::uint32_t seed) {
    return put(store, make_put(kMiddling, seed, store.tenant()));
  }
  /// What a put of kMiddling claims, with some bytes to spare.
  std::uint64_t middling_bytes() {
    if (middling_bytes_ == 0) {
      const auto host = make_memory_store();
      middling_bytes_ = (*(*host->view({}))->put(make_put(kMiddling, 0))).stored_bytes + 1024;
    }
    return middling_bytes_;
  }
  StoreReport report() {
    auto report = host_->report();
    EXPECT_TRUE(report.is_ok()) << report.status().to_string();
    return report.is_ok() ? *report : StoreReport{};
  }
  static std::uint64_t used(const StoreReport& report) {
    return report.total.stored_bytes + report.reserved_bytes + report.held_bytes;
  }
  static StatusCode find_code(Store& store, const CacheId& id) { return store.find(id).status().code(); }

  ScratchDirectory scratch_;
  std::shared_ptr<StoreHost> host_;
  std::unique_ptr<Store> store_;

 private:
  std::uint64_t middling_bytes_ = 0;
};

#define FINCHKV_OVER_ALL_STORES(suite)                                                                             \
  INSTANTIATE_TEST_SUITE_P(Stores, suite, ::testing::ValuesIn(::finchkv::cache_store::testing::implementations()), \
                           [](const auto& implementation) { return implementation.param.name; })

}  // namespace finchkv::cache_store::testing
