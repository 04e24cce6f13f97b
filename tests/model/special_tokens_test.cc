#include "model/special_tokens.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace finchkv::model {
namespace {

using Pieces = std::vector<std::pair<std::string, TokenId>>;

Pieces split(const SpecialTokens& specials, std::string_view text, std::vector<SpecialTokens::Range> parsed) {
  Pieces out;
  for (const auto& piece : specials.split(text, parsed)) out.emplace_back(std::string(piece.text), piece.id);
  return out;
}

Pieces split_all(const SpecialTokens& specials, std::string_view text) {
  return split(specials, text, {{0, text.size()}});
}

TEST(SpecialTokens, ControlTokensCountOnlyWhereParsed) {
  const SpecialTokens specials({{"<e>", 7, false}});
  EXPECT_EQ(split_all(specials, "a<e>b<e>"), (Pieces{{"a", -1}, {"<e>", 7}, {"b", -1}, {"<e>", 7}}));
  EXPECT_EQ(split(specials, "a<e>b<e>", {}), (Pieces{{"a<e>b<e>", -1}}));
  EXPECT_EQ(split(specials, "a<e>b<e>", {{4, 8}}), (Pieces{{"a<e>b", -1}, {"<e>", 7}}));
}

TEST(SpecialTokens, AMatchMustLieWhollyInsideOneRange) {
  const SpecialTokens specials({{"<e>", 7, false}});
  EXPECT_EQ(split(specials, "<e>", {{0, 2}, {2, 3}}), (Pieces{{"<e>", -1}}));
  EXPECT_EQ(split(specials, "<e>", {{1, 3}}), (Pieces{{"<e>", -1}}));
  EXPECT_EQ(split(specials, "<e>", {{0, 0}, {0, 3}}), (Pieces{{"<e>", 7}}));
}

TEST(SpecialTokens, UserDefinedTokensCountAnywhere) {
  const SpecialTokens specials({{"  ", 5, true}, {"<e>", 7, false}});
  EXPECT_EQ(split(specials, "a   <e>", {}), (Pieces{{"a", -1}, {"  ", 5}, {" <e>", -1}}));
  EXPECT_EQ(split(specials, "a  ", {{0, 2}, {2, 3}}), (Pieces{{"a", -1}, {"  ", 5}}));
}

TEST(SpecialTokens, TheLongestGoesFirstEvenWhenItStartsLater) {
  const SpecialTokens specials({{"ab", 1, true}, {"bcd", 2, true}, {"abc", 3, true}});
  EXPECT_EQ(split_all(specials, "abcd"), (Pieces{{"a", -1}, {"bcd", 2}}));  // equal lengths: the lower id
  EXPECT_EQ(split_all(specials, "abc"), (Pieces{{"abc", 3}}));
  EXPECT_EQ(split_all(specials, "abx"), (Pieces{{"ab", 1}, {"x", -1}}));
}

TEST(SpecialTokens, RepeatsDoNotOverlap) {
  const SpecialTokens specials({{"aa", 1, true}});
  EXPECT_EQ(split_all(specials, "aaaaa"), (Pieces{{"aa", 1}, {"aa", 1}, {"a", -1}}));
}

TEST(SpecialTokens, NothingToFind) {
  EXPECT_EQ(split_all(SpecialTokens(), "abc"), (Pieces{{"abc", -1}}));
  EXPECT_EQ(split_all(SpecialTokens({{"", 1, true}}), "abc"), (Pieces{{"abc", -1}}));
  EXPECT_TRUE(split_all(SpecialTokens({{"a", 1, true}}), "").empty());
}

TEST(SpecialTokens, BytesAboveAscii) {
  const SpecialTokens specials({{"\xe2\x96\x81\xff", 4, false}, {"\xe2\x96", 6, false}});
  EXPECT_EQ(split_all(specials, "\xe2\x96\x81\xff\xe2\x96\x81"),
            (Pieces{{"\xe2\x96\x81\xff", 4}, {"\xe2\x96", 6}, {"\x81", -1}}));
}

}  // namespace
}  // namespace finchkv::model
