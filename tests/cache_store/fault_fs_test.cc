// That the failing file system fails as it says: what was synced is always there after a power loss, what was not may
// be there or not and both come up, and every kind of fault reaches the caller.
#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "tests/cache_store/fault_env.h"
#include "tests/cache_store/rocksdb_open.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store::testing {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kSeeds = 60;

class FaultFsTest : public ::testing::Test {
 protected:
  FaultFsTest() { fs::create_directory(scratch_.store()); }

  std::string path(const std::string& name) const { return scratch_.store() + "/" + name; }
  std::unique_ptr<rocksdb::FSWritableFile> create(const std::string& name) {
    std::unique_ptr<rocksdb::FSWritableFile> file;
    EXPECT_TRUE(disk_->NewWritableFile(path(name), {}, &file, nullptr).ok());
    return file;
  }
  void append(rocksdb::FSWritableFile& file, const std::string& text) {
    EXPECT_TRUE(file.Append(text, {}, nullptr).ok());
  }
  void write(const std::string& name, const std::string& text) {
    const auto file = create(name);
    append(*file, text);
    EXPECT_TRUE(file->Sync({}, nullptr).ok());
  }
  void sync_directory() {
    std::unique_ptr<rocksdb::FSDirectory> directory;
    ASSERT_TRUE(disk_->NewDirectory(scratch_.store(), {}, &directory, nullptr).ok());
    EXPECT_TRUE(directory->Fsync({}, nullptr).ok());
  }
  // What a file may hold after `work` and a power loss; "(none)" for no file.
  std::set<std::string> after(const std::string& name, const std::function<void()>& work,
                              TornEnds ends = TornEnds::kCut) {
    std::set<std::string> seen;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
      fs::remove_all(scratch_.store());
      fs::create_directory(scratch_.store());
      disk_ = std::make_shared<FaultFs>((scratch_.path() / "spare").string());
      work();
      disk_->crash();
      disk_->drop_unsynced(seed, ends);
      seen.insert(fs::exists(path(name)) ? read_file(path(name)) : "(none)");
      EXPECT_FALSE(fs::exists(scratch_.path() / "spare"));
    }
    return seen;
  }

  ScratchDirectory scratch_;
  std::shared_ptr<FaultFs> disk_ = std::make_shared<FaultFs>((scratch_.path() / "spare").string());
};

using Texts = std::set<std::string>;

TEST_F(FaultFsTest, SyncedBytesUnderASyncedNameStay) {
  EXPECT_EQ(after("a",
                  [&] {
                    write("a", "text");
                    sync_directory();
                  }),
            Texts{"text"});
}

TEST_F(FaultFsTest, UnsyncedBytesAreCutAnywhere) {
  const Texts seen = after("a", [&] {
    const auto file = create("a");
    append(*file, "synced,");
    ASSERT_TRUE(file->Sync({}, nullptr).ok());
    sync_directory();
    append(*file, "not");
  });
  EXPECT_EQ(seen, (Texts{"synced,", "synced,n", "synced,no", "synced,not"}));
}

TEST_F(FaultFsTest, PagesMayBeMissingInTheMiddle) {
  const std::string page(4096, 'x');
  const Texts seen = after(
      "a",
      [&] {
        const auto file = create("a");
        append(*file, "synced");
        ASSERT_TRUE(file->Sync({}, nullptr).ok());
        sync_directory();
        append(*file, page + page);
      },
      TornEnds::kWithHoles);
  int holes = 0;
  for (const std::string& text : seen) {
    EXPECT_EQ(text.substr(0, 6), "synced");
    if (text.size() == 6 + 2 * page.size() && text[100] == '\0' && text.back() == 'x') ++holes;
  }
  EXPECT_GT(holes, 0);
}

TEST_F(FaultFsTest, AFailedSyncIsNotMadeGoodByALaterOne) {
  const Texts seen = after("a", [&] {
    const auto file = create("a");
    sync_directory();
    append(*file, "lost");
    FaultRates rates{};
    rates(Fault::kSyncError) = 1;
    disk_->inject(rates, 1);
    ASSERT_FALSE(file->Sync({}, nullptr).ok());
    disk_->stop_injecting();
    append(*file, "kept");
    ASSERT_TRUE(file->Sync({}, nullptr).ok());
  });
  EXPECT_EQ(seen, (Texts{"lostkept", std::string(4, '\0') + "kept"}));
}

