#include "model/bpe_tokenizer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/model/vocab_fixture.h"

namespace finchkv::model {
namespace {

using testing::byte_vocabulary;
using testing::bytes_of;
using testing::VocabFixture;
using Ids = std::vector<TokenId>;

Ids encode(const VocabFixture& v, std::string_view text, bool parse_special = false) {
  const auto tokenizer = v.load();
  EXPECT_TRUE(tokenizer.is_ok()) << tokenizer.status().to_string();
  if (!tokenizer.is_ok()) return {-1};
  const auto ids = (*tokenizer)->encode(text, parse_special);
  EXPECT_TRUE(ids.is_ok()) << ids.status().to_string();
  return ids.is_ok() ? *ids : Ids{-1};
}

// "\xc4\xa0" is U+0120, how GPT-2 writes a blank.
VocabFixture hello() {
  VocabFixture v = byte_vocabulary();
  for (const char* token : {"he", "ll", "hell", "hello", "\xc4\xa0hello"}) v.add(token);  // 256..260
  v.merges = {"h e", "l l", "he ll", "hell o", "\xc4\xa0 hello"};
  return v;
}

TEST(BpeTokenizer, MergesByRank) {
  EXPECT_EQ(encode(hello(), "hello"), (Ids{259}));
  EXPECT_EQ(encode(hello(), "hello hello"), (Ids{259, 260}));
  EXPECT_EQ(encode(hello(), "hel"), (Ids{256, 'l'}));
  EXPECT_EQ(encode(hello(), "hell no"), (Ids{258, ' ', 'n', 'o'}));
  EXPECT_EQ(encode(hello(), ""), (Ids{}));
}

TEST(BpeTokenizer, TheLowerRankWinsOverTheEarlierPlace) {
  VocabFixture v = byte_vocabulary();
  v.add("bc");  // 256
  v.add("ab");  // 257
  v.merges = {"b c", "a b"};
  EXPECT_EQ(encode(v, "abc"), (Ids{'a', 256}));
  EXPECT_EQ(encode(v, "abab"), (Ids{257, 257}));
}

TEST(BpeTokenizer, EqualRanksMergeFromTheLeft) {
  VocabFixture v = byte_vocabulary();
  v.add("aa");    // 256
  v.add("aaaa");  // 257
  v.merges = {"a a", "aa aa"};
  EXPECT_EQ(encode(v, "aaa"), (Ids{256, 'a'}));
  EXPECT_EQ(encode(v, "aaaaaaa"), (Ids{257, 256, 'a'}));
}

TEST(BpeTokenizer, ALongWordMergesAsAShortOne) {
  VocabFixture v = byte_vocabulary();
  v.add("aa");
  v.add("aaaa");
  v.merges = {"a a", "aa aa"};
  Ids want(50000, 257);
  want.push_back('a');
  EXPECT_EQ(encode(v, std::string(200001, 'a')), want);
}

TEST(BpeTokenizer, MergesPassThroughStringsThatAreNoTokens) {
  VocabFixture v = byte_vocabulary();
  v.add("xyz");  // 256; "xy" is no token
  v.merges = {"x y", "xy z"};
  EXPECT_EQ(encode(v, "xyz"), (Ids{256}));
  EXPECT_EQ(encode(v, "xyy"), bytes_of("xyy"));
}

TEST(BpeTokenizer, AByteWithoutATokenIsDropped) {
  VocabFixture v = hello();
  v.tokens[0xFF] = "something else";
  EXPECT_EQ(encode(v,
                   "a\xff"
                   "b"),
            (Ids{'a', 'b'}));
}

TEST(BpeTokenizer, AnyBytesAreText) {
  const std::string text("\xff\xfe\xe6\x97 \0 \xc0\xaf\xed\xa0\x80", 12);
  const auto tokenizer = hello().load();
  ASSERT_TRUE(tokenizer.is_ok());
  const auto ids = (*tokenizer)->encode(text, true);
  ASSERT_TRUE(ids.is_ok());
  EXPECT_EQ(*ids, bytes_of(text));
  EXPECT_EQ((*tokenizer)->decode(*ids), text);
}

TEST(BpeTokenizer, OnlyLlamaBpeTakesWholeWordsPastTheMerges) {
  for (const char* pre : {"llama-bpe", "qwen2"}) {
    VocabFixture v = byte_vocabulary(pre);
    const TokenId word = v.add("\xc4\xa0word");
    v.add("wo");
    v.merges = {"w o"};
    const bool whole = std::string(pre) == "llama-bpe";
    EXPECT_EQ(encode(v, "a word"), whole ? (Ids{'a', word}) : (Ids{'a', ' ', word + 1, 'r', 'd'})) << pre;
  }
}

TEST(BpeTokenizer, ControlTokensAreNeverReachedFromPlainText) {
  VocabFixture v = byte_vocabulary("llama-bpe");
  const TokenId stop = v.add("STOP", 3);
  v.merges = {"S T", "O P", "ST OP"};
  EXPECT_EQ(encode(v, "STOP"), bytes_of("STOP"));
  EXPECT_EQ(encode(v, "aSTOP", true), (Ids{'a', stop}));
}

TEST(BpeTokenizer, TokenBytesAndDecode) {
  VocabFixture v = hello();
  const TokenId control = v.add("<|im_end|>", 3);
  const TokenId user = v.add("\xc4\xa0\xc4\xa0", 4);  // user-defined: its text is not in GPT-2's alphabet
  const auto tokenizer = v.load();
  ASSERT_TRUE(tokenizer.is_ok());
  EXPECT_EQ((*tokenizer)->token_bytes(260), " hello");
  EXPECT_EQ((*tokenizer)->token_bytes(0xFF), "\xff");
  EXPECT_EQ((*tokenizer)->token_bytes(control), "");
  EXPECT_EQ((*tokenizer)->token_bytes(control, true), "<|im_end|>");
  EXPECT_EQ((*tokenizer)->token_bytes(user), "\xc4\xa0\xc4\xa0");
  EXPECT_EQ((*tokenizer)->token_bytes(-1), "");
  EXPECT_EQ((*tokenizer)->token_bytes(1000000), "");
  EXPECT_EQ((*tokenizer)->decode(Ids{259, control, 260}), "hello hello");
  EXPECT_EQ((*tokenizer)->decode(Ids{259, control}, true), "hello<|im_end|>");
}

TEST(BpeTokenizer, AVocabularyWithoutMergesTakesIdsOnly) {
  VocabFixture v = hello();
  v.merges.clear();
  v.pre = "a rule of tomorrow";  // of no use without merges
  const auto tokenizer = v.load();
  ASSERT_TRUE(tokenizer.is_ok()) << tokenizer.status().to_string();
  const auto ids = (*tokenizer)->encode("hello", false);
  ASSERT_FALSE(ids.is_ok());
  EXPECT_EQ(ids.status().code(), StatusCode::kUnsupported);
  EXPECT_NE(ids.status().message().find("--doc-tokens"), std::string::npos);
  EXPECT_EQ((*tokenizer)->decode(Ids{259}), "hello");
}

TEST(BpeTokenizer, UnknownPretokenizersAreRefusedByName) {
  VocabFixture v = hello();
  v.pre = "a rule of tomorrow";
  const auto tokenizer = v.load();
  ASSERT_FALSE(tokenizer.is_ok());
  EXPECT_EQ(tokenizer.status().code(), StatusCode::kUnsupported);
  EXPECT_NE(tokenizer.status().message().find("a rule of tomorrow"), std::string::npos);
  EXPECT_NE(tokenizer.status().message().find("smollm"), std::string::npos);
}

TEST(BpeTokenizer, WithoutANameTheRuleIsGpt2s) {
  for (const auto& pre : {std::optional<std::string>{}, std::optional<std::string>{"default"}}) {
    VocabFixture v = hello();
    v.pre = pre;
    v.add("12");  // 261
    v.merges.emplace_back("1 2");
    EXPECT_EQ(encode(v, "12"), (Ids{261}));  // smollm, qwen2: two words
  }
}

TEST(BpeTokenizer, LyingMergesAreCorrupt) {
  for (const char* line : {"", "ab", "a ", " "}) {
    VocabFixture v = hello();
    v.merges[1] = line;
    const auto tokenizer = v.load();
    ASSERT_FALSE(tokenizer.is_ok()) << '"' << line << '"';
    EXPECT_EQ(tokenizer.status().code(), StatusCode::kCorrupt);
    EXPECT_NE(tokenizer.status().message().find("tokenizer.ggml.merges[1]"), std::string::npos);
  }
}

}  // namespace
}  // namespace finchkv::model
