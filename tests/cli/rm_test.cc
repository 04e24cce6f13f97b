// rm: by id and by what entries were made from; what it refuses, and what a dry run says.
#include <set>

#include "tests/cli/store_fixture.h"

namespace finchkv::cli {
namespace {

using testing::Arguments;
using testing::Ran;
using testing::operator+;

class Rm : public testing::StoreCommandTest {
 protected:
  std::set<std::string> ids() {
    std::set<std::string> out;
    const nlohmann::json listed = entries();
    for (const auto& item : listed.items()) out.insert(item.key());
    return out;
  }
  std::set<std::string> removed(const Arguments& which) {
    const auto told = must_json(in_store(Arguments{"rm"} + which));
    return told["removed"].get<std::set<std::string>>();
  }
};

TEST_F(Rm, ABareRmIsRefused) {
  compress();
  expect_refused(in_store({"rm"}), 2, "--all-of-tenant");
  EXPECT_EQ(ids().size(), 1U);
}

TEST_F(Rm, ASlipOfThePenRemovesNothing) {
  const std::string id = compress();
  expect_refused(in_store({"rm", id, "ffffffffffff"}), 3, "ffffffffffff");
  expect_refused(in_store({"rm", id, std::string(64, '0')}), 3, std::string(64, '0'));
  expect_refused(in_store({"rm", id, "--all-of-tenant"}), 2, "leave it out");
  expect_refused(in_store({"rm", "--system", "x", "--label", "*"}), 2, "--doc");
  EXPECT_EQ(ids().size(), 1U);
}

TEST_F(Rm, ByLabel) {
  compress({"--label", "report 2023: a"});
  const std::string other = compress({"--label", "notes", "--policy", "finch"});
  compress({"--label", "report 2024", "--policy", "streaming"});
  EXPECT_EQ(removed({"--label", "report*"}).size(), 2U);
  EXPECT_EQ(ids(), std::set<std::string>{other});
  EXPECT_TRUE(removed({"--label", "report*"}).empty());
}

TEST_F(Rm, ByDocument) {
  write_document("other.json", 41);
  const std::string one = compress();
  const std::string same = compress({"--policy", "finch"});
  const std::string other = compress({}, "other.json");
  EXPECT_EQ(removed({"--doc-tokens", path("doc.json")}), (std::set<std::string>{one, same}));
  EXPECT_EQ(ids(), std::set<std::string>{other});
}

TEST_F(Rm, ByDocumentOfANamedTenant) {
  testing::write_file(path("key"), "0123456789abcdef, and more of it");
  const Arguments tenant = {"--tenant", "acme", "--tenant-key-file", path("key")};
  const std::string theirs = compress(tenant);
  const std::string mine = compress();
  EXPECT_EQ(removed(Arguments{"--doc-tokens", path("doc.json")} + tenant), std::set<std::string>{theirs});
  EXPECT_EQ(ids(), std::set<std::string>{mine});
}

TEST_F(Rm, ByModel) {
  const std::string id = compress();
  const std::string model = entries()[id]["model_fingerprint"];
  const std::string weights = entries()[id]["weights_fingerprint"];
  const auto would = [&](const std::string& name) {
    return must_json(in_store({"rm", "--dry-run", "--model", name}))["would_remove"].size();
  };
  EXPECT_EQ(would(model_), 1U);
  EXPECT_EQ(would(testing::data_path("tiny-qwen2/model.gguf")), 0U);
  EXPECT_EQ(would(model), 1U);
  EXPECT_EQ(would(model.substr(0, 12)), 1U);
  EXPECT_EQ(would(weights.substr(0, 8)), 1U);
  EXPECT_EQ(would(std::string(64, '0')), 0U);
  expect_refused(in_store({"rm", "--model", model.substr(0, 7)}), 3, "8 hex digits");
  expect_refused(in_store({"rm", "--model", path("gone.gguf")}), 3, "gone.gguf");
  EXPECT_EQ(removed({"--model", model.substr(0, 12)}), std::set<std::string>{id});
}

TEST_F(Rm, ConditionsNarrow) {
  const std::string a = compress({"--label", "a"});
  const std::string b = compress({"--label", "b", "--policy", "finch"});
  EXPECT_TRUE(removed({"--label", "a", "--model", std::string(64, '0')}).empty());
  EXPECT_TRUE(removed({b, "--label", "a"}).empty());
  EXPECT_EQ(removed({a, b, "--label", "a", "--model", model_}), std::set<std::string>{a});
  EXPECT_EQ(ids(), std::set<std::string>{b});
}

TEST_F(Rm, ADryRunRemovesNothingAndSaysWhat) {
  const std::string id = compress({"--label", "a\tlabel"});
  const Ran ran = run(in_store({"rm", "--all-of-tenant", "--dry-run"}));
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out.rfind("would remove " + id, 0), 0U) << ran.out;
  EXPECT_EQ(ran.out.find('\t'), std::string::npos);
  EXPECT_NE(ran.err.find("1 entry would go"), std::string::npos) << ran.err;
  const auto told = must_json(in_store({"rm", "--all-of-tenant", "--dry-run"}));
  EXPECT_EQ(told["would_remove"][0]["id"], id);
  EXPECT_EQ(told["bytes"], entries()[id]["bytes"]);
  EXPECT_EQ(ids(), std::set<std::string>{id});
}

TEST_F(Rm, AllOfTenantLeavesTheOthersAlone) {
  testing::write_file(path("key"), "0123456789abcdef, and more of it");
  const Arguments tenant = {"--tenant", "acme", "--tenant-key-file", path("key")};
  compress(tenant);
  const std::string mine = compress();
  EXPECT_EQ(removed(Arguments{"--all-of-tenant"} + tenant).size(), 1U);
  EXPECT_TRUE(entries("store", tenant).empty());
  EXPECT_EQ(ids(), std::set<std::string>{mine});
}

TEST_F(Rm, ATextIsFoundThroughTheModelsTokenizer) {
  FINCHKV_REQUIRE_SMOLLM2(model);
  testing::write_file(path("a.txt"), "The harbour of Tollan is painted blue.");
  testing::write_file(path("b.txt"), "The harbour of Tollan is painted red.");
  const auto read = [&](const std::string& doc, const Arguments& more) {
    const Ran ran = run(Arguments{"compress", "--model", model, "--store", path("store"), "--doc", path(doc),
                                  "--prompt", "Which colour?", "--quiet"} +
                        more);
    EXPECT_EQ(ran.status, 0) << ran.err;
    return ran.out.substr(0, 64);
  };
  const std::string a = read("a.txt", {});
  const std::string system = read("a.txt", {"--system", "Be brief."});
  const std::string b = read("b.txt", {});
  expect_refused(in_store({"rm", "--doc", path("a.txt")}), 2, "--model FILE");
  EXPECT_EQ(removed({"--doc", path("a.txt"), "--model", model}), std::set<std::string>{a});
  EXPECT_EQ(removed({"--doc", path("a.txt"), "--model", model, "--system", "Be brief."}),
            std::set<std::string>{system});
  EXPECT_EQ(ids(), std::set<std::string>{b});
}

}  // namespace
}  // namespace finchkv::cli
