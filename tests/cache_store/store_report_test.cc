// What an operator sees and sets, over every Store: settings, the report, scrubbing.
#include <gtest/gtest.h>

#include "tests/cache_store/implementations.h"

namespace finchkv::cache_store {
namespace {

using testing::kAlice;
using testing::kMiddling;
using testing::make_put;

class StoreReports : public testing::StoreTest {};

StoreSettings unusual_settings() {
  StoreSettings settings;
  settings.max_bytes = 10'000'000;
  settings.tenant_max_bytes = 5'000'000;
  settings.tenant_quotas = {{"", 7'000'000}, {"alice", 6'000'000}};
  settings.shared_max_bytes = 1'000'000;
  settings.pinned_percent = 25;
  settings.default_ttl_ms = 86'400'000;
  settings.durability = Durability::kInterval;
  settings.sync_interval_ms = 50;
  settings.lease_ms = 5'000;
  settings.scrub_bytes_per_s = 1'000;
  return settings;
}

TEST_P(StoreReports, SettingsAreAsTheyWereSet) {
  EXPECT_EQ(host_->settings(), StoreSettings{});
  ASSERT_TRUE(host_->set_settings(unusual_settings()).is_ok());
  EXPECT_EQ(host_->settings(), unusual_settings());
  EXPECT_EQ(report().settings, unusual_settings());
  open_with(StoreSettings{});
  EXPECT_EQ(host_->settings(), StoreSettings{});
  if (!GetParam().persistent) return;
  open({});  // what was given to one opening is not kept
  EXPECT_EQ(host_->settings(), unusual_settings());
}

TEST_P(StoreReports, SettingsThatAreNoneAreRefused) {
  const auto code = [&](const std::function<void(StoreSettings&)>& change) {
    StoreSettings settings = unusual_settings();
    change(settings);
    const Status opened = GetParam().open(testing::ScratchDirectory(), {.settings = settings}).status();
    EXPECT_EQ(opened.code(), StatusCode::kInvalidArgument);
    return host_->set_settings(settings).code();
  };
  const auto invalid = StatusCode::kInvalidArgument;
  EXPECT_EQ(code([](StoreSettings& s) { s.pinned_percent = 101; }), invalid);
  EXPECT_EQ(code([](StoreSettings& s) { s.lease_ms = 0; }), invalid);
  EXPECT_EQ(code([](StoreSettings& s) { s.sync_interval_ms = 0; }), invalid);
  EXPECT_EQ(code([](StoreSettings& s) { s.max_bytes = ~std::uint64_t{0}; }), invalid);
  EXPECT_EQ(code([](StoreSettings& s) { s.tenant_quotas["alice"] = ~std::uint64_t{0}; }), invalid);
  EXPECT_EQ(code([](StoreSettings& s) { s.default_ttl_ms = ~std::uint64_t{0}; }), invalid);
  EXPECT_EQ(host_->settings(), StoreSettings{});
}

TEST_P(StoreReports, SumsOverTenantsModelsAndAges) {
  const auto alice = view(kAlice);
  const auto publishing = publisher();
  std::vector<EntryInfo> all;
  all.push_back(put(*store_, make_put({}, 1)));
  all.push_back(put(*store_, make_put(kMiddling, 2, {}, DType::kQ8)));
  all.push_back(put(*alice, make_put({.kept = 9}, 3, kAlice)));
  PutRequest other_model = make_put({}, 4);
  other_model.identity.model_fingerprint.fill(9);
  other_model.sharing = Sharing::kShared;
  all.push_back(put(*publishing, other_model));
  ASSERT_TRUE(store_->get(all[0].id).is_ok());
  ASSERT_TRUE(alice->get(all[2].id).is_ok());
  ASSERT_TRUE(alice->get(all[3].id).is_ok());

  const StoreReport now = report();
  std::uint64_t stored = 0;
  std::uint64_t raw = 0;
  for (const EntryInfo& entry : all) {
    stored += entry.stored_bytes;
    raw += entry.raw_bytes;
  }
  EXPECT_EQ(now.total.entries, 4U);
  EXPECT_EQ(now.total.stored_bytes, stored);
  EXPECT_EQ(now.total.raw_bytes, raw);
  EXPECT_EQ(now.total.hits, 3U);
  EXPECT_EQ(now.total.unreadable, 0U);
  EXPECT_EQ(now.total.disk_bytes != 0, GetParam().persistent);
  ASSERT_EQ(now.by_tenant.size(), 3U);
  EXPECT_EQ(now.by_tenant.at("").entries, 2U);
  EXPECT_EQ(now.by_tenant.at("").stored_bytes, all[0].stored_bytes + all[1].stored_bytes);
  EXPECT_EQ(now.by_tenant.at("alice").raw_bytes, all[2].raw_bytes);
  EXPECT_EQ(now.by_tenant.at("*").hits, 1U);
  ASSERT_EQ(now.by_model.size(), 2U);
  EXPECT_EQ(now.by_model.at(to_hex(other_model.identity.model_fingerprint)).entries, 1U);
  ASSERT_EQ(now.by_age.size(), 1U);
  EXPECT_EQ(now.by_age.begin()->second.entries, 4U);
  EXPECT_EQ(now.put_bytes, stored);
  EXPECT_EQ(now.written_bytes >= stored, GetParam().persistent);
  EXPECT_EQ(now.reserved_bytes, 0U);
  EXPECT_EQ(now.held_bytes, 0U);

  const auto mine = store_->stats();
  EXPECT_EQ(mine->entries, 2U);
  EXPECT_EQ(mine->stored_bytes, now.by_tenant.at("").stored_bytes);
  EXPECT_EQ(mine->hits, 1U);
}

TEST_P(StoreReports, CountsLookupsAndMisses) {
  const CacheId id = put(*store_, make_put({}, 1)).id;
  const CacheId absent = cache_id(make_put({}, 2).identity, {});
  const StoreReport before = report();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(store_->find(id).is_ok());
  EXPECT_TRUE(store_->get(id).is_ok());
  EXPECT_FALSE(store_->find(absent).is_ok());
  EXPECT_FALSE(store_->get(absent).is_ok());
  const StoreReport after = report();
  EXPECT_EQ(after.lookups - before.lookups, 6U);
  EXPECT_EQ(after.misses - before.misses, 2U);
  if (!GetParam().persistent) return;
  open({});
  EXPECT_EQ(report().lookups, after.lookups);
  EXPECT_EQ(report().misses, after.misses);
  EXPECT_EQ(report().put_bytes, after.put_bytes);
}

TEST_P(StoreReports, WhatIsKeptOfAnEntryOutlivesAnOpening) {
  if (!GetParam().persistent) GTEST_SKIP() << "keeps nothing";
  PutRequest request = make_put({}, 1);
  request.pinned = true;
  request.ttl_ms = 3'600'000;
  const EntryInfo made = put(*store_, request);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(store_->get(made.id).is_ok());
  ASSERT_TRUE(store_->set_label(made.id, "renamed").is_ok());
  const EntryInfo before = *store_->find(made.id);
  open({});
  const auto after = store_->find(made.id);
  ASSERT_TRUE(after.is_ok()) << after.status().to_string();
  EXPECT_EQ(after->hits, 4U);
  EXPECT_EQ(after->label, "renamed");
  EXPECT_TRUE(after->pinned);
  EXPECT_EQ(after->expires_unix_ms, made.expires_unix_ms);
  EXPECT_EQ(after->last_used_unix_ms, before.last_used_unix_ms);
  EXPECT_EQ(report().pinned_bytes, made.stored_bytes);
}

TEST_P(StoreReports, AScrubOfAHealthyStoreFindsNothing) {
  const auto alice = sealed_view(kAlice, {10});
  std::uint64_t stored = 0;
  for (std::uint32_t i = 0; i < 5; ++i) stored += put(*store_, make_put(kMiddling, i, {}, DType::kBF16)).stored_bytes;
  stored += put(*alice, make_put(kMiddling, 1, kAlice)).stored_bytes;
  const auto scrubbed = host_->scrub({});
  ASSERT_TRUE(scrubbed.is_ok()) << scrubbed.status().to_string();
  EXPECT_EQ(scrubbed->entries, 6U);
  EXPECT_EQ(scrubbed->bytes, stored);
  EXPECT_TRUE(scrubbed->quarantined.empty());
  EXPECT_EQ(report().held_bytes, 0U);
  EXPECT_EQ(report().total.hits, 0U);
}

TEST_P(StoreReports, AScrubStopsAndKeepsToItsRate) {
  std::uint64_t stored = 0;
  for (std::uint32_t i = 0; i < 4; ++i) stored += put_middling(*store_, i).stored_bytes;
  int asked = 0;
  const auto stopped = host_->scrub({.stop = [&] { return ++asked == 2; }});
  ASSERT_TRUE(stopped.is_ok());
  EXPECT_LT(stopped->entries, 4U);
  EXPECT_GE(stopped->entries, 1U);

  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(host_->scrub({.bytes_per_s = 4 * stored}).is_ok());  // a quarter of a second
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(240));
}

FINCHKV_OVER_ALL_STORES(StoreReports);

}  // namespace
}  // namespace finchkv::cache_store
