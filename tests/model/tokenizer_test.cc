#include "model/tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "tests/model/vocab_fixture.h"
#include "tests/test_data.h"

namespace finchkv::model {
namespace {

using testing::byte_vocabulary;
using testing::bytes_of;
using testing::GgufWriter;
using testing::VocabFixture;
using Ids = std::vector<TokenId>;

/// A small vocabulary with an end of turn and a merge across "ab".
VocabFixture small() {
  VocabFixture v = byte_vocabulary();
  v.add("ab");                // 256
  v.add("<|im_end|>", 3);     // 257
  v.add("<|endoftext|>", 3);  // 258
  v.add("[stop]", 3);         // 259
  v.merges = {"a b"};
  v.bos = 258;
  v.eos = 257;
  return v;
}

std::shared_ptr<const Tokenizer> loaded(const VocabFixture& v) {
  auto tokenizer = v.load();
  EXPECT_TRUE(tokenizer.is_ok()) << tokenizer.status().to_string();
  return tokenizer.is_ok() ? *tokenizer : nullptr;
}

Ids ids_of(const Result<Ids>& ids) {
  EXPECT_TRUE(ids.is_ok()) << ids.status().to_string();
  return ids.is_ok() ? *ids : Ids{-1};
}

TEST(Tokenizer, SegmentsAreOneText) {
  const auto t = loaded(small());
  const std::vector<Tokenizer::Segment> across = {{"a", true}, {"b", false}};
  EXPECT_EQ(ids_of(t->encode(across)), (Ids{256}));
  const std::vector<Tokenizer::Segment> mixed = {{"x<|im_end|>", true}, {"a<|im_end|>", false}, {"<|im_end|>b", true}};
  Ids want = {'x', 257, 'a'};
  for (const TokenId id : bytes_of("<|im_end|>")) want.push_back(id);
  want.push_back(257);
  want.push_back('b');
  EXPECT_EQ(ids_of(t->encode(mixed)), want);
}

TEST(Tokenizer, ASpecialTokenCannotBePiecedTogether) {
  const auto t = loaded(small());
  const std::vector<Tokenizer::Segment> pieces = {{"<|im_", true}, {"end", false}, {"|>", true}};
  EXPECT_EQ(ids_of(t->encode(pieces)), bytes_of("<|im_end|>"));
  const std::vector<Tokenizer::Segment> both_parse = {{"<|im_", true}, {"end|>", true}};
  EXPECT_EQ(ids_of(t->encode(both_parse)), bytes_of("<|im_end|>"));
}

TEST(Tokenizer, TurnTokensMarkedAsTextAreControlTokensAllTheSame) {
  VocabFixture v = small();
  v.types[257] = 4;
  const TokenId start = v.add("<|im_start|>", 4);
  const auto t = loaded(v);
  EXPECT_EQ(ids_of(t->encode("<|im_end|>", false)), bytes_of("<|im_end|>"));
  EXPECT_EQ(ids_of(t->encode("<|im_start|>", false)), bytes_of("<|im_start|>"));
  EXPECT_EQ(ids_of(t->encode("<|im_start|>", true)), (Ids{start}));
}

TEST(Tokenizer, EndTokens) {
  VocabFixture v = small();
  v.eos = 256;
  v.eot = 259;
  const auto t = loaded(v);
  std::set<TokenId> ends;
  for (TokenId id = -1; id <= t->vocab_size(); ++id)
    if (t->is_end(id)) ends.insert(id);
  EXPECT_EQ(ends, (std::set<TokenId>{256, 257, 258, 259}));  // eos, <|im_end|>, <|endoftext|>, eot
}

TEST(Tokenizer, BosIsAddedOnlyWhereTheFileSays) {
  VocabFixture v = small();
  EXPECT_FALSE(loaded(v)->add_bos());
  EXPECT_EQ(loaded(v)->bos(), 258);
  v.add_bos = true;
  EXPECT_TRUE(loaded(v)->add_bos());
  v.bos.reset();
  const auto t = v.load();
  ASSERT_FALSE(t.is_ok());
  EXPECT_EQ(t.status().code(), StatusCode::kCorrupt);
}

TEST(Tokenizer, FingerprintNamesEverythingThatMatters) {
  const auto change = [](auto edit) {
    VocabFixture v = small();
    edit(v);
    return loaded(v)->fingerprint();
  };
  std::set<std::string> seen;
  seen.insert(change([](VocabFixture&) {}));
  EXPECT_EQ(seen.begin()->size(), 64U);
  EXPECT_TRUE(seen.contains(change([](VocabFixture& v) { v.chat_template = "is no part of a tokenizer"; })));
  seen.insert(change([](VocabFixture& v) { v.pre = "qwen2"; }));
  seen.insert(change([](VocabFixture& v) { v.tokens[256] = "ac"; }));
  seen.insert(change([](VocabFixture& v) { v.types[256] = 4; }));
  seen.insert(change([](VocabFixture& v) { v.merges = {"a c"}; }));
  seen.insert(change([](VocabFixture& v) { v.merges = {"a b", "b c"}; }));
  seen.insert(change([](VocabFixture& v) { v.add_bos = true; }));
  seen.insert(change([](VocabFixture& v) { v.bos = 3; }));
  seen.insert(change([](VocabFixture& v) { v.eos = 3; }));
  seen.insert(change([](VocabFixture& v) { v.unknown = 3; }));
  EXPECT_EQ(seen.size(), 10U);
}

TEST(Tokenizer, LyingListsAreCorrupt) {
  const auto refused = [](auto edit, const char* key) {
    VocabFixture v = small();
    edit(v);
    const auto t = v.load();
    ASSERT_FALSE(t.is_ok()) << key;
    EXPECT_EQ(t.status().code(), StatusCode::kCorrupt);
    EXPECT_NE(t.status().message().find(key), std::string::npos) << t.status().message();
  };
  refused([](VocabFixture& v) { v.types.pop_back(); }, "tokenizer.ggml.token_type");
  refused([](VocabFixture& v) { v.types[3] = 77; }, "tokenizer.ggml.token_type[3]");
  refused([](VocabFixture& v) { v.types[3] = -1; }, "tokenizer.ggml.token_type[3]");
  refused([](VocabFixture& v) { v.bos = 260; }, "tokenizer.ggml.bos_token_id");
  refused([](VocabFixture& v) { v.eos = 4000000000U; }, "tokenizer.ggml.eos_token_id");
  refused(
      [](VocabFixture& v) {
        v.kind = "llama";
        v.scores.pop_back();
      },
      "tokenizer.ggml.scores");
}

TEST(Tokenizer, UnknownKindsAreRefusedByName) {
  VocabFixture v = small();
  v.kind = "bert";
  const auto t = v.load();
  ASSERT_FALSE(t.is_ok());
  EXPECT_EQ(t.status().code(), StatusCode::kUnsupported);
  EXPECT_NE(t.status().message().find("bert"), std::string::npos);
}

TEST(Tokenizer, AFileWithoutAVocabularyLoads) {
  GgufWriter w;
  w.set_string("general.architecture", "llama");
  w.set_u32("llama.vocab_size", 320);
  const auto t = VocabFixture::load_tokenizer(w.finish());
  ASSERT_TRUE(t.is_ok()) << t.status().to_string();
  EXPECT_EQ((*t)->kind(), "none");
  EXPECT_EQ((*t)->vocab_size(), 320);
  EXPECT_EQ((*t)->encode("a", false).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ((*t)->encode(std::vector<Tokenizer::Segment>{}).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ((*t)->decode(Ids{1, 2}), "");
}

TEST(Utf8, CompletePrefix) {
  EXPECT_EQ(complete_utf8_prefix(""), 0U);
  EXPECT_EQ(complete_utf8_prefix("abc"), 3U);
  const std::string text = "a\xe6\x97\xa5\xf0\x9f\x91\xa9";  // a, a three-byte and a four-byte character
  const std::size_t want[] = {0, 1, 1, 1, 4, 4, 4, 4, 8};
  for (std::size_t n = 0; n <= text.size(); ++n) EXPECT_EQ(complete_utf8_prefix(text.substr(0, n)), want[n]) << n;
  // What no byte can complete is shown as it is.
  EXPECT_EQ(complete_utf8_prefix("a\xff"), 2U);
  EXPECT_EQ(complete_utf8_prefix("a\x80"), 2U);
  EXPECT_EQ(complete_utf8_prefix("a\xe0\x80"), 3U);      // overlong
  EXPECT_EQ(complete_utf8_prefix("a\xed\xa0"), 3U);      // a surrogate
  EXPECT_EQ(complete_utf8_prefix("a\xf4\x90"), 3U);      // past U+10FFFF
  EXPECT_EQ(complete_utf8_prefix("a\xe6\xe6\x97"), 2U);  // the second one may be completed
}

class Smollm2 : public ::testing::Test {
 protected:
  void SetUp() override {
    FINCHKV_REQUIRE_SMOLLM2(path);
    auto file = GgufFile::open(path);
    ASSERT_TRUE(file.is_ok()) << file.status().to_string();
    auto tokenizer = Tokenizer::from_gguf(**file);
    ASSERT_TRUE(tokenizer.is_ok()) << tokenizer.status().to_string();
    tokenizer_ = *tokenizer;
    std::ifstream in(testing::data_path("smollm2.json"));
    golden_ = nlohmann::json::parse(in);
  }
  std::shared_ptr<const Tokenizer> tokenizer_;
  nlohmann::json golden_;
};

TEST_F(Smollm2, GoldenTokenizations) {
  for (const bool special : {true, false}) {
    const auto& cases = golden_.at(special ? "tokenize" : "tokenize_plain");
    ASSERT_FALSE(cases.empty());
    for (const auto& pair : cases) {
      const auto text = pair.at(0).get<std::string>();
      EXPECT_EQ(ids_of(tokenizer_->encode(text, special)), pair.at(1).get<Ids>()) << text;
      EXPECT_EQ(tokenizer_->decode(pair.at(1).get<Ids>(), true), text);
    }
  }
}

TEST_F(Smollm2, WhatTheFileSays) {
  EXPECT_EQ(tokenizer_->kind(), "gpt2");
  EXPECT_EQ(tokenizer_->vocab_size(), 49152);
  EXPECT_EQ(tokenizer_->bos(), 1);
  EXPECT_FALSE(tokenizer_->add_bos());
  EXPECT_TRUE(tokenizer_->is_end(2));
  EXPECT_TRUE(tokenizer_->is_end(0));
  EXPECT_FALSE(tokenizer_->is_end(1));
  EXPECT_EQ(tokenizer_->decode(golden_.at("full").at("greedy").get<Ids>()), golden_.at("full").at("text"));
}

}  // namespace
}  // namespace finchkv::model
