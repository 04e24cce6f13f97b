// Every Store against a plain std::map under random operations: one seeded harness, run over each implementation.
//
// To add an operation: write a member that draws its arguments, does it to the store and to the model, and compares;
// and give it a line in kOperations. What a new operation changes beyond bytes (a pin, an expiry) becomes a field of
// ModelEntry.
#include <algorithm>
#include <array>
#include <utility>

#include <gtest/gtest.h>

#include "cache_store/codec.h"
#include "tests/cache_store/store_model.h"

namespace finchkv::cache_store {
namespace {

using testing::expect_same_set;
using testing::kNames;
using testing::kTenants;
using testing::make_put;
using testing::make_set;
using testing::Model;
using testing::ModelEntry;

class StoreAndMap : public testing::StoreModel {
 protected:
  void run(std::uint64_t seed, int steps, std::uint64_t limit = 0) {
    random_.seed(seed);
    limit_ = limit;
    StoreSettings settings;
    settings.max_bytes = limit;
    ASSERT_TRUE(host_->set_settings(settings).is_ok());
    std::uint32_t total = 0;
    for (const Operation& operation : kOperations) total += operation.weight;
    for (int step = 0; step < steps; ++step) {
      std::uint32_t drawn = draw(total);
      const Operation* operation = kOperations.data();
      for (; drawn >= operation->weight; ++operation) drawn -= operation->weight;
      tenant_ = draw(kTenants.size());
      SCOPED_TRACE(::testing::Message() << "seed " << seed << ", step " << step << ", " << operation->name
                                        << ", tenant '" << kTenants[tenant_].name << "'");
      (this->*operation->run)();
      if (HasFailure()) return;
    }
    for (tenant_ = 0; tenant_ < kTenants.size() && !HasFailure(); ++tenant_) compare_all();
  }

 private:
  struct Operation {
    const char* name;
    std::uint32_t weight;
    void (StoreAndMap::*run)();
  };

  // ---- the operations ----

  void do_put() {
    const std::uint32_t name = draw(kNames);
    PutRequest request = request_of(name);
    request.set = make_set(spec_of(name), draw(1U << 30));
    request.label = std::string(draw(257), static_cast<char>('a' + draw(26)));
    request.compress_ms = draw(1U << 30);
    request.provenance = static_cast<Provenance>(draw(3));
    request.if_exists = draw(2) == 0 ? IfExists::kKeep : IfExists::kReplace;
    if (draw(3) == 0) request.document_tokens.reset();
    request.pinned = draw(8) == 0;
    request.ttl_ms = draw(4) == 0 ? 3'600'000 : 0;
    const CacheId id = cache_id(request.identity, tenant());
    const auto before = host_->report();
    const auto info = store().put(request);
    ASSERT_TRUE(info.is_ok()) << info.status().to_string();
    absorb_evictions(*before, *info);
    if (!model().contains(id) || request.if_exists == IfExists::kReplace) {
      const bool was_pinned = model().contains(id) && model()[id].pinned;
      forget(id);
      expired_.erase({tenant_, id});
      const bool pinned = (request.pinned || was_pinned) && may_pin(info->stored_bytes);
      auto stored = as_stored(request.set, request.identity.storage);
      ASSERT_TRUE(stored.is_ok());
      model()[id] = {.set = *std::move(stored),
                     .storage = request.identity.storage,
                     .label = request.label,
                     .compress_ms = request.compress_ms,
                     .provenance = request.provenance,
                     .document = request.document_tokens,
                     .stored_bytes = info->stored_bytes,
                     .expires_unix_ms = info->expires_unix_ms,
                     .pinned = pinned};
      EXPECT_EQ(info->expires_unix_ms != 0, request.ttl_ms != 0);
    }
    expect_info(*info, id);
  }

  void do_refused_put() {
    PutRequest request = request_of(draw(kNames));
    request.if_exists = IfExists::kReplace;
    switch (draw(3)) {
      case 0: request.label.assign(257, 'x'); break;
      case 1: request.set.layers.pop_back(); break;
      default: request.document_tokens->back() += 1;
    }
    EXPECT_EQ(store().put(request).status().code(), StatusCode::kInvalidArgument);
  }

  void do_get() {
    const CacheId id = draw_id();
    const auto set = store().get(id);
    if (!expect_presence(id, set.status())) return;
    expect_same_set(*set, model()[id].set);
    ++model()[id].hits;
  }

  void do_find() {
    const CacheId id = draw_id();
    const auto info = store().find(id);
    if (expect_presence(id, info.status())) expect_info(*info, id);
  }

