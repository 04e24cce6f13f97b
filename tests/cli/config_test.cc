// config, and the marks on entries: settings are kept and hold, labels, pins and expiry do what they say.
#include <chrono>
#include <thread>

#include "tests/cli/store_fixture.h"

namespace finchkv::cli {
namespace {

using testing::Arguments;
using testing::Ran;
using testing::operator+;

std::uint64_t now_ms() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

class Config : public testing::StoreCommandTest {};

TEST_F(Config, SettingsAreKept) {
  const auto set = must_json(in_store({"config",   "--max-bytes",
                                       "50G",      "--tenant-quota",
                                       "acme=10G", "--tenant-quota",
                                       "=1.5M",    "--tenant-max-bytes",
                                       "2T",       "--shared-max-bytes",
                                       "1G",       "--pinned-percent",
                                       "20",       "--ttl",
                                       "30d",      "--durability",
                                       "interval", "--sync-interval",
                                       "250ms",    "--lease",
                                       "2m",       "--scrub-rate",
                                       "50M"}));
  EXPECT_EQ(set["max_bytes"], std::uint64_t{50} << 30);
  EXPECT_EQ(set["tenant_quotas"]["acme"], std::uint64_t{10} << 30);
  EXPECT_EQ(set["tenant_quotas"][""], 3U << 19);
  EXPECT_EQ(set["tenant_max_bytes"], std::uint64_t{2} << 40);
  EXPECT_EQ(set["shared_max_bytes"], std::uint64_t{1} << 30);
  EXPECT_EQ(set["pinned_percent"], 20);
  EXPECT_EQ(set["default_ttl_ms"], 30U * 86'400'000U);
  EXPECT_EQ(set["durability"], "interval");
  EXPECT_EQ(set["sync_interval_ms"], 250);
  EXPECT_EQ(set["lease_ms"], 120'000);
  EXPECT_EQ(set["scrub_bytes_per_s"], 50U << 20);
  EXPECT_EQ(must_json(in_store({"config"})), set);

  const auto changed = must_json(in_store({"config", "--tenant-quota", "acme=default", "--ttl", "never"}));
  EXPECT_FALSE(changed["tenant_quotas"].contains("acme"));
  EXPECT_TRUE(changed["tenant_quotas"].contains(""));
  EXPECT_EQ(changed["default_ttl_ms"], 0);
  EXPECT_EQ(changed["max_bytes"], set["max_bytes"]);
  const Ran shown = run(in_store({"config"}));
  EXPECT_NE(shown.out.find("max-bytes"), std::string::npos);
  EXPECT_NE(shown.out.find("50G"), std::string::npos) << shown.out;
}

TEST_F(Config, WhatIsWrongIsRefusedAndMakesNoStore) {
  expect_refused(in_store({"config"}), 3, "store");
  expect_refused(in_store({"config", "--max-bytes", "50GB"}), 2, "--max-bytes 50GB");
  expect_refused(in_store({"config", "--ttl", "30"}), 2, "--ttl 30");
  expect_refused(in_store({"config", "--durability", "often"}), 2, "often");
  expect_refused(in_store({"config", "--pinned-percent", "101"}), 2, "101");
  expect_refused(in_store({"config", "--tenant-quota", "acme"}), 2, "NAME=10G");
  expect_refused(in_store({"config", "--tenant-quota", "a/b=1G"}), 2, "a/b");
  EXPECT_FALSE(std::filesystem::exists(path("store")));
}

TEST_F(Config, ALimitEvictsAtOnceAndHolds) {
  const std::string id = compress();
  const auto bytes = entries()[id]["bytes"].get<std::uint64_t>();
  compress({"--policy", "finch"});
  ASSERT_EQ(entries().size(), 2U);
  must_json(in_store({"config", "--max-bytes", std::to_string(bytes * 3 / 2)}));
  EXPECT_EQ(entries().size(), 1U);
  compress({"--policy", "streaming"});
  EXPECT_EQ(entries().size(), 1U);
  EXPECT_GE(must_json(in_store({"stats"}))["store"]["evictions"], 2);
}

TEST_F(Config, TheTimeToLiveIsTheStoresOrTheEntrys) {
  must_json(in_store({"config", "--ttl", "2d"}));
  const std::string standard = compress();
  const std::string own = compress({"--policy", "finch", "--ttl", "12h"});
  const auto now = now_ms();
  const auto left = [&](const std::string& id) { return entries()[id]["expires_unix_ms"].get<std::uint64_t>() - now; };
  EXPECT_NEAR(static_cast<double>(left(standard)), 2 * 86'400'000.0, 120'000);
  EXPECT_NEAR(static_cast<double>(left(own)), 43'200'000.0, 120'000);
}

TEST_F(Config, Labels) {
  const std::string id = compress({"--label", "mine"});
  EXPECT_EQ(entries()[id]["label"], "mine");
  const Ran told = run(in_store({"label", id.substr(0, 8), "annual report"}));
  EXPECT_EQ(told.status, 0) << told.err;
  EXPECT_EQ(told.out, "labelled " + id + "\n");
  EXPECT_EQ(entries()[id]["label"], "annual report");
  must_json(in_store({"label", id, ""}));
  EXPECT_EQ(entries()[id]["label"], "");
  expect_refused(in_store({"label", id, std::string(257, 'x')}), 2, "256");
  expect_refused(in_store({"label", std::string(64, 'f'), "x"}), 3, "ffff");
}

TEST_F(Config, PinsSurviveEviction) {
  const std::string pinned = compress({"--pin"});
  const std::string other = compress({"--policy", "finch"});
  EXPECT_EQ(entries()[pinned]["pinned"], true);
  EXPECT_EQ(entries()[other]["pinned"], false);
  const auto bytes = entries()[pinned]["bytes"].get<std::uint64_t>();
  must_json(in_store({"config", "--pinned-percent", "100", "--max-bytes", std::to_string(bytes * 3 / 2)}));
  EXPECT_TRUE(entries().contains(pinned));
  EXPECT_FALSE(entries().contains(other));
  EXPECT_EQ(must_json(in_store({"unpin", pinned.substr(0, 9)}))["unpinned"][0], pinned);
  EXPECT_EQ(entries()[pinned]["pinned"], false);
  EXPECT_EQ(must_json(in_store({"pin", "--all"}))["pinned"].size(), 1U);
  EXPECT_EQ(entries()[pinned]["pinned"], true);
  expect_refused(in_store({"pin"}), 2, "--all");
}

TEST_F(Config, ExpiredEntriesGo) {
  const std::string id = compress({"--label", "draft"});
  const std::string stays = compress({"--policy", "finch"});
  expect_refused(in_store({"expire", id}), 2, "--in");
  expect_refused(in_store({"expire", id, "--in", "0"}), 2, "finchkv rm");
  expect_refused(in_store({"expire", id, "--in", "1d", "--never"}), 2, "--in");
  const auto before = now_ms();
  ASSERT_EQ(run(in_store({"expire", "--label", "draft", "--in", "2d"})).status, 0);
  EXPECT_GE(entries()[id]["expires_unix_ms"].get<std::uint64_t>(), before + 2 * 86'400'000U);
  EXPECT_NE(run(in_store({"ls"})).out.find("EXPIRES"), std::string::npos);
  ASSERT_EQ(run(in_store({"expire", id, "--never"})).status, 0);
  EXPECT_EQ(entries()[id]["expires_unix_ms"], 0);
  EXPECT_EQ(run(in_store({"ls"})).out.find("EXPIRES"), std::string::npos);
  ASSERT_EQ(run(in_store({"expire", id, "--in", "1ms"})).status, 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_FALSE(entries().contains(id));
  expect_refused(in_store({"show", id}), 3, id);
  EXPECT_EQ(must_json(in_store({"gc"}))["expired"], 1);
  EXPECT_TRUE(entries().contains(stays));
}

TEST_F(Config, AFoundEntryIsKeptAsItWas) {
  const std::string id = compress({"--label", "first"});
  const Ran again = run(on_tokens("compress") + Arguments{"--label", "second", "--pin"});
  EXPECT_EQ(again.status, 0);
  EXPECT_NE(again.err.find("kept as it was"), std::string::npos) << again.err;
  EXPECT_EQ(entries()[id]["label"], "first");
  expect_refused({"ask", "--model", model_, "--no-store", "--doc", "-", "--prompt", "why?", "--pin"}, 2, "--no-store",
                 "x");
}

TEST_F(Config, ZstdIsSmallerOrTheSameAndAnswersAlike) {
  const auto plain = must_json(on_tokens("ask") + Arguments{"--max-tokens", "6"});
  const auto plain_bytes = plain["bytes"].get<std::uint64_t>();
  std::filesystem::remove_all(path("store"));
  const auto packed = must_json(on_tokens("ask") + Arguments{"--max-tokens", "6", "--zstd"});
  EXPECT_LE(packed["bytes"].get<std::uint64_t>(), plain_bytes);
  const auto found = must_json(on_tokens("ask") + Arguments{"--max-tokens", "6"});
  EXPECT_EQ(found["hit"], true);
  EXPECT_EQ(found["answer_tokens"], plain["answer_tokens"]);
}

}  // namespace
}  // namespace finchkv::cli