TEST_F(FaultFsTest, NamesCountFromTheDirectorysSync) {
  EXPECT_EQ(after("a", [&] { write("a", "text"); }), (Texts{"(none)", "text"}));
  EXPECT_EQ(after("b",
                  [&] {
                    write("b", "old");
                    sync_directory();
                    write("a", "new");
                    ASSERT_TRUE(disk_->RenameFile(path("a"), path("b"), {}, nullptr).ok());
                  }),
            (Texts{"old", "new"}));
  EXPECT_EQ(after("a",
                  [&] {
                    write("a", "text");
                    sync_directory();
                    ASSERT_TRUE(disk_->DeleteFile(path("a"), {}, nullptr).ok());
                  }),
            (Texts{"text", "(none)"}));
  EXPECT_EQ(after("b",
                  [&] {
                    write("a", "text");
                    ASSERT_TRUE(disk_->LinkFile(path("a"), path("b"), {}, nullptr).ok());
                    sync_directory();
                    ASSERT_TRUE(disk_->DeleteFile(path("a"), {}, nullptr).ok());
                  }),
            Texts{"text"});
}

TEST_F(FaultFsTest, AnEmptiedFileMayBeAsBefore) {
  EXPECT_EQ(after("a",
                  [&] {
                    write("a", "before");
                    sync_directory();
                    (void)create("a");
                  }),
            (Texts{"before", ""}));
}

TEST_F(FaultFsTest, FilesOfOthersAreLeftAlone) {
  EXPECT_EQ(after("a",
                  [&] {
                    write_file(path("a"), "theirs");
                    write("b", "ours");
                  }),
            Texts{"theirs"});
}

TEST_F(FaultFsTest, AKilledProcessLosesNothingThatAPowerLossThenMayTake) {
  const Texts seen = after("a", [&] {
    {
      const auto file = create("a");
      append(*file, "x");
      disk_->crash();
    }
    disk_->keep_unsynced();
    EXPECT_EQ(read_file(path("a")), "x");
  });
  EXPECT_EQ(seen, (Texts{"(none)", "", "x"}));
}

TEST_F(FaultFsTest, NothingWorksAfterTheCrash) {
  const auto file = create("a");
  disk_->crash_after(2);
  append(*file, "1");
  EXPECT_TRUE(file->Sync({}, nullptr).ok());
  EXPECT_FALSE(file->Append("2", {}, nullptr).ok());
  EXPECT_TRUE(disk_->crashed());
  EXPECT_FALSE(file->Sync({}, nullptr).ok());
  EXPECT_FALSE(disk_->DeleteFile(path("a"), {}, nullptr).ok());
  EXPECT_FALSE(disk_->FileExists(path("a"), {}, nullptr).ok());
  disk_->keep_unsynced();
  EXPECT_FALSE(file->Append("3", {}, nullptr).ok());  // of the life before
  EXPECT_TRUE(disk_->FileExists(path("a"), {}, nullptr).ok());
  EXPECT_EQ(read_file(path("a")), "1");
}

TEST_F(FaultFsTest, EveryFaultIsSeenAndCounted) {
  write("a", "text");
  const auto file = create("b");
  std::unique_ptr<rocksdb::FSRandomAccessFile> reader;
  ASSERT_TRUE(disk_->NewRandomAccessFile(path("a"), {}, &reader, nullptr).ok());
  char scratch[8];
  rocksdb::Slice got;
  const auto with = [&](Fault fault, const std::function<rocksdb::IOStatus()>& call) {
    FaultRates rates{};
    rates(fault) = 1;
    disk_->inject(rates, 3);
    const rocksdb::IOStatus status = call();
    disk_->stop_injecting();
    EXPECT_EQ(disk_->injected()(fault), 1U) << fault_name(fault);
    return status;
  };
  EXPECT_TRUE(with(Fault::kReadError, [&] { return reader->Read(0, 4, {}, &got, scratch, nullptr); }).IsIOError());
  EXPECT_TRUE(with(Fault::kShortRead, [&] { return reader->Read(0, 4, {}, &got, scratch, nullptr); }).ok());
  EXPECT_LT(got.size(), 4U);
  EXPECT_TRUE(with(Fault::kWriteError, [&] { return file->Append("1234", {}, nullptr); }).IsIOError());
  EXPECT_TRUE(with(Fault::kNoSpace, [&] { return file->Append("1234", {}, nullptr); }).IsNoSpace());
  EXPECT_TRUE(with(Fault::kSyncError, [&] { return file->Sync({}, nullptr); }).IsIOError());
  EXPECT_TRUE(with(Fault::kNameError, [&] { return disk_->DeleteFile(path("a"), {}, nullptr); }).IsIOError());
  EXPECT_EQ(disk_->injected().total(), kFaultKinds);
  EXPECT_TRUE(reader->Read(0, 4, {}, &got, scratch, nullptr).ok());
  EXPECT_EQ(got.ToString(), "text");
}

TEST_F(FaultFsTest, AFullDiskTakesWhatFits) {
  disk_->limit_bytes(6);
  const auto file = create("a");
  append(*file, "1234");
  EXPECT_TRUE(file->Append("5678", {}, nullptr).IsNoSpace());
  EXPECT_EQ(read_file(path("a")), "123456");
  disk_->limit_bytes({});
  append(*file, "78");
  EXPECT_EQ(read_file(path("a")), "12345678");
}

}  // namespace
}  // namespace finchkv::cache_store::testing
