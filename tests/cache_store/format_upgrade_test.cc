// A store that finchkv 0.1's first format wrote (tests/data/store-format-1: four small entries of a tiny model, some in
// the log, some in tables and blob files): it is read as it is, and a writer brings it to today's format.
#include <filesystem>

#include <gtest/gtest.h>

#include "tests/cache_store/rocksdb_open.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

namespace fs = std::filesystem;
using testing::make_put;
using testing::open;
using testing::open_reader;
using testing::Opened;
using testing::read_file;
using testing::ScratchDirectory;

constexpr char kHit[] = "3f252b57319a";  // the entry that was asked for once

class FormatUpgrade : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(scratch_.store());
    fs::copy(fs::path(FINCHKV_TEST_DATA) / "store-format-1", scratch_.store(), fs::copy_options::recursive);
  }
  std::string marker() const { return read_file(fs::path(scratch_.store()) / "finchkv.store"); }

  static void expect_all(const Opened& opened) {
    const auto page = opened.store->list({}, 100);
    ASSERT_TRUE(page.is_ok()) << page.status().message();
    ASSERT_EQ(page->entries.size(), 4U);
    EXPECT_TRUE(page->unreadable.empty());
    for (const EntryInfo& entry : page->entries) {
      EXPECT_TRUE(opened.store->verify(entry.id).is_ok()) << entry.id.hex();
      EXPECT_EQ(entry.label, "d.json");
      EXPECT_GT(entry.stored_bytes, 1000U);
    }
    EXPECT_EQ(opened.store->find(*opened.store->resolve_prefix(kHit))->hits, 1U);
  }

  ScratchDirectory scratch_;
};

TEST_F(FormatUpgrade, AReaderReadsItAsItIs) {
  expect_all(open_reader(scratch_.store()));
  EXPECT_EQ(marker(), "finchkv store\nformat 1\n");
}

TEST_F(FormatUpgrade, AWriterBringsItToItsOwnFormat) {
  expect_all(open(scratch_.store()));
  EXPECT_EQ(marker(), "finchkv store\nformat 2\n");
  {
    const Opened again = open(scratch_.store());
    expect_all(again);
    EXPECT_EQ(again.host->report()->total.entries, 4U);
    // What the ledger needs to know was taken from the heads.
    ASSERT_TRUE(again.store->put(make_put({}, 1)).is_ok());
    StoreSettings tight;
    tight.max_bytes = 10'000;
    ASSERT_TRUE(again.host->set_settings(tight).is_ok());
    EXPECT_LE(again.host->report()->total.stored_bytes, tight.max_bytes);
    EXPECT_EQ(again.host->gc()->puts, 0U);
  }
  EXPECT_LE(open_reader(scratch_.store()).store->stats()->stored_bytes, 10'000U);
}

}  // namespace
}  // namespace finchkv::cache_store