  void do_read_parts() {
    const CacheId id = draw_id();
    const auto origins = store().read_origins(id);
    const auto tokens = store().read_document_tokens(id);
    if (!expect_presence(id, origins.status())) {
      EXPECT_EQ(tokens.status().code(), StatusCode::kNotFound);
      return;
    }
    const ModelEntry& expected = model()[id];
    ASSERT_EQ(origins->size(), expected.set.layers.size());
    for (std::size_t l = 0; l < origins->size(); ++l) {
      EXPECT_TRUE(std::ranges::equal((*origins)[l], expected.set.layers[l].origins)) << "layer " << l;
    }
    if (expected.document) {
      ASSERT_TRUE(tokens.is_ok()) << tokens.status().to_string();
      EXPECT_EQ(*tokens, *expected.document);
    } else {
      EXPECT_EQ(tokens.status().code(), StatusCode::kNotFound);
    }
  }

  void do_verify() {
    const CacheId id = draw_id();
    (void)expect_presence(id, store().verify(id));
  }

  void do_remove() {
    const CacheId id = draw_id();
    const Status removed = store().remove(id);
    // What has expired may be there to be removed, or be gone already.
    if (expired_.erase({tenant_, id}) == 0) (void)expect_presence(id, removed);
    forget(id);
  }

  void do_label() {
    const CacheId id = draw_id();
    const std::string label = std::to_string(draw(1000));
    if (expect_presence(id, store().set_label(id, label))) model()[id].label = label;
  }

  void do_pin() {
    const CacheId id = draw_id();
    const bool pinned = draw(3) != 0;
    const Status status = store().set_pinned(id, pinned);
    if (model().contains(id) && pinned && !model()[id].pinned && !may_pin(model()[id].stored_bytes)) {
      EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.to_string();
    } else if (expect_presence(id, status)) {
      model()[id].pinned = pinned;
    }
  }

  void do_expiry() {
    const CacheId id = draw_id();
    constexpr std::array<std::uint64_t, 3> kTimes = {0, 4'000'000'000'000, 1};
    const std::uint64_t time = kTimes[draw(kTimes.size())];
    if (!expect_presence(id, store().set_expiry(id, time))) return;
    model()[id].expires_unix_ms = time;
    if (time != 1) return;
    forget(id);
    expired_.insert({tenant_, id});
  }

  void do_begin_stream() {
    const CacheId id = draw_id();
    auto entry = store().stream(id);
    if (!expect_presence(id, entry.status())) return;
    ++model()[id].hits;
    const std::uint32_t layer = draw(model()[id].set.layers.size());
    EXPECT_TRUE((*entry)->layer(layer).is_ok());
    streamed_ = {*std::move(entry), model()[id].set, {tenant_, id}};
  }

  void do_finish_stream() {
    if (!streamed_.entry) return;
    const auto set = streamed_.entry->finish();
    ASSERT_TRUE(set.is_ok()) << set.status().to_string();
    expect_same_set(*set, streamed_.set);
    streamed_ = {};
  }

  // One page from anywhere: after an id that is there or not, or from the start.
  void do_list_page() {
    std::optional<CacheId> after;
    if (draw(3) != 0) after = draw(2) == 0 ? draw_id() : random_id();
    const std::size_t limit = 1 + draw(kNames + 2);
    const auto page = store().list(after, limit);
    ASSERT_TRUE(page.is_ok()) << page.status().to_string();
    EXPECT_TRUE(page->unreadable.empty());
    auto expected = after ? model().upper_bound(*after) : model().begin();
    ASSERT_LE(page->entries.size(), limit);
    for (const EntryInfo& info : page->entries) {
      ASSERT_NE(expected, model().end());
      ASSERT_EQ(info.id, expected->first);
      expect_info(info, info.id);
      ++expected;
    }
    if (expected == model().end()) {
      EXPECT_FALSE(page->next.has_value());
    } else {
      EXPECT_EQ(page->entries.size(), limit);
      EXPECT_EQ(page->next, page->entries.back().id);
    }
  }

  // All of it by pages, while another tenant's entries come and go, which may take some of this one's along.
  void do_walk() {
    const Model at_first = model();
    std::optional<CacheId> after;
    std::vector<CacheId> seen;
    const std::size_t limit = 1 + draw(5);
    do {
      const auto page = store().list(after, limit);
      ASSERT_TRUE(page.is_ok()) << page.status().to_string();
      for (const EntryInfo& info : page->entries) seen.push_back(info.id);
      after = page->next;
      const std::size_t walking = std::exchange(tenant_, (tenant_ + 1) % kTenants.size());
      draw(2) == 0 ? do_put() : do_remove();
      tenant_ = walking;
    } while (after && !HasFailure());
    EXPECT_TRUE(std::ranges::is_sorted(seen));
    for (const CacheId& id : seen) EXPECT_TRUE(at_first.contains(id));
    for (const auto& [id, entry] : model()) EXPECT_TRUE(std::ranges::binary_search(seen, id));
    EXPECT_TRUE(limit_ != 0 || seen.size() == model().size());
  }

