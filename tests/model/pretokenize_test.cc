#include "model/pretokenize.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace finchkv::model {
namespace {

using Words = std::vector<std::string>;

Words words(Pretokenizer p, std::string_view text) {
  Words out;
  for (const std::string_view word : pretokenize(p, text)) out.emplace_back(word);
  return out;
}

constexpr Pretokenizer kAll[] = {Pretokenizer::kGpt2, Pretokenizer::kSmollm, Pretokenizer::kLlamaBpe,
                                 Pretokenizer::kQwen2};

TEST(Pretokenize, Gpt2KeepsNumbersTogetherAndOnlyLowerCaseContractions) {
  EXPECT_EQ(words(Pretokenizer::kGpt2, "It's 2026, don't I'LL"),
            (Words{"It", "'s", " 2026", ",", " don", "'t", " I", "'", "LL"}));
  EXPECT_EQ(words(Pretokenizer::kGpt2, "we've they're he'd I'm it'll '"),
            (Words{"we", "'ve", " they", "'re", " he", "'d", " I", "'m", " it", "'ll", " '"}));
}

TEST(Pretokenize, WhiteSpaceLeavesItsLastCharacterToWhatFollows) {
  EXPECT_EQ(words(Pretokenizer::kGpt2, "a   b"), (Words{"a", "  ", " b"}));
  EXPECT_EQ(words(Pretokenizer::kGpt2, "a\n\n\nb"), (Words{"a", "\n\n", "\n", "b"}));
  EXPECT_EQ(words(Pretokenizer::kGpt2, "a  \n"), (Words{"a", "  \n"}));
  EXPECT_EQ(words(Pretokenizer::kGpt2, "a\xc2\xa0 b"), (Words{"a", "\xc2\xa0", " b"}));  // no-break space
}

TEST(Pretokenize, SmollmTakesEveryNumberAlone) {
  EXPECT_EQ(words(Pretokenizer::kSmollm, "in 1922:12"), (Words{"in", " ", "1", "9", "2", "2", ":", "1", "2"}));
  // What lies between numbers is a text of its own: white space before a number is at the end of its piece.
  EXPECT_EQ(words(Pretokenizer::kSmollm, "a   1"), (Words{"a", "   ", "1"}));
  EXPECT_EQ(words(Pretokenizer::kSmollm, "\xc2\xbd\xe2\x85\xa7x"),
            (Words{"\xc2\xbd", "\xe2\x85\xa7", "x"}));  // 1/2, VIII
  EXPECT_EQ(words(Pretokenizer::kSmollm, "1's"), (Words{"1", "'s"}));
}

TEST(Pretokenize, LlamaTakesThreeDigitsAndQwenOne) {
  EXPECT_EQ(words(Pretokenizer::kLlamaBpe, "x1234567"), (Words{"x", "123", "456", "7"}));
  EXPECT_EQ(words(Pretokenizer::kQwen2, "x1234"), (Words{"x", "1", "2", "3", "4"}));
  EXPECT_EQ(words(Pretokenizer::kLlamaBpe, "a 12"), (Words{"a", " ", "12"}));
}

TEST(Pretokenize, LlamaAndQwenShareTheRest) {
  for (const Pretokenizer p : {Pretokenizer::kLlamaBpe, Pretokenizer::kQwen2}) {
    EXPECT_EQ(words(p, "It'S I'Ll"), (Words{"It", "'S", " I", "'Ll"}));
    EXPECT_EQ(words(p, "f(x)\tend"), (Words{"f", "(x", ")", "\tend"}));  // one leading non-letter goes with letters
    EXPECT_EQ(words(p, "a...\n\nb"), (Words{"a", "...\n\n", "b"}));      // line ends go with punctuation
    EXPECT_EQ(words(p, "a \n \n  b"), (Words{"a", " \n \n", " ", " b"}));
    EXPECT_EQ(words(p, "a!\r\n"), (Words{"a", "!\r\n"}));
    EXPECT_EQ(words(p, "\nb"), (Words{"\n", "b"}));
    EXPECT_EQ(words(p, "a   "), (Words{"a", "   "}));
    EXPECT_EQ(words(p, " !b"), (Words{" !", "b"}));
  }
}

TEST(Pretokenize, LettersAreUnicodes) {
  const std::string text =
      "na\xc3\xafve \xe6\x97\xa5\xe6\x9c\xac\xe3\x80\x82";  // naive with diaeresis, nihon, full stop
  EXPECT_EQ(words(Pretokenizer::kGpt2, text), (Words{"na\xc3\xafve", " \xe6\x97\xa5\xe6\x9c\xac", "\xe3\x80\x82"}));
  // A combining mark is no letter.
  EXPECT_EQ(words(Pretokenizer::kGpt2, "e\xcc\x81t"), (Words{"e", "\xcc\x81", "t"}));
}

TEST(Pretokenize, DamagedUtf8CountsAsSymbols) {
  EXPECT_EQ(words(Pretokenizer::kGpt2,
                  "a\xff\xfe"
                  "b"),
            (Words{"a", "\xff\xfe", "b"}));
  EXPECT_EQ(words(Pretokenizer::kGpt2, " \xe6\x97"), (Words{" \xe6\x97"}));  // cut short
  EXPECT_EQ(words(Pretokenizer::kGpt2,
                  "\xc0\xaf"
                  "x"),
            (Words{"\xc0\xaf", "x"}));  // overlong
}

TEST(Pretokenize, WordsAreNeverEmptyAndJoinToTheText) {
  std::mt19937 rng(7);
  const std::vector<std::string> parts = {"a",
                                          "Z",
                                          "7",
                                          " ",
                                          "\n",
                                          "\r",
                                          "'",
                                          "s",
                                          "ll",
                                          ".",
                                          "\xc2\xa0",
                                          "\xe6\x97\xa5",
                                          "\xff",
                                          "\xcc\x81",
                                          "\xe3\x80\x80",
                                          std::string(1, '\0'),
                                          "\xf0\x9f\x91\xa9"};
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (std::size_t i = rng() % 12; i > 0; --i) text += parts[rng() % parts.size()];
    for (const Pretokenizer p : kAll) {
      std::string joined;
      for (const std::string_view word : pretokenize(p, text)) {
        EXPECT_FALSE(word.empty());
        joined += word;
      }
      EXPECT_EQ(joined, text);
    }
  }
}

TEST(Pretokenize, NamesOfFiles) {
  for (const Pretokenizer p : kAll) EXPECT_EQ(pretokenizer_from_name(pretokenizer_name(p)), p);
  EXPECT_EQ(pretokenizer_from_name("llama3"), Pretokenizer::kLlamaBpe);
  EXPECT_EQ(pretokenizer_from_name("llama-v3"), Pretokenizer::kLlamaBpe);
  EXPECT_EQ(pretokenizer_from_name("deepseek-r1-qwen"), Pretokenizer::kQwen2);
  EXPECT_EQ(pretokenizer_from_name("gpt-2"), Pretokenizer::kGpt2);
  EXPECT_EQ(pretokenizer_from_name("tekken"), std::nullopt);
  EXPECT_NE(supported_pretokenizers().find("smollm"), std::string::npos);
}

}  // namespace
}  // namespace finchkv::model
