// compress with several documents: a line or an object for each, and failures that leave the others going.
#include <gtest/gtest.h>

#include <sstream>

#include "tests/cli/store_fixture.h"

namespace finchkv {
namespace {

using testing::Arguments;
using testing::Ran;
using testing::operator+;
using testing::write_file;

class CompressMany : public testing::StoreCommandTest {
 protected:
  void SetUp() override {
    StoreCommandTest::SetUp();
    for (const int step : {41, 43, 47}) write_document("doc" + std::to_string(step) + ".json", step);
    write_file(path("outside.json"), "[1, 2, 99999]");
  }
  Arguments documents(const std::vector<std::string>& names) const {
    Arguments all = {"compress",          "--model", model_, "--store", path("store"), "--prompt-tokens",
                     path("prompt.json"), "--keep",  "24",   "--chunk", "32"};
    for (const std::string& name : names) all = all + Arguments{"--doc-tokens", path(name)};
    return all;
  }
  static std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> all;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) all.push_back(line);
    return all;
  }
};

TEST_F(CompressMany, EachGetsTheEntryThatItGetsAlone) {
  const std::vector<std::string> names = {"doc41.json", "doc.json", "doc43.json"};
  const Ran together = run(documents(names));
  ASSERT_EQ(together.status, 0) << together.err;
  const auto told = lines(together.out);
  ASSERT_EQ(told.size(), names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto alone = run(on_tokens("compress", "", names[i]) + Arguments{"--json"}).json();
    EXPECT_EQ(alone["hit"], true);
    EXPECT_EQ(told[i], alone["id"].get<std::string>() + "  " + path(names[i]));
  }
  EXPECT_NE(together.err.find("3 documents read, 288 tokens"), std::string::npos) << together.err;
}

TEST_F(CompressMany, WhatIsThereIsNotReadAgain) {
  const auto first = run(on_tokens("compress") + Arguments{"--json"}).json();
  const Ran ran = run(documents({"doc41.json", "doc.json", "doc41.json"}) + Arguments{"--json"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  const auto told = lines(ran.out);
  ASSERT_EQ(told.size(), 3U);
  std::vector<nlohmann::json> objects;
  objects.reserve(told.size());
  for (const std::string& line : told) objects.push_back(nlohmann::json::parse(line, nullptr, false));
  EXPECT_EQ(objects[0]["hit"], false);
  EXPECT_EQ(objects[0]["doc"], path("doc41.json"));
  EXPECT_GT(objects[0]["ms"]["compress"], 0);
  EXPECT_EQ(objects[0]["kept"], 24);
  EXPECT_EQ(objects[1]["kept"], 24);
  EXPECT_EQ(objects[1]["hit"], true);
  EXPECT_EQ(objects[1]["id"], first["id"]);
  EXPECT_EQ(objects[2]["hit"], true) << "the same document twice is read once";
  EXPECT_EQ(objects[2]["id"], objects[0]["id"]);
  EXPECT_EQ(run(in_store({"ls", "--json"})).json()["entries"].size(), 2U);
}

TEST_F(CompressMany, OneThatFailsLeavesTheOthersGoing) {
  const std::vector<std::string> names = {"outside.json", "doc41.json", "absent.json", "doc43.json"};
  const Ran ran = run(documents(names));
  EXPECT_EQ(ran.status, 2);  // of the first: an id that no vocabulary has
  EXPECT_EQ(lines(ran.out).size(), 2U);
  EXPECT_NE(ran.err.find("outside.json: "), std::string::npos) << ran.err;
  EXPECT_NE(ran.err.find("99999"), std::string::npos) << ran.err;
  EXPECT_NE(ran.err.find("absent.json"), std::string::npos) << ran.err;
  EXPECT_NE(ran.err.find("2 of 4 documents failed"), std::string::npos) << ran.err;
  const Ran json = run(documents(names) + Arguments{"--json", "--quiet"});
  EXPECT_EQ(json.status, 2);
  const auto told = lines(json.out);
  ASSERT_EQ(told.size(), 4U);
  EXPECT_EQ(nlohmann::json::parse(told[0], nullptr, false)["error"]["code"], "invalid_argument");
  EXPECT_EQ(nlohmann::json::parse(told[1], nullptr, false)["hit"], true);
}

TEST_F(CompressMany, TextsGoWithOnePrompt) {
  write_file(path("a.txt"), "one text");
  write_file(path("b.txt"), "");
  const Ran ran = run({"compress", "--model", model_, "--no-store", "--doc", path("a.txt"), "--doc", path("b.txt"),
                       "--prompt", "what?", "--keep", "4", "--template", "plain"});
  EXPECT_EQ(ran.status, 1);  // of the first: this model's vocabulary has ids only
  EXPECT_NE(ran.err.find("a.txt: "), std::string::npos) << ran.err;
  EXPECT_NE(ran.err.find("b.txt: the document is empty"), std::string::npos) << ran.err;
  EXPECT_NE(ran.err.find("2 of 2 documents failed"), std::string::npos) << ran.err;
}

TEST_F(CompressMany, WrongUsageIsTwo) {
  for (const Arguments& wrong : std::vector<Arguments>{{"--gpus", "0"}, {"--gpus", "2", "--device", "cpu"}}) {
    const Ran ran = run(documents({"doc.json", "doc41.json"}) + wrong);
    EXPECT_EQ(ran.status, 2) << ran.err;
    EXPECT_NE(ran.err.find("--gpus"), std::string::npos) << ran.err;
  }
  const Ran twice = run({"compress", "--model", model_, "--no-store", "--doc", "-", "--doc", "-", "--prompt", "what?"});
  EXPECT_EQ(twice.status, 2);
  EXPECT_NE(twice.err.find("standard input"), std::string::npos) << twice.err;
  const Ran ask = run(on_tokens("ask") + Arguments{"--doc-tokens", path("doc41.json")});
  EXPECT_EQ(ask.status, 2) << "ask answers from one document";
}

}  // namespace
}  // namespace finchkv