  void do_resolve_prefix() {
    const std::string hex = draw_id().hex().substr(0, 1 + draw(draw(2) == 0 ? 3 : 64));
    std::vector<CacheId> matches;
    for (const auto& [id, entry] : model()) {
      if (id.hex().starts_with(hex)) matches.push_back(id);
    }
    const auto resolved = store().resolve_prefix(hex);
    if (matches.size() == 1) {
      ASSERT_TRUE(resolved.is_ok()) << resolved.status().to_string();
      EXPECT_EQ(*resolved, matches[0]);
    } else {
      EXPECT_EQ(resolved.status().code(), matches.empty() ? StatusCode::kNotFound : StatusCode::kInvalidArgument);
    }
  }

  void do_stats() {
    const auto stats = store().stats();
    ASSERT_TRUE(stats.is_ok()) << stats.status().to_string();
    std::uint64_t raw_bytes = 0;
    std::uint64_t hits = 0;
    for (const auto& [id, entry] : model()) {
      raw_bytes += entry.set.tensor_bytes();
      hits += entry.hits;
    }
    EXPECT_EQ(stats->entries, model().size());
    EXPECT_EQ(stats->raw_bytes, raw_bytes);
    EXPECT_EQ(stats->hits, hits);
    EXPECT_EQ(stats->unreadable, 0U);
  }

  void do_gc() {
    const auto report = host_->gc();
    ASSERT_TRUE(report.is_ok()) << report.status().to_string();
    EXPECT_EQ(report->blocks, 0U);  // every put came to its end
    EXPECT_LE(report->expired, expired_.size());
    expired_.clear();
    std::size_t entries = 0;
    for (const Model& of_tenant : models_) entries += of_tenant.size();
    EXPECT_EQ(host_->report()->total.entries, entries);
  }

  void do_probe_another_tenant() {
    const std::size_t other = (tenant_ + 1 + draw(kTenants.size() - 1)) % kTenants.size();
    for (const auto& [id, entry] : models_[other]) {
      EXPECT_EQ(store().find(id).status().code(), StatusCode::kNotFound);
      EXPECT_EQ(store().get(id).status().code(), StatusCode::kNotFound);
      EXPECT_EQ(store().remove(id).code(), StatusCode::kNotFound);
      EXPECT_EQ(store().resolve_prefix(id.hex()).status().code(), StatusCode::kNotFound);
    }
  }

  void do_reopen() {
    if (GetParam().persistent) reopen();
  }

  static constexpr std::array kOperations = {
      Operation{"put", 24, &StoreAndMap::do_put},
      Operation{"refused put", 2, &StoreAndMap::do_refused_put},
      Operation{"get", 20, &StoreAndMap::do_get},
      Operation{"find", 12, &StoreAndMap::do_find},
      Operation{"read parts", 6, &StoreAndMap::do_read_parts},
      Operation{"verify", 4, &StoreAndMap::do_verify},
      Operation{"remove", 10, &StoreAndMap::do_remove},
      Operation{"label", 4, &StoreAndMap::do_label},
      Operation{"pin", 6, &StoreAndMap::do_pin},
      Operation{"expiry", 5, &StoreAndMap::do_expiry},
      Operation{"begin a stream", 6, &StoreAndMap::do_begin_stream},
      Operation{"finish a stream", 4, &StoreAndMap::do_finish_stream},
      Operation{"list a page", 8, &StoreAndMap::do_list_page},
      Operation{"walk", 2, &StoreAndMap::do_walk},
      Operation{"resolve a prefix", 8, &StoreAndMap::do_resolve_prefix},
      Operation{"stats", 4, &StoreAndMap::do_stats},
      Operation{"gc", 3, &StoreAndMap::do_gc},
      Operation{"probe another tenant", 2, &StoreAndMap::do_probe_another_tenant},
      Operation{"reopen", 1, &StoreAndMap::do_reopen},
  };
};

TEST_P(StoreAndMap, AgreesWithAMap) { run(20240607, 800); }
TEST_P(StoreAndMap, AgreesWithAMapUnderAnotherSeed) { run(7, 800); }
TEST_P(StoreAndMap, AgreesWithAMapUnderALimit) { run(11, 800, 80 << 10); }
TEST_P(StoreAndMap, AgreesWithAMapUnderATightLimit) { run(12, 800, 40 << 10); }

FINCHKV_OVER_ALL_STORES(StoreAndMap);

}  // namespace
}  // namespace finchkv::cache_store
