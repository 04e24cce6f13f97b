// scrub, verify --quarantine, stats and doctor over a store with damage in it.
#include <map>

#include "tests/cli/store_fixture.h"

namespace finchkv::cli {
namespace {

using testing::Arguments;
using testing::damage;
using testing::first_keys;
using testing::Ran;
using testing::store_in_tables;
using testing::operator+;

class Scrub : public testing::StoreCommandTest {
 protected:
  /// A store with one damaged entry, whose id is returned, and a sound one.
  std::string damaged_store() {
    const std::string id = compress({"--kv-dtype", "f32"});
    EXPECT_EQ(run(in_store({"export", id, path("one.safetensors")})).status, 0);
    std::filesystem::remove_all(path("store"));
    store_in_tables(path("one.safetensors"), path("store"));
    EXPECT_EQ(damage(path("store"), first_keys(path("one.safetensors"))), 1);
    compress({"--policy", "finch"});
    return id;
  }
};

TEST_F(Scrub, ASoundStoreIsSound) {
  compress();
  const auto told = must_json(in_store({"scrub"}));
  EXPECT_EQ(told["entries"], 1);
  EXPECT_GT(told["bytes"], 0);
  EXPECT_TRUE(told["quarantined"].empty());
  EXPECT_EQ(run(in_store({"verify", "--quarantine"})).status, 0);
  expect_refused(in_store({"scrub", "--rate", "fast"}), 2, "--rate fast");
}

TEST_F(Scrub, DamageGoesIntoQuarantineOnce) {
  const std::string id = damaged_store();
  const Ran first = run(in_store({"scrub", "--rate", "1G"}));
  EXPECT_EQ(first.status, 4) << first.err;
  EXPECT_NE(first.out.find("quarantined " + id), std::string::npos) << first.out;
  EXPECT_NE(first.err.find("quarantine"), std::string::npos) << first.err;
  expect_refused(in_store({"show", id}), 4, "quarantine");
  EXPECT_EQ(run(in_store({"ls", "--json"})).json()["unreadable"], Arguments{id});
  const Ran again = run(in_store({"scrub", "--json"}));
  EXPECT_TRUE(again.json()["quarantined"].empty()) << again.out;
  EXPECT_EQ(again.status, 0) << again.err;
  // It can be removed by its id.
  EXPECT_EQ(must_json(in_store({"rm", id}))["removed"], Arguments{id});
  EXPECT_TRUE(run(in_store({"ls", "--json"})).json()["unreadable"].empty());
}

TEST_F(Scrub, VerifyCanQuarantine) {
  const std::string id = damaged_store();
  EXPECT_EQ(run(in_store({"verify"})).status, 4);
  const Ran told = run(in_store({"verify", "--quarantine", "--json"}));
  EXPECT_EQ(told.status, 4);
  EXPECT_EQ(told.json()["quarantined"], Arguments{id});
  EXPECT_EQ(told.json()["checked"], 2);
  const auto stats = must_json(in_store({"stats"}));
  EXPECT_EQ(stats["unreadable"], 1);
  EXPECT_EQ(stats["store"]["unreadable"], 1);
  EXPECT_EQ(stats["entries"], 1);
}

TEST_F(Scrub, VerifyQuarantinesOnlyWhatItWasAskedAbout) {
  write_document("other.json", 41);
  std::vector<std::string> ids;
  for (const char* doc : {"doc.json", "other.json"}) {
    ids.push_back(compress({"--kv-dtype", "f32"}, doc));
    ASSERT_EQ(run(in_store({"export", ids.back(), path(ids.back())})).status, 0);
  }
  std::filesystem::remove_all(path("store"));
  for (const std::string& id : ids) store_in_tables(path(id), path("store"));
  for (const std::string& id : ids) ASSERT_EQ(damage(path("store"), first_keys(path(id))), 1);
  const Ran one = run(in_store({"verify", ids[0].substr(0, 12), "--quarantine", "--json"}));
  EXPECT_EQ(one.status, 4) << one.err;
  EXPECT_EQ(one.json()["quarantined"], Arguments{ids[0]});
  EXPECT_EQ(run(in_store({"ls", "--json"})).json()["unreadable"], Arguments{ids[0]});
  EXPECT_EQ(run(in_store({"verify", "--quarantine", "--json"})).json()["quarantined"], Arguments{ids[1]});
}

TEST_F(Scrub, WhatIsReadAgainLeavesQuarantine) {
  const std::string id = damaged_store();
  ASSERT_EQ(run(in_store({"scrub"})).status, 4);
  const auto again = must_json(on_tokens("compress") + Arguments{"--kv-dtype", "f32"});
  EXPECT_EQ(again["hit"], false);
  EXPECT_EQ(again["id"], id);
  EXPECT_EQ(run(in_store({"verify"})).status, 0);
  EXPECT_EQ(run(in_store({"scrub"})).status, 0);
}

TEST_F(Scrub, DoctorFindsDamage) {
  damaged_store();
  const auto findings = [&](const Arguments& more) {
    std::map<std::string, bool> ok;
    const auto told = run(in_store({"doctor", "--json"}) + more).json();
    for (const auto& finding : told["findings"]) ok[finding["check"]] = finding["ok"];
    return ok;
  };
  auto ok = findings({"--deep"});
  EXPECT_TRUE(ok["store"]);
  EXPECT_FALSE(ok["digests"]);
  for (const char* check : {"format", "writer", "settings", "disk space", "libraries", "open files"}) {
    EXPECT_TRUE(ok.contains(check) && ok[check]) << check;
  }
  ASSERT_EQ(run(in_store({"scrub"})).status, 4);
  ok = findings({});
  EXPECT_FALSE(ok["store"]) << "an entry is in quarantine";
  EXPECT_TRUE(ok["digests"]);
  expect_refused({"doctor", "--deep"}, 2, "--store");
}

TEST_F(Scrub, DoctorComparesTheLimitWithTheDisk) {
  compress();
  must_json(in_store({"config", "--max-bytes", "1000000T"}));
  const Ran told = run(in_store({"doctor"}));
  EXPECT_EQ(told.status, 1);
  EXPECT_NE(told.out.find("--max-bytes"), std::string::npos) << told.out;
}

TEST_F(Scrub, DoctorSaysWhoWrites) {
  compress();
  auto host = cache_store::open_rocksdb_store(path("store"));
  ASSERT_TRUE(host.is_ok()) << host.status().message();
  const Ran told = run(in_store({"doctor"}));
  EXPECT_NE(told.out.find("process " + std::to_string(::getpid())), std::string::npos) << told.out;
}

TEST_F(Scrub, StatsCountsWhatHappened) {
  const std::string id = compress();
  must_json(on_tokens("ask"));
  compress({"--policy", "finch", "--kv-dtype", "q8"});
  const auto stats = must_json(in_store({"stats"}));
  const auto& store = stats["store"];
  EXPECT_EQ(stats["entries"], 2);
  EXPECT_EQ(store["entries"], 2);
  EXPECT_EQ(store["by_tenant"][""]["entries"], 2);
  EXPECT_EQ(store["by_model"][entries()[id]["model_fingerprint"].get<std::string>()]["stored_bytes"],
            stats["stored_bytes"]);
  EXPECT_EQ(store["by_age"][0]["entries"], 2);
  EXPECT_GE(store["put_bytes"], stats["stored_bytes"]);
  EXPECT_GT(store["write_amplification"], 1.0);
  EXPECT_EQ(store["settings"]["max_bytes"], 0);
  const Ran text = run(in_store({"stats", "--prometheus"}));
  EXPECT_EQ(text.status, 0);
  EXPECT_NE(text.out.find("\nfinchkv_store_entries{store=\"" + path("store") + "\"} 2\n"), std::string::npos);
  EXPECT_EQ(run(in_store({"stats", "--prometheus", "--json"})).status, 2);
  EXPECT_NE(run(in_store({"stats"})).out.find("default tenant"), std::string::npos);
}

}  // namespace
}  // namespace finchkv::cli
