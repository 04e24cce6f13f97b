// Entries sealed at rest, key rotation, and entries shared between tenants.
#include "tests/cli/store_fixture.h"

namespace finchkv::cli {
namespace {

using testing::Arguments;
using testing::Ran;
using testing::read_file;
using testing::write_file;
using testing::operator+;

class Keys : public testing::StoreCommandTest {
 protected:
  void SetUp() override {
    StoreCommandTest::SetUp();
    ASSERT_EQ(run({"key", "new", path("kv.key")}).status, 0);
  }
  Arguments sealed(const std::string& key = "kv.key") const { return {"--encryption-key-file", path(key)}; }
};

TEST_F(Keys, ANewKeyHasAnId) {
  EXPECT_EQ(std::filesystem::status(path("kv.key")).permissions() & std::filesystem::perms::all,
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  const auto ids = must_json({"key", "id", path("kv.key")})["ids"];
  ASSERT_EQ(ids.size(), 1U);
  EXPECT_EQ(ids[0].get<std::string>().size(), 16U);
  expect_refused({"key", "new", path("kv.key")}, 2, "kv.key");
  expect_refused({"key", "id", path("none.key")}, 3, "none.key");
  expect_refused({"key"}, 2, "finchkv key --help");
  EXPECT_EQ(run({"key", "--help"}).status, 0);
}

TEST_F(Keys, SealedEntriesNeedTheirKey) {
  const std::string id = compress(sealed());
  EXPECT_EQ(entries("store", sealed())[id]["sealed"], true);
  EXPECT_EQ(must_json(on_tokens("ask") + sealed())["hit"], true);
  EXPECT_EQ(run(in_store({"verify"}) + sealed()).status, 0);
  EXPECT_EQ(run(in_store({"scrub"})).status, 0) << "digests need no key";
  // Without the key it is listed, but neither read nor replaced.
  EXPECT_EQ(entries()[id]["sealed"], true);
  const Ran without = run(on_tokens("ask"));
  EXPECT_EQ(without.status, 1);
  EXPECT_NE(without.err.find("key"), std::string::npos) << without.err;
  ASSERT_EQ(run({"key", "new", path("other.key")}).status, 0);
  EXPECT_EQ(run(on_tokens("ask") + sealed("other.key")).status, 1);
}

TEST_F(Keys, ACommandMayGiveTheKey) {
  const std::string id = compress(sealed());
  const Arguments command = {"--encryption-key-command", "cat '" + path("kv.key") + "'"};
  EXPECT_EQ(must_json(on_tokens("ask") + command)["hit"], true);
  expect_refused(on_tokens("ask") + command + sealed(), 2, "--encryption-key");
  const Ran failed = run(on_tokens("ask") + Arguments{"--encryption-key-command", "exit 3"});
  EXPECT_EQ(failed.status, 1);
  EXPECT_NE(failed.err.find("--encryption-key-command"), std::string::npos) << failed.err;
}

TEST_F(Keys, RotationKeepsWhatIsStored) {
  const std::string id = compress(sealed());
  const std::string old_key = read_file(path("kv.key"));
  const std::string old_id = must_json({"key", "id", path("kv.key")})["ids"][0];
  const auto told = must_json(in_store({"key", "rotate"}) + sealed());
  EXPECT_EQ(told["rewrapped"], 1);
  const auto ids = must_json({"key", "id", path("kv.key")})["ids"];
  ASSERT_EQ(ids.size(), 2U);
  EXPECT_EQ(ids[0], told["id"]);
  EXPECT_EQ(ids[1], old_id);
  EXPECT_EQ(must_json(on_tokens("ask") + sealed())["hit"], true);
  EXPECT_EQ(must_json(in_store({"key", "rewrap"}) + sealed())["rewrapped"], 0) << "it was done";
  // The old key alone opens nothing any more; the new one alone everything.
  write_file(path("old.key"), old_key);
  const std::string both = read_file(path("kv.key"));
  write_file(path("new.key"), both.substr(0, both.find('\n') + 1));
  for (const char* key : {"old.key", "new.key"}) {
    std::filesystem::permissions(path(key), std::filesystem::perms(0600));
  }
  EXPECT_EQ(run(in_store({"verify"}) + sealed("old.key")).status, 1);
  EXPECT_EQ(run(in_store({"verify"}) + sealed("new.key")).status, 0);
}

TEST_F(Keys, RotationThatCannotBeginMakesNoKey) {
  const std::string before = read_file(path("kv.key"));
  expect_refused(in_store({"key", "rotate"}) + sealed(), 3, "store");
  compress(sealed());
  expect_refused(in_store({"key", "rotate"}), 2, "--encryption-key-file");
  expect_refused(in_store({"key", "rotate"}) + Arguments{"--encryption-key-command", "echo"}, 2, "key rewrap");
  {
    auto host = cache_store::open_rocksdb_store(path("store"));
    ASSERT_TRUE(host.is_ok());
    expect_refused(in_store({"key", "rotate", "--timeout", "0.1"}) + sealed(), 1, "open for writing");
  }
  EXPECT_EQ(read_file(path("kv.key")), before);
}

TEST_F(Keys, CopiesAreSealedAsAskedFor) {
  const std::string id = compress(sealed());
  ASSERT_EQ(run({"key", "new", path("other.key")}).status, 0);
  must_json(in_store({"copy", "--all", "--to", path("same")}) + sealed());
  must_json(in_store({"copy", "--all", "--to", path("theirs"), "--to-encryption-key-file", path("other.key")}) +
            sealed());
  must_json(in_store({"copy", "--all", "--to", path("open"), "--to-unencrypted"}) + sealed());
  EXPECT_EQ(run(Arguments{"verify", "--store", path("same")} + sealed()).status, 0);
  EXPECT_EQ(run(Arguments{"verify", "--store", path("theirs")} + sealed("other.key")).status, 0);
  EXPECT_EQ(run(Arguments{"verify", "--store", path("theirs")} + sealed()).status, 1);
  EXPECT_EQ(entries("open")[id]["sealed"], false);
  EXPECT_EQ(run({"verify", "--store", path("open")}).status, 0);
}

TEST_F(Keys, SharedEntriesAreForEveryTenant) {
  write_file(path("a"), "0123456789abcdef, and more of it");
  write_file(path("b"), "fedcba9876543210, and more of it");
  const Arguments a = {"--tenant", "a", "--tenant-key-file", path("a")};
  const Arguments b = {"--tenant", "b", "--tenant-key-file", path("b")};
  const auto shared = must_json(on_tokens("compress") + a + Arguments{"--share"});
  const auto found = must_json(on_tokens("ask") + b);
  EXPECT_EQ(found["hit"], true);
  EXPECT_EQ(found["id"], shared["id"]);
  const std::string id = shared["id"];
  const auto listed = entries("store", b);
  ASSERT_EQ(listed.size(), 1U) << "everybody may see what is shared";
  EXPECT_EQ(listed[id]["shared"], true);
  const testing::Ran table = run(in_store({"ls"}) + b);
  EXPECT_NE(table.out.find("MARKS"), std::string::npos) << table.out;
  EXPECT_NE(table.out.find("  S"), std::string::npos) << table.out;
  EXPECT_EQ(must_json(in_store({"stats"}) + b)["entries"], 0) << "it is nobody's own";
  EXPECT_EQ(must_json(in_store({"show", id.substr(0, 12)}) + b)["id"], id);
  EXPECT_EQ(must_json(in_store({"show", id}) + b)["shared"], true);
  expect_refused(in_store({"rm", id}) + b, 1, "publisher");
  EXPECT_EQ(must_json(in_store({"stats"}))["store"]["by_tenant"]["*"]["entries"], 1);
  EXPECT_EQ(must_json(in_store({"rm", id, "--publisher"}) + b)["removed"], Arguments{id});
  EXPECT_EQ(must_json(on_tokens("ask") + b)["hit"], false);
}

TEST_F(Keys, ADamagedPrivateEntryIsMendedByAskingToShare) {
  // The default tenant's own entry has the id of the shared one, and is found before it.
  const std::string id = compress({"--kv-dtype", "f32"});
  ASSERT_EQ(run(in_store({"export", id, path("one")})).status, 0);
  std::filesystem::remove_all(path("store"));
  testing::store_in_tables(path("one"), path("store"));
  ASSERT_EQ(testing::damage(path("store"), testing::first_keys(path("one"))), 1);
  const Arguments share = {"--kv-dtype", "f32", "--share"};
  EXPECT_EQ(must_json(on_tokens("compress") + share)["hit"], false);
  EXPECT_EQ(must_json(on_tokens("compress") + share)["hit"], true);
  EXPECT_EQ(must_json(on_tokens("compress") + Arguments{"--kv-dtype", "f32"})["hit"], true);
  EXPECT_EQ(run(in_store({"verify"})).status, 0);
  EXPECT_EQ(entries()[id]["shared"], true);
}

TEST_F(Keys, WhatIsPrivateIsPublishedWithoutReadingItAgain) {
  const std::string own = compress();
  const auto shared = must_json(on_tokens("compress") + Arguments{"--share"});
  EXPECT_EQ(shared["hit"], true);
  write_file(path("a"), "0123456789abcdef, and more of it");
  const auto found = must_json(on_tokens("ask") + Arguments{"--tenant", "a", "--tenant-key-file", path("a")});
  EXPECT_EQ(found["hit"], true);
  EXPECT_EQ(found["id"], own) << "without a key the names are the same";
}

}  // namespace
}  // namespace finchkv::cli
