// backup and restore from end to end: what comes back, what is kept, and what is refused.
#include "tests/cli/store_fixture.h"

namespace finchkv::cli {
namespace {

using testing::Arguments;
using testing::Ran;
using testing::read_file;
using testing::write_file;
using testing::operator+;

class Backup : public testing::StoreCommandTest {};

TEST_F(Backup, AStoreComesBack) {
  const std::string a = compress({"--label", "one", "--pin"});
  must_json(in_store({"config", "--max-bytes", "1G"}));
  const auto made = must_json(in_store({"backup", path("backups")}));
  EXPECT_EQ(made["id"], 1);
  EXPECT_EQ(made["damaged"], false);
  EXPECT_GT(made["copied_bytes"], 0);
  const auto before = entries();
  compress({"--policy", "finch"});
  ASSERT_EQ(run(in_store({"rm", a})).status, 0);

  const Ran restored = run({"restore", path("backups"), "--store", path("back")});
  EXPECT_EQ(restored.status, 0) << restored.err;
  EXPECT_NE(restored.out.find("backup 1 of "), std::string::npos) << restored.out;
  EXPECT_EQ(entries("back"), before);
  EXPECT_EQ(run({"verify", "--store", path("back")}).status, 0);
  EXPECT_EQ(must_json({"config", "--store", path("back")})["max_bytes"], std::uint64_t{1} << 30);
  EXPECT_EQ(run({"gc", "--store", path("back")}).status, 0);
  expect_refused({"restore", path("backups"), "--store", path("back")}, 2, "back");
}

TEST_F(Backup, EachBackupIsAStateAndOldOnesGo) {
  const std::string a = compress();
  must_json(in_store({"backup", path("backups")}));
  compress({"--policy", "finch"});
  must_json(in_store({"backup", path("backups")}));
  const auto list = must_json({"backup", "--list", path("backups")})["backups"];
  ASSERT_EQ(list.size(), 2U);
  EXPECT_EQ(list[0]["id"], 1);
  EXPECT_EQ(run({"backup", "--verify", path("backups")}).status, 0);
  must_json({"restore", path("backups"), "--id", "1", "--store", path("first")});
  EXPECT_EQ(entries("first").size(), 1U);
  EXPECT_TRUE(entries("first").contains(a));
  must_json({"restore", path("backups"), "--store", path("newest")});
  EXPECT_EQ(entries("newest").size(), 2U);

  const auto third = must_json(in_store({"backup", path("backups"), "--keep", "1"}));
  EXPECT_EQ(third["removed"], (std::vector<int>{1, 2}));
  EXPECT_EQ(must_json({"backup", "--list", path("backups")})["backups"].size(), 1U);
  expect_refused({"restore", path("backups"), "--id", "1", "--store", path("gone")}, 3, "1");
  EXPECT_FALSE(std::filesystem::exists(path("gone/CURRENT")));
}

TEST_F(Backup, DamageIsNoticed) {
  compress();
  must_json(in_store({"backup", path("backups")}));
  std::filesystem::path victim;
  for (const auto& file : std::filesystem::recursive_directory_iterator(path("backups"))) {
    const bool data =
        file.path().extension() == ".sst" || file.path().extension() == ".blob" || file.path().extension() == ".log";
    if (file.is_regular_file() && data && (victim.empty() || file.file_size() > std::filesystem::file_size(victim))) {
      victim = file.path();
    }
  }
  ASSERT_FALSE(victim.empty());
  std::string bytes = read_file(victim);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  write_file(victim, bytes);
  expect_refused({"backup", "--verify", path("backups")}, 4, "backup 1");
  expect_refused({"restore", path("backups"), "--store", path("back")}, 4, "damaged");
  EXPECT_FALSE(std::filesystem::exists(path("back/finchkv.store")));
}

TEST_F(Backup, WhatIsWrongIsRefused) {
  expect_refused(in_store({"backup", path("backups")}), 3, "store");
  compress();
  expect_refused(in_store({"backup"}), 2, "dir");
  expect_refused(in_store({"backup", path("store") + "/inside"}), 2, "inside");
  expect_refused(in_store({"backup", path("backups"), "--list"}), 2, "--store");
  expect_refused(in_store({"backup", path("backups"), "--id", "3"}), 2, "--verify");
  expect_refused(in_store({"backup", path("backups"), "--keep", "0"}), 2, "--keep");
  expect_refused({"backup", "--list", path("none")}, 3, "none");
  std::filesystem::create_directory(path("photos"));
  write_file(path("photos") + "/holiday.jpg", "a picture");
  expect_refused(in_store({"backup", path("photos")}), 2, "photos");
  expect_refused({"restore", path("none"), "--store", path("back")}, 3, "none");
}

}  // namespace
}  // namespace finchkv::cli
