// StoreModel: a store, a std::map that says what has to be in it, and the comparisons between the two. What is done to
// both stands in model_test.cc.
//
// Under a limit the store takes entries away by itself: what a put has taken is looked up afterwards (absorb_evictions)
// and has to be what may go: neither pinned nor being streamed, and no more than the limit asked for.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/cache_store/implementations.h"

namespace finchkv::cache_store::testing {

inline const std::array<Tenant, 3> kTenants = {Tenant{}, kAlice, kBob};
inline constexpr std::uint32_t kNames = 10;  // of each tenant

struct ModelEntry {
  KvSet set;  // as get() returns it
  DType storage = DType::kF32;
  std::string label;
  std::uint64_t compress_ms = 0;
  Provenance provenance = Provenance::kComputed;
  std::optional<std::vector<std::int32_t>> document;
  std::uint64_t hits = 0;
  std::uint64_t stored_bytes = 0;
  std::uint64_t expires_unix_ms = 0;
  bool pinned = false;
};
using Model = std::map<CacheId, ModelEntry>;

class StoreModel : public ::testing::TestWithParam<Implementation> {
 protected:
  using Key = std::pair<std::size_t, CacheId>;  // tenant and id

  void SetUp() override { reopen(); }

  // A stream protects the entry that it reads, and not what comes under its id later.
  void forget(const CacheId& id) {
    model().erase(id);
    if (streamed_.key == Key{tenant_, id}) streamed_.key = Streamed{}.key;
  }

  bool may_pin(std::uint64_t bytes) const {
    for (const Model& of_tenant : models_) {
      for (const auto& [id, entry] : of_tenant) bytes += entry.pinned ? entry.stored_bytes : 0;
    }
    return limit_ == 0 || bytes <= limit_ / 2;
  }

  void absorb_evictions(const StoreReport& before, const EntryInfo& put) {
    std::uint64_t lost = 0;
    for (std::size_t t = 0; t < kTenants.size(); ++t) {
      std::set<CacheId> there;
      const auto page = stores_[t]->list({}, 1000);
      for (const EntryInfo& info : page->entries) there.insert(info.id);
      std::erase_if(models_[t], [&](const auto& entry) {
        if (there.contains(entry.first)) return false;
        EXPECT_FALSE(entry.second.pinned);
        EXPECT_NE(streamed_.key, (Key{t, entry.first}));
        ++lost;
        return true;
      });
    }
    const auto after = host_->report();
    const auto used = [](const StoreReport& report) {
      return report.total.stored_bytes + report.reserved_bytes + report.held_bytes;
    };
    EXPECT_GE(after->evictions - before.evictions, lost);
    EXPECT_TRUE(lost == 0 || used(before) + put.stored_bytes + 1024 > limit_);  // a put claims some bytes more
    EXPECT_TRUE(limit_ == 0 || used(*after) <= limit_);
  }

  std::uint32_t draw(std::size_t below) { return static_cast<std::uint32_t>(random_() % below); }
  CacheId draw_id() { return cache_id(request_of(draw(kNames)).identity, tenant()); }
  CacheId random_id() {
    CacheId id;
    for (std::uint8_t& byte : id.bytes) byte = static_cast<std::uint8_t>(draw(256));
    return id;
  }
  const Tenant& tenant() const { return kTenants[tenant_]; }
  Store& store() { return *stores_[tenant_]; }
  Model& model() { return models_[tenant_]; }

  static SetSpec spec_of(std::uint32_t name) {
    return {.layers = 1 + name % 3, .kept = 1 + name * 7, .doc_tokens = 100, .origins_per_head = name % 2 == 0};
  }
  // Name i of a tenant always has the same identity, and every storage dtype has its names.
  const PutRequest& request_of(std::uint32_t name) {
    auto& made = requests_[tenant_];
    const auto found = made.find(name);
    return found != made.end() ? found->second
                               : made[name] = make_put(spec_of(name), name, tenant(), static_cast<DType>(name % 5));
  }

  // True when the entry is there, as the model has it; then the status must be ok, else not_found with the id.
  bool expect_presence(const CacheId& id, const Status& status) {
    const bool there = model().contains(id);
    EXPECT_EQ(status.code(), there ? StatusCode::kOk : StatusCode::kNotFound) << status.to_string();
    EXPECT_TRUE(there || status.message().find(id.hex()) != std::string::npos) << status.message();
    return there && status.is_ok();
  }

  void expect_info(const EntryInfo& info, const CacheId& id) {
    const auto found = model().find(id);
    ASSERT_NE(found, model().end());
    const ModelEntry& expected = found->second;
    EXPECT_EQ(info.id, id);
    EXPECT_EQ(info.identity.storage, expected.storage);
    EXPECT_EQ(info.label, expected.label);
    EXPECT_EQ(info.compress_ms, expected.compress_ms);
    EXPECT_EQ(info.provenance, expected.provenance);
    EXPECT_EQ(info.has_document_tokens, expected.document.has_value());
    EXPECT_EQ(info.hits, expected.hits);
    EXPECT_EQ(info.stored_bytes, expected.stored_bytes);
    EXPECT_EQ(info.expires_unix_ms, expected.expires_unix_ms);
    EXPECT_EQ(info.pinned, expected.pinned);
    EXPECT_EQ(info.shape, expected.set.shape);
    EXPECT_EQ(info.decoded, expected.set.dtype);
    EXPECT_EQ(info.rope, expected.set.rope);
    EXPECT_EQ(info.raw_bytes, expected.set.tensor_bytes());
    EXPECT_GE(info.last_used_unix_ms, info.created_unix_ms);
    ASSERT_EQ(info.n_kept.size(), expected.set.layers.size());
    for (std::size_t l = 0; l < info.n_kept.size(); ++l) EXPECT_EQ(info.n_kept[l], expected.set.layers[l].n_kept);
  }

  void compare_all() {
    for (const auto& [id, entry] : model()) {
      const auto set = store().get(id);
      ASSERT_TRUE(set.is_ok()) << set.status().to_string();
      expect_same_set(*set, entry.set);
    }
    EXPECT_EQ(store().stats()->entries, model().size());
  }

  void reopen() {
    streamed_ = {};  // it keeps the host open
    for (auto& store : stores_) store.reset();
    host_.reset();
    auto host = GetParam().open(scratch_, {});
    ASSERT_TRUE(host.is_ok()) << host.status().to_string();
    host_ = *std::move(host);
    for (std::size_t t = 0; t < kTenants.size(); ++t) {
      auto store = host_->view(kTenants[t]);
      ASSERT_TRUE(store.is_ok()) << store.status().message();
      stores_[t] = *std::move(store);
    }
  }

  ScratchDirectory scratch_;
  std::shared_ptr<StoreHost> host_;
  std::array<std::unique_ptr<Store>, kTenants.size()> stores_;
  std::array<Model, kTenants.size()> models_;
  std::array<std::map<std::uint32_t, PutRequest>, kTenants.size()> requests_;
  std::size_t tenant_ = 0;  // whose turn it is
  std::uint64_t limit_ = 0;
  std::set<Key> expired_;  // may still be stored, or not
  struct Streamed {
    std::unique_ptr<EntryStream> entry;
    KvSet set;
    Key key{kTenants.size(), {}};
  };
  Streamed streamed_;
  std::mt19937_64 random_;
};

}  // namespace finchkv::cache_store::testing
