#include "cli/kept_map.h"

#include <gtest/gtest.h>

namespace finchkv::cli {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::size_t at = 0;
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', at)) {
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

TEST(KeptMap, SharesOfStretches) {
  // Two layers, one row each, 8 tokens in 4 columns of two.
  const auto map = make_kept_map({{0, 1, 2}, {6, 7}}, 1, 8, 4);
  ASSERT_TRUE(map.is_ok()) << map.status().message();
  EXPECT_EQ(map->cells[0], (std::vector<double>{1, 0.5, 0, 0}));
  EXPECT_EQ(map->cells[1], (std::vector<double>{0, 0, 0, 1}));
  EXPECT_EQ(map->all_layers, (std::vector<double>{0.5, 0.25, 0, 0.5}));
  EXPECT_DOUBLE_EQ(map->average, 5.0 / 16);
}

TEST(KeptMap, RowsOfALayerShareItsCells) {
  const auto map = make_kept_map({{0, 1, 0, 3}}, 2, 4, 4);  // two heads: {0, 1} and {0, 3}
  ASSERT_TRUE(map.is_ok());
  EXPECT_EQ(map->cells[0], (std::vector<double>{1, 0.5, 0, 0.5}));
}

TEST(KeptMap, EveryTokenIsInExactlyOneColumn) {
  for (const std::uint64_t n : {1ULL, 7ULL, 79ULL, 80ULL, 81ULL, 1000ULL}) {
    std::vector<std::uint32_t> all(n);
    for (std::uint32_t i = 0; i < n; ++i) all[i] = i;
    const auto map = make_kept_map({all}, 1, n, 80);
    ASSERT_TRUE(map.is_ok());
    EXPECT_EQ(map->columns, std::min<std::uint64_t>(80, n));
    for (const double share : map->cells[0]) EXPECT_DOUBLE_EQ(share, 1) << n;
  }
}

TEST(KeptMap, RefusesOriginsPastTheDocument) {
  EXPECT_EQ(make_kept_map({{0, 8}}, 1, 8, 4).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(count_kept({{0, 8}}, 8).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(make_kept_map({{0}}, 1, 0, 4).status().code(), StatusCode::kInvalidArgument);
}

TEST(KeptMap, CountsListsOfEachToken) {
  const auto counts = count_kept({{0, 2}, {2, 3}}, 4);
  ASSERT_TRUE(counts.is_ok());
  EXPECT_EQ(*counts, (std::vector<std::uint32_t>{1, 0, 2, 1}));
}

TEST(KeptMap, ShadesAgainstTheAverage) {
  EXPECT_EQ(shade_of(0, 0.1), 0);
  EXPECT_EQ(shade_of(0.01, 0.1), 1);
  EXPECT_EQ(shade_of(0.1, 0.1), 2);
  EXPECT_EQ(shade_of(0.2, 0.1), 3);
  EXPECT_EQ(shade_of(0.5, 0.1), 4);
  EXPECT_EQ(shade_of(1, 1), 4);  // a full cache is dark, not "average"
  EXPECT_EQ(shade_of(0.2, 1), 1);
}

TEST(DrawKeptMap, FitsTheWidth) {
  const MapStyle style{.width = 40, .ascii = true};
  const std::size_t columns = map_columns(style, 2);
  const auto map = make_kept_map({{0, 1, 2, 3}, {990, 991, 999}}, 1, 1000, columns);
  ASSERT_TRUE(map.is_ok());
  const auto lines = lines_of(draw_kept_map(*map, style));
  ASSERT_GE(lines.size(), 4U);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(lines[i].size(), 40U) << lines[i];
  EXPECT_EQ(lines[0].substr(0, 6), "  0 |#");
  EXPECT_EQ(lines[1].substr(38), "#|");
  EXPECT_EQ(lines[2].substr(0, 5), "all |");
  EXPECT_EQ(lines[3].find("|0"), 5U);  // the scale begins under the first column
}

TEST(DrawKeptMap, AsciiStaysAscii) {
  const auto map = make_kept_map({{0, 5}}, 1, 10, 10);
  ASSERT_TRUE(map.is_ok());
  for (const char c : draw_kept_map(*map, {.width = 60, .ascii = true})) {
    EXPECT_LT(static_cast<unsigned char>(c), 0x80);
  }
  EXPECT_NE(draw_kept_map(*map, {.width = 60, .ascii = false}).find("█"), std::string::npos);
}

}  // namespace
}  // namespace finchkv::cli
