// copy, warm, and archives: entries move between stores with all that is kept about them, and damage is noticed.
#include "tests/cli/store_fixture.h"

namespace finchkv::cli {
namespace {

using testing::Arguments;
using testing::Ran;
using testing::read_file;
using testing::write_file;
using testing::operator+;

class Copy : public testing::StoreCommandTest {
 protected:
  /// What goes along: everything but hits and last use.
  static nlohmann::json lasting(nlohmann::json entry) {
    entry.erase("hits");
    entry.erase("last_used_unix_ms");
    return entry;
  }
  void expect_same(const std::string& id, const nlohmann::json& here, const nlohmann::json& there) {
    ASSERT_TRUE(here.contains(id) && there.contains(id)) << id;
    EXPECT_EQ(lasting(here[id]), lasting(there[id]));
  }
  nlohmann::json origins(const std::string& id, const std::string& store) {
    return run({"show", id, "--store", path(store), "--json"}).json()["origins"];
  }
};

TEST_F(Copy, EverythingGoesAlong) {
  const std::string a = compress({"--label", "one", "--pin", "--ttl", "3d"});
  const std::string b = compress({"--policy", "finch", "--kv-dtype", "q8"});
  const auto told = must_json(in_store({"copy", "--all", "--to", path("other")}));
  EXPECT_EQ(told["copied"].size(), 2U);
  EXPECT_EQ(told["already_there"], 0);
  const auto here = entries();
  const auto there = entries("other");
  EXPECT_EQ(there.size(), 2U);
  expect_same(a, here, there);
  expect_same(b, here, there);
  EXPECT_EQ(origins(a, "other"), origins(a, "store"));
  EXPECT_EQ(run({"verify", "--store", path("other")}).status, 0);
}

TEST_F(Copy, WhatIsThereStays) {
  const std::string id = compress({"--label", "mine"});
  must_json(in_store({"copy", id, "--to", path("other")}));
  must_json({"label", id, "theirs", "--store", path("other")});
  const Ran again = run(in_store({"copy", id.substr(0, 10), "--to", path("other")}));
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_NE(again.out.find("1 was already there"), std::string::npos) << again.out;
  EXPECT_EQ(entries("other")[id]["label"], "theirs");
}

TEST_F(Copy, WhatNeverExpiresDoesNotBeginTo) {
  const std::string id = compress();
  must_json({"config", "--store", path("other"), "--ttl", "1h"});
  must_json(in_store({"copy", id, "--to", path("other")}));
  EXPECT_EQ(entries("other")[id]["expires_unix_ms"], 0);
}

TEST_F(Copy, AnEntryAnswersWhereItWasCopiedTo) {
  const auto here = must_json(on_tokens("ask") + Arguments{"--max-tokens", "6"});
  must_json(in_store({"copy", "--all", "--to", path("other")}));
  Arguments there = on_tokens("ask") + Arguments{"--max-tokens", "6"};
  *std::find(there.begin(), there.end(), path("store")) = path("other");
  const auto elsewhere = must_json(there);
  EXPECT_EQ(elsewhere["hit"], true);
  EXPECT_EQ(elsewhere["answer_tokens"], here["answer_tokens"]);
}

TEST_F(Copy, ATenantsEntriesStayTheTenants) {
  write_file(path("key"), "0123456789abcdef, and more of it");
  const Arguments tenant = {"--tenant", "acme", "--tenant-key-file", path("key")};
  const std::string id = compress(tenant);
  compress();
  EXPECT_EQ(must_json(in_store({"copy", "--all", "--to", path("other")}) + tenant)["copied"].size(), 1U);
  EXPECT_TRUE(entries("other").empty());
  EXPECT_TRUE(entries("other", tenant).contains(id));
}

TEST_F(Copy, WhatIsWrongIsRefused) {
  const std::string id = compress();
  expect_refused(in_store({"copy", "--to", path("other")}), 2, "--all");
  expect_refused(in_store({"copy", id}), 2, "--to");
  expect_refused(in_store({"copy", "ffffffff", "--to", path("other")}), 3, "ffffffff");
  EXPECT_FALSE(std::filesystem::exists(path("other")));
  std::filesystem::create_directory(path("photos"));
  write_file(path("photos") + "/holiday.jpg", "a picture");
  expect_refused(in_store({"copy", id, "--to", path("photos")}), 2, "photos");
}

TEST_F(Copy, WarmReadsEveryByteAndIsNoHit) {
  const std::string id = compress({"--label", "faq 1"});
  compress({"--policy", "finch"});
  const auto before = entries();
  const auto told = must_json(in_store({"warm", "--label", "faq*"}));
  EXPECT_EQ(told["entries"], 1);
  EXPECT_EQ(told["bytes"], before[id]["bytes"]);
  EXPECT_GT(told["bytes_per_s"], 0);
  EXPECT_EQ(must_json(in_store({"warm", "--all"}))["entries"], 2);
  EXPECT_EQ(entries()[id]["hits"], before[id]["hits"]);
  EXPECT_NE(run(in_store({"warm", id})).out.find("per second"), std::string::npos);
  expect_refused(in_store({"warm"}), 2, "--all");
}

TEST_F(Copy, AnArchiveGoesOutAndComesBack) {
  const std::string a = compress({"--label", "one", "--pin", "--ttl", "3d"});
  const std::string b = compress({"--policy", "finch"});
  const auto out = must_json(in_store({"export", "--all", path("all.finchkv")}));
  EXPECT_EQ(out["entries"], 2);
  EXPECT_EQ(out["bytes"], std::filesystem::file_size(path("all.finchkv")));
  const Ran in = run({"import", path("all.finchkv"), "--store", path("other")});
  EXPECT_EQ(in.status, 0) << in.err;
  EXPECT_EQ(in.out, std::min(a, b) + "\n" + std::max(a, b) + "\n");
  EXPECT_NE(in.err.find("2 entries imported"), std::string::npos) << in.err;
  auto here = entries();
  for (const std::string& id : {a, b}) here[id]["provenance"] = "imported";
  expect_same(a, here, entries("other"));
  expect_same(b, here, entries("other"));
  EXPECT_EQ(run({"verify", "--store", path("other")}).status, 0);
  EXPECT_NE(run({"import", path("all.finchkv"), "--store", path("other")}).err.find("2 were already there"),
            std::string::npos);
}

TEST_F(Copy, AnArchiveGoesThroughPipes) {
  const std::string id = compress();
  const Ran out = run(in_store({"export", "--all", "-"}));
  EXPECT_EQ(out.status, 0) << out.err;
  EXPECT_EQ(out.out.rfind("finchkv archive\n", 0), 0U);
  const auto in = must_json({"import", "-", "--store", path("other")}, out.out);
  EXPECT_EQ(in["imported"], Arguments{id});
  expect_refused(in_store({"export", "--all", "-", "--json"}), 2, "standard output");
  // A single safetensors file comes through a pipe too.
  ASSERT_EQ(run(in_store({"export", id, path("one.safetensors")})).status, 0);
  const auto one = must_json({"import", "-", "--store", path("third")}, read_file(path("one.safetensors")));
  EXPECT_EQ(one["id"], id);
}

TEST_F(Copy, SomeGoIntoAnArchive) {
  const std::string a = compress({"--label", "a"});
  const std::string b = compress({"--label", "b", "--policy", "finch"});
  const auto imported = [&](const Arguments& which) {
    EXPECT_EQ(run(in_store(Arguments{"export"} + which)).status, 0);
    std::filesystem::remove_all(path("other"));
    return must_json({"import", path("some"), "--store", path("other")})["imported"].get<Arguments>();
  };
  EXPECT_EQ(imported({"--label", "a", path("some")}), Arguments{a});
  EXPECT_EQ(imported({b.substr(0, 9), "--archive", path("some")}), Arguments{b});
  EXPECT_EQ(imported({a, b, path("some")}).size(), 2U);
  expect_refused(in_store({"export", path("some")}), 2, "--all");
  expect_refused(in_store({"export"}), 2, "file is required");
  expect_refused(in_store({"export", "--all", "--rope", "5", path("some")}), 2, "--rope");
}

TEST_F(Copy, ADamagedArchiveIsToldAtItsEntry) {
  compress();
  compress({"--policy", "finch"});
  ASSERT_EQ(run(in_store({"export", "--all", path("all")})).status, 0);
  const std::string whole = read_file(path("all"));
  const auto import = [&](const std::string& bytes) {
    write_file(path("bad"), bytes);
    std::filesystem::remove_all(path("other"));
    return run({"import", path("bad"), "--store", path("other"), "--json"});
  };
  std::string flipped = whole;
  flipped[whole.size() - 2000] = static_cast<char>(flipped[whole.size() - 2000] ^ 1);
  Ran ran = import(flipped);
  EXPECT_EQ(ran.status, 4) << ran.err;
  EXPECT_NE(ran.err.find("bad"), std::string::npos) << ran.err;
  EXPECT_EQ(ran.json()["imported"].size(), 1U) << "the one before the damage is sound";
  ran = import(whole.substr(0, whole.size() - 10));
  EXPECT_EQ(ran.status, 4) << ran.err;
  EXPECT_EQ(ran.json()["imported"].size(), 2U);
  ran = import(whole + "more");
  EXPECT_EQ(ran.status, 4) << ran.err;
  ran = import(whole.substr(0, 20));
  EXPECT_EQ(ran.status, 4) << ran.err;
  EXPECT_FALSE(std::filesystem::exists(path("other"))) << "what is no archive makes no store";
}

TEST_F(Copy, AnExportThatFailsLeavesTheOldFile) {
  write_file(path("all"), "what was there");
  compress();
  EXPECT_EQ(run(in_store({"export", "--all", path("none/all")})).status, 3);
  expect_refused(in_store({"export", std::string(64, '0'), "--archive", path("all")}), 3, "0000");
  EXPECT_EQ(read_file(path("all")), "what was there");
  for (const auto& file : std::filesystem::directory_iterator(path("."))) {
    EXPECT_EQ(file.path().filename().string().find("all."), std::string::npos) << file.path();
  }
}

TEST_F(Copy, ATenantsArchiveIsForThatTenant) {
  write_file(path("key"), "0123456789abcdef, and more of it");
  const Arguments tenant = {"--tenant", "acme", "--tenant-key-file", path("key")};
  const std::string id = compress(tenant);
  ASSERT_EQ(run(in_store({"export", "--all", path("all")}) + tenant).status, 0);
  const Ran other = run({"import", path("all"), "--store", path("other")});
  EXPECT_EQ(other.status, 4) << "its document's hash was made with another key: " << other.err;
  EXPECT_TRUE(must_json(Arguments{"import", path("all"), "--store", path("other")} + tenant)["imported"] ==
              Arguments{id});
}

}  // namespace
}  // namespace finchkv::cli
