// Sizes and times of options: what is accepted, exactly what it means, and what is refused with a sentence.
#include "cli/units.h"

#include <gtest/gtest.h>

namespace finchkv::cli {
namespace {

std::uint64_t bytes_of(std::string_view text) {
  const auto parsed = parse_size(text, "--max-bytes");
  EXPECT_TRUE(parsed.is_ok()) << parsed.status().message();
  return parsed.is_ok() ? *parsed : ~std::uint64_t{0};
}

std::uint64_t ms_of(std::string_view text) {
  const auto parsed = parse_duration_ms(text, "--ttl");
  EXPECT_TRUE(parsed.is_ok()) << parsed.status().message();
  return parsed.is_ok() ? *parsed : ~std::uint64_t{0};
}

TEST(Units, SizesCountIn1024s) {
  EXPECT_EQ(bytes_of("0"), 0U);
  EXPECT_EQ(bytes_of("none"), 0U);
  EXPECT_EQ(bytes_of("12345"), 12345U);
  EXPECT_EQ(bytes_of("1K"), 1024U);
  EXPECT_EQ(bytes_of("50M"), 50U << 20);
  EXPECT_EQ(bytes_of("50G"), std::uint64_t{50} << 30);
  EXPECT_EQ(bytes_of("50GiB"), std::uint64_t{50} << 30);
  EXPECT_EQ(bytes_of("2T"), std::uint64_t{2} << 40);
}

TEST(Units, FractionsAreExactWhereTheyCanBe) {
  EXPECT_EQ(bytes_of("1.5G"), std::uint64_t{3} << 29);
  EXPECT_EQ(bytes_of("0.25K"), 256U);
  EXPECT_EQ(bytes_of("0.5T"), std::uint64_t{1} << 39);
  EXPECT_EQ(bytes_of("1.000000000K"), 1024U);
  EXPECT_EQ(bytes_of("0.1K"), 102U);
  EXPECT_EQ(ms_of("1.5h"), 5'400'000U);
  EXPECT_EQ(ms_of("0.1s"), 100U);
}

TEST(Units, Times) {
  EXPECT_EQ(ms_of("0"), 0U);
  EXPECT_EQ(ms_of("never"), 0U);
  EXPECT_EQ(ms_of("250ms"), 250U);
  EXPECT_EQ(ms_of("30s"), 30'000U);
  EXPECT_EQ(ms_of("15m"), 900'000U);
  EXPECT_EQ(ms_of("12h"), 43'200'000U);
  EXPECT_EQ(ms_of("30d"), 30U * 86'400'000U);
}

TEST(Units, WhatIsNoSizeIsRefused) {
  for (const char* text : {"", "G", "-1", "+1", " 1", "1 G", "50GB", "50g", "1e3", "1.G", ".5G", "1.5", "0x10", "12Q",
                           "18446744073709551616", "18446744073709551615K", "20000000T", "1.0000000001G"}) {
    const auto parsed = parse_size(text, "--max-bytes");
    ASSERT_FALSE(parsed.is_ok()) << text << " became " << *parsed;
    EXPECT_EQ(parsed.status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(parsed.status().message().rfind("--max-bytes ", 0), 0U) << parsed.status().message();
  }
}

TEST(Units, WhatIsNoTimeIsRefused) {
  for (const char* text : {"", "d", "30", "30D", "-1d", "1w", "1.5ms", "1 d", "213503982335d"}) {
    const auto parsed = parse_duration_ms(text, "--ttl");
    ASSERT_FALSE(parsed.is_ok()) << text << " became " << *parsed;
    EXPECT_EQ(parsed.status().code(), StatusCode::kInvalidArgument);
  }
}

TEST(Units, WhatIsShownIsReadBack) {
  EXPECT_EQ(size_text(0), "0");
  EXPECT_EQ(size_text(std::uint64_t{50} << 30), "50G");
  EXPECT_EQ(size_text(std::uint64_t{3} << 29), "1536M");
  EXPECT_EQ(size_text(1000), "1000");
  EXPECT_EQ(duration_text(0), "0");
  EXPECT_EQ(duration_text(30U * 86'400'000U), "30d");
  EXPECT_EQ(duration_text(1500), "1500ms");
  EXPECT_EQ(duration_text(90'000), "90s");
  std::uint64_t value = 1;
  for (int i = 0; i < 200; ++i) {
    value = value * 6364136223846793005U + 1442695040888963407U;
    const std::uint64_t shown = (value >> 24) & ~((std::uint64_t{1} << (i % 20)) - 1);
    EXPECT_EQ(bytes_of(size_text(shown)), shown);
    EXPECT_EQ(ms_of(duration_text(shown >> 10)), shown >> 10);
  }
}

}  // namespace
}  // namespace finchkv::cli
