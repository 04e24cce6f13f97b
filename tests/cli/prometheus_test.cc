// The text exposition format: its grammar, its escapes, and that every figure of a report is in it.
#include "cli/prometheus.h"

#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <regex>
#include <set>
#include <sstream>

namespace finchkv::cli {
namespace {

cache_store::StoreReport report() {
  cache_store::StoreReport r;
  r.total = {.entries = 3, .stored_bytes = 300, .raw_bytes = 600, .hits = 7, .unreadable = 1, .disk_bytes = 4096};
  r.by_tenant[""] = {.entries = 1, .stored_bytes = 100, .raw_bytes = 200, .hits = 5};
  r.by_tenant["acme"] = {.entries = 2, .stored_bytes = 200, .raw_bytes = 400, .hits = 2};
  r.by_model[std::string(64, 'a')] = {.entries = 3, .stored_bytes = 300, .raw_bytes = 600, .hits = 7};
  r.by_age[60'000] = {.entries = 1, .stored_bytes = 100, .raw_bytes = 200, .hits = 5};
  r.by_age[std::numeric_limits<std::uint64_t>::max()] = {
      .entries = 2, .stored_bytes = 200, .raw_bytes = 400, .hits = 2};
  r.lookups = 10;
  r.misses = 4;
  r.evictions = 2;
  r.put_bytes = 500;
  r.written_bytes = 550;
  r.reserved_bytes = 11;
  r.held_bytes = 12;
  r.pinned_bytes = 13;
  r.settings.max_bytes = 1000;
  r.settings.tenant_quotas["acme"] = 700;
  return r;
}

/// Sample lines by what stands before the value.
std::map<std::string, std::string> samples(const std::string& text) {
  std::map<std::string, std::string> out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    const std::size_t space = line.rfind(' ');
    EXPECT_TRUE(out.emplace(line.substr(0, space), line.substr(space + 1)).second) << "twice: " << line;
  }
  return out;
}

TEST(Prometheus, EveryLineIsOfTheFormat) {
  const std::string text = prometheus_text(report(), "./kv");
  ASSERT_FALSE(text.empty());
  EXPECT_EQ(text.back(), '\n');
  const std::regex comment(R"(# (HELP|TYPE) [a-z_]+ \S.*)");
  const std::regex sample(R"re([a-z_]+\{([a-z_]+="([^"\\\n]|\\["\\n])*"(,|(?=\})))+\} [0-9]+)re");
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_TRUE(std::regex_match(line, line[0] == '#' ? comment : sample)) << line;
  }
}

TEST(Prometheus, EveryMetricHasItsHelpAndTypeOnceBeforeIt) {
  std::set<std::string> helped, typed, sampled;
  std::istringstream lines(prometheus_text(report(), "./kv"));
  for (std::string line; std::getline(lines, line);) {
    if (line[0] == '#') {
      std::istringstream words(line);
      std::string hash, kind, name, type;
      words >> hash >> kind >> name >> type;
      EXPECT_TRUE((kind == "HELP" ? helped : typed).insert(name).second) << line;
      if (kind == "TYPE") {
        EXPECT_EQ(type == "counter", name.ends_with("_total")) << line;
      }
      EXPECT_FALSE(sampled.contains(name)) << line;
    } else {
      const std::string name = line.substr(0, line.find('{'));
      EXPECT_EQ(name.rfind("finchkv_store_", 0), 0U) << line;
      EXPECT_TRUE(helped.contains(name) && typed.contains(name)) << line;
      sampled.insert(name);
    }
  }
  EXPECT_EQ(helped, typed);
  EXPECT_EQ(helped, sampled);
}

TEST(Prometheus, TheFiguresAreTheReports) {
  const auto got = samples(prometheus_text(report(), "kv"));
  const auto value = [&](const std::string& name, const std::string& labels = "") {
    const auto it = got.find("finchkv_store_" + name + "{store=\"kv\"" + labels + "}");
    return it == got.end() ? std::string("missing") : it->second;
  };
  EXPECT_EQ(value("entries"), "3");
  EXPECT_EQ(value("stored_bytes"), "300");
  EXPECT_EQ(value("disk_bytes"), "4096");
  EXPECT_EQ(value("unreadable_entries"), "1");
  EXPECT_EQ(value("lookups_total"), "10");
  EXPECT_EQ(value("misses_total"), "4");
  EXPECT_EQ(value("evictions_total"), "2");
  EXPECT_EQ(value("put_bytes_total"), "500");
  EXPECT_EQ(value("written_bytes_total"), "550");
  EXPECT_EQ(value("pinned_bytes"), "13");
  EXPECT_EQ(value("max_bytes"), "1000");
  EXPECT_EQ(value("tenant_quota_bytes", ",tenant=\"acme\""), "700");
  EXPECT_EQ(value("tenant_entries", ",tenant=\"\""), "1");
  EXPECT_EQ(value("tenant_stored_bytes", ",tenant=\"acme\""), "200");
  EXPECT_EQ(value("model_entry_hits", ",model=\"" + std::string(64, 'a') + "\""), "7");
  EXPECT_EQ(value("age_entries", ",up_to_seconds=\"60\""), "1");
  EXPECT_EQ(value("age_entries", ",up_to_seconds=\"+Inf\""), "2");
}

TEST(Prometheus, LabelsAreEscaped) {
  EXPECT_EQ(prometheus_escape("plain"), "plain");
  EXPECT_EQ(prometheus_escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
  const std::string odd = prometheus_escape(std::string("\xff\x01", 2));
  EXPECT_EQ(odd.find('\xff'), std::string::npos);
  EXPECT_EQ(odd.find('\x01'), std::string::npos);
  EXPECT_EQ(samples(prometheus_text(report(), "a\"} 1\nevil{b=\"")).count("evil{b=\"\"}"), 0U);
}

}  // namespace
}  // namespace finchkv::cli
