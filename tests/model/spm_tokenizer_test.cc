#include "model/spm_tokenizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "tests/model/vocab_fixture.h"

namespace finchkv::model {
namespace {

using testing::VocabFixture;
using Ids = std::vector<TokenId>;

constexpr const char* kBlank = "\xe2\x96\x81";

std::string blank(const std::string& rest) { return kBlank + rest; }

/// <unk> <s> </s>, the bytes as 3..258, then pieces whose scores say the order of merges.
struct Spm : VocabFixture {
  Spm() {
    kind = "llama";
    add("<unk>", 2);
    add("<s>", 3);
    add("</s>", 3);
    for (int b = 0; b < 256; ++b) {
      char text[8];
      std::snprintf(text, sizeof(text), "<0x%02X>", static_cast<unsigned>(b));
      add(text, 6);
    }
    for (const char* letter : {"t", "h", "e", "c", "a", "n", "1"}) add(letter, 1, -100);
    single_blank = add(kBlank, 1, -100);
    th = add("th", 1, -1);
    an = add("an", 1, -2);
    the = add(blank("the"), 1, -3);
    he = add("he", 1, -4);
    blank_t = add(blank("t"), 1, -5);
    ca = add("ca", 1, -6);
    blank_th = add(blank("th"), 1, -7);
    aa = add("aa", 1, -8);
    two_blanks = add(blank(kBlank), 1, -9);
  }
  [[nodiscard]] TokenId letter(char c) const {
    for (std::size_t i = 0; i < tokens.size(); ++i)
      if (tokens[i] == std::string(1, c)) return static_cast<TokenId>(i);
    return -1;
  }
  static TokenId byte(int b) { return 3 + b; }
  TokenId single_blank, th, an, the, he, blank_t, ca, blank_th, aa, two_blanks;
};

Ids encode(const VocabFixture& v, std::string_view text, bool parse_special = false) {
  const auto tokenizer = v.load();
  EXPECT_TRUE(tokenizer.is_ok()) << tokenizer.status().to_string();
  if (!tokenizer.is_ok()) return {-1};
  const auto ids = (*tokenizer)->encode(text, parse_special);
  EXPECT_TRUE(ids.is_ok()) << ids.status().to_string();
  return ids.is_ok() ? *ids : Ids{-1};
}

TEST(SpmTokenizer, MergesByScore) {
  const Spm v;
  // _ t h e: th (-1) before _t (-5) and he (-4); then _ th -> _th (-7), the only one left; then _th e -> _the.
  EXPECT_EQ(encode(v, "the"), (Ids{v.the}));
  // _ c a n: an (-2) before ca (-6); c and an do not join.
  EXPECT_EQ(encode(v, "can"), (Ids{v.single_blank, v.letter('c'), v.an}));
  // _ t h a n: th, an, then _th.
  EXPECT_EQ(encode(v, "than"), (Ids{v.blank_th, v.an}));
}

TEST(SpmTokenizer, EqualScoresMergeFromTheLeft) {
  const Spm v;
  EXPECT_EQ(encode(v, "aaa"), (Ids{v.single_blank, v.aa, v.letter('a')}));
}

TEST(SpmTokenizer, BlanksAndThePrefix) {
  Spm v;
  EXPECT_EQ(encode(v, ""), (Ids{}));
  EXPECT_EQ(encode(v, " "), (Ids{v.two_blanks}));
  EXPECT_EQ(encode(v, "the the"), (Ids{v.the, v.the}));
  v.add_space_prefix = false;
  EXPECT_EQ(encode(v, "the"), (Ids{v.th, v.letter('e')}));
  EXPECT_EQ(encode(v, " the"), (Ids{v.the}));
}

TEST(SpmTokenizer, TheBlankComesAgainAfterASpecialToken) {
  const Spm v;
  EXPECT_EQ(encode(v, "the</s>the", true), (Ids{v.the, 2, v.the}));
  EXPECT_EQ(encode(v, "</s></s>a", true), (Ids{2, 2, v.single_blank, v.letter('a')}));
}

TEST(SpmTokenizer, WhatIsNoTokenBecomesBytes) {
  Spm v;
  v.add_space_prefix = false;
  EXPECT_EQ(encode(v, "z"), (Ids{Spm::byte('z')}));
  EXPECT_EQ(encode(v, "a\n"), (Ids{v.letter('a'), Spm::byte('\n')}));
  EXPECT_EQ(encode(v, "\xe6\x97\xa5"), (Ids{Spm::byte(0xE6), Spm::byte(0x97), Spm::byte(0xA5)}));
  // Damaged UTF-8: each byte by itself, what follows as ever.
  EXPECT_EQ(encode(v, "\xe6the"), (Ids{Spm::byte(0xE6), v.th, v.letter('e')}));
}

TEST(SpmTokenizer, WithoutByteTokensTheUnknownTokenStandsForACharacter) {
  VocabFixture v;
  v.kind = "llama";
  v.add("<unk>", 2);
  v.add("<s>", 3);
  v.add("</s>", 3);
  v.add("a");
  v.add_space_prefix = false;
  EXPECT_EQ(encode(v,
                   "a\xe6\x97\xa5"
                   "a"),
            (Ids{3, 0, 3}));
}

TEST(SpmTokenizer, ControlAndByteTokensWrittenOutAreText) {
  Spm v;
  v.add_space_prefix = false;
  // Pieces from which merges alone would build the special texts.
  for (const char* piece : {"</", "s>", "<0", "<0x", "<0x0", "<0x0A"}) v.add(piece);
  const Ids ids = encode(v, "</s><0x0A>");
  for (const TokenId id : ids) EXPECT_TRUE(id != 2 && id != Spm::byte(0x0A)) << id;
  const auto tokenizer = v.load();
  ASSERT_TRUE(tokenizer.is_ok());
  EXPECT_EQ((*tokenizer)->decode(ids), "</s><0x0A>");
}

TEST(SpmTokenizer, DecodeGivesTheTextBack) {
  const Spm v;
  const auto tokenizer = v.load();
  ASSERT_TRUE(tokenizer.is_ok());
  const std::string text("the can  \xe6\x97\xa5\n\xff than 1\0", 21);
  const auto ids = (*tokenizer)->encode(text, false);
  ASSERT_TRUE(ids.is_ok());
  EXPECT_EQ((*tokenizer)->decode(*ids), " " + text);  // with the blank that was put before it
  EXPECT_EQ((*tokenizer)->token_bytes(Spm::byte(0xE6)), "\xe6");
  EXPECT_EQ((*tokenizer)->token_bytes(1), "");
  EXPECT_EQ((*tokenizer)->token_bytes(1, true), "<s>");
}

TEST(SpmTokenizer, DefaultsOfTheKind) {
  Spm v;
  const auto tokenizer = v.load();
  ASSERT_TRUE(tokenizer.is_ok());
  EXPECT_EQ((*tokenizer)->kind(), "llama");
  EXPECT_EQ((*tokenizer)->bos(), 1);
  EXPECT_TRUE((*tokenizer)->add_bos());
  EXPECT_TRUE((*tokenizer)->is_end(2));
  v.add_bos = false;
  const auto without = v.load();
  ASSERT_TRUE(without.is_ok());
  EXPECT_FALSE((*without)->add_bos());
}

TEST(SpmTokenizer, ALongTextMergesInGoodTime) {
  Spm v;
  v.add_space_prefix = false;
  EXPECT_EQ(encode(v, std::string(400000, 'a')), Ids(200000, v.aa));
}

TEST(SpmTokenizer, ScoresThatAreNoNumbersAreCorrupt) {
  Spm v;
  v.scores[5] = std::numeric_limits<float>::quiet_NaN();
  const auto tokenizer = v.load();
  ASSERT_FALSE(tokenizer.is_ok());
  EXPECT_EQ(tokenizer.status().code(), StatusCode::kCorrupt);
}

}  // namespace
}  // namespace finchkv::model
