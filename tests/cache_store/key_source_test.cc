#include "cache_store/key_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <thread>

#include <gtest/gtest.h>

#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

using namespace std::chrono_literals;
using testing::ScratchDirectory;

constexpr char kOne[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
constexpr char kTwo[] = "A0A1A2A3A4A5A6A7A8A9AAABACADAEAFB0B1B2B3B4B5B6B7B8B9BABBBCBDBEBF";

KeyId id_of(const std::string& hex) {
  const auto text = from_hex(hex);
  EXPECT_TRUE(text);
  return KeyId::of(KeyEncryptionKey::copy_of(as_byte_span(*text).first<kKeyBytes>()));
}

class KeyFile : public ::testing::Test {
 protected:
  std::string write(const std::string& text, mode_t mode = 0600) {
    const std::string path = (scratch_.path() / "key").string();
    std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
    EXPECT_EQ(chmod(path.c_str(), mode), 0);
    return path;
  }
  std::vector<KeyId> ids(const std::string& text) {
    const auto ring = load_key_file(write(text));
    EXPECT_TRUE(ring.is_ok()) << ring.status().to_string();
    return ring.is_ok() ? ring->ids() : std::vector<KeyId>{};
  }
  std::string refused(const std::string& text) {
    const Status status = load_key_file(write(text)).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status.to_string();
    EXPECT_NE(status.message().find((scratch_.path() / "key").string()), std::string::npos) << status.message();
    return status.message();
  }

  ScratchDirectory scratch_;
};

/// Eight digits in a row of a key give it away.
void expect_no_key_in(const std::string& message, const std::string& hex) {
  for (std::size_t i = 0; i + 8 <= hex.size(); ++i) {
    EXPECT_EQ(message.find(hex.substr(i, 8)), std::string::npos) << message;
  }
}

TEST_F(KeyFile, HexLinesTheFirstIsCurrent) {
  const std::string one = kOne;
  const std::string two = kTwo;
  EXPECT_EQ(ids(one), std::vector{id_of(one)});
  EXPECT_EQ(ids(one + "\n"), std::vector{id_of(one)});
  EXPECT_EQ(ids(one + "\n" + two + "\n"), (std::vector{id_of(one), id_of(two)}));
  EXPECT_EQ(ids(two + "\n" + one), (std::vector{id_of(two), id_of(one)}));
  EXPECT_EQ(ids("\n" + one + " \t\r\n\r\n" + two + "\r\n"), (std::vector{id_of(one), id_of(two)}));
}

TEST_F(KeyFile, RawBytes) {
  const auto raw = from_hex(kOne);
  ASSERT_TRUE(raw);
  EXPECT_EQ(ids(*raw), std::vector{id_of(kOne)});
}

TEST_F(KeyFile, LengthsAndCharactersThatAreNoKey) {
  const std::string one = kOne;
  refused("");
  refused("\n\n");
  refused(one.substr(1));
  refused(one + "0");
  refused(" " + one);
  refused(one + "\n" + one);
  refused(*from_hex(one) + "\n");
  refused(from_hex(one)->substr(1));
  refused(std::string(32, '\0'));
  refused(std::string(64, '0'));
  refused("# a comment\n" + one);
  std::string odd = one;
  odd[63] = 'g';
  const std::string message = refused(std::string(kTwo) + "\n" + odd + "\n");
  EXPECT_NE(message.find("line 2"), std::string::npos) << message;
  expect_no_key_in(message, odd);
}

TEST_F(KeyFile, TooMuch) {
  EXPECT_NE(refused(std::string(kMaxKeySourceBytes + 1, '\n')).find("more than"), std::string::npos);
  EXPECT_NE(refused(std::string(kMaxKeySourceBytes, '\n')).find("no key"), std::string::npos);
}

TEST_F(KeyFile, ModesThatLetOthersIn) {
  for (const mode_t mode : {0640, 0604, 0660, 0644, 0620, 0602, 0610, 0601, 0777}) {
    const Status status = load_key_file(write(kOne, mode)).status();
    EXPECT_EQ(status.code(), StatusCode::kPermissionDenied) << std::oct << mode;
    EXPECT_NE(status.message().find("chmod 600"), std::string::npos) << status.message();
    expect_no_key_in(status.message(), kOne);
  }
  for (const mode_t mode : {0600, 0400, 0700}) {
    EXPECT_TRUE(load_key_file(write(kOne, mode)).is_ok()) << std::oct << mode;
  }
}

TEST_F(KeyFile, WhatIsNoFile) {
  EXPECT_EQ(load_key_file((scratch_.path() / "absent").string()).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(load_key_file("").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(load_key_file(scratch_.path().string()).status().code(), StatusCode::kInvalidArgument);
  const std::string pipe = (scratch_.path() / "pipe").string();
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(load_key_file(pipe).status().code(), StatusCode::kInvalidArgument);
  const std::string link = (scratch_.path() / "link").string();
  ASSERT_EQ(symlink(write(kOne).c_str(), link.c_str()), 0);
  EXPECT_TRUE(load_key_file(link).is_ok());
}

TEST_F(KeyFile, Generated) {
  const std::string path = (scratch_.path() / "new").string();
  const mode_t before = umask(0277);  // would leave a file that its owner cannot read
  const auto id = generate_key_file(path);
  umask(before);
  ASSERT_TRUE(id.is_ok()) << id.status().to_string();
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777U, 0600U);
  const auto ring = load_key_file(path);
  ASSERT_TRUE(ring.is_ok()) << ring.status().to_string();
  EXPECT_EQ(ring->ids(), std::vector{*id});

  const auto other = generate_key_file((scratch_.path() / "other").string());
  ASSERT_TRUE(other.is_ok());
  EXPECT_NE(*other, *id);

  // Neither a file nor what a link points to is ever overwritten.
  EXPECT_EQ(generate_key_file(path).status().code(), StatusCode::kInvalidArgument);
  const std::string link = (scratch_.path() / "dangling").string();
  ASSERT_EQ(symlink((scratch_.path() / "target").c_str(), link.c_str()), 0);
  EXPECT_EQ(generate_key_file(link).status().code(), StatusCode::kInvalidArgument);
  EXPECT_FALSE(std::filesystem::exists(scratch_.path() / "target"));
  EXPECT_EQ(load_key_file(path)->ids(), std::vector{*id});
  EXPECT_EQ(generate_key_file((scratch_.path() / "no" / "folder").string()).status().code(), StatusCode::kNotFound);
}

TEST_F(KeyFile, RotationPutsANewKeyInFront) {
  const std::string raw = *from_hex(kOne);
  for (const std::string& before : {std::string(kTwo) + "\n\n" + kOne + " \n", std::string(kOne), raw}) {
    const auto old = ids(before);
    const std::string path = (scratch_.path() / "key").string();
    const auto made = rotate_key_file(path);
    ASSERT_TRUE(made.is_ok()) << made.status().to_string();
    auto expected = old;
    expected.insert(expected.begin(), *made);
    const auto now = load_key_file(path);
    ASSERT_TRUE(now.is_ok()) << now.status().to_string();
    EXPECT_EQ(now->ids(), expected);
    struct stat info {};
    ASSERT_EQ(stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777U, 0600U);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch_.path()), {}), 1) << "nothing lies beside it";
  }
}

TEST_F(KeyFile, RotationThatFailsLeavesTheFile) {
  EXPECT_EQ(rotate_key_file((scratch_.path() / "none").string()).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(rotate_key_file(write(kOne, 0640)).status().code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(rotate_key_file(write("no key")).status().code(), StatusCode::kInvalidArgument);
  std::string many;
  for (std::size_t i = 0; i < kMaxKeySourceBytes / 65; ++i) {
    std::array<std::uint8_t, 32> bytes{};
    bytes[0] = static_cast<std::uint8_t>(i);
    bytes[1] = static_cast<std::uint8_t>(i >> 8);
    bytes[2] = 1;
    many += to_hex(bytes) + "\n";
  }
  const std::string path = write(many);
  const Status full = rotate_key_file(path).status();
  EXPECT_EQ(full.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(full.message().find("no room"), std::string::npos) << full.message();
  EXPECT_EQ(load_key_file(path)->ids().size(), kMaxKeySourceBytes / 65);
}

class KeyCommand : public ::testing::Test {
 protected:
  [[nodiscard]] std::string file(const std::string& name) const { return (scratch_.path() / name).string(); }

  ScratchDirectory scratch_;
};

TEST_F(KeyCommand, PrintsKeys) {
  const auto ring = load_key_command(std::string("echo ") + kOne + "; printf %s " + kTwo);
  ASSERT_TRUE(ring.is_ok()) << ring.status().to_string();
  EXPECT_EQ(ring->ids(), (std::vector{id_of(kOne), id_of(kTwo)}));
}

TEST_F(KeyCommand, PrintsRawBytes) {
  const auto raw = from_hex(kTwo);
  ASSERT_TRUE(raw);
  std::ofstream(file("raw"), std::ios::binary) << *raw;
  const auto ring = load_key_command("cat '" + file("raw") + "'");
  ASSERT_TRUE(ring.is_ok()) << ring.status().to_string();
  EXPECT_EQ(ring->current(), id_of(kTwo));
}

TEST_F(KeyCommand, OutputInPiecesIsOneOutput) {
  const std::string one = kOne;
  const auto ring = load_key_command("printf " + one.substr(0, 20) + "; sleep 0.1; printf " + one.substr(20));
  ASSERT_TRUE(ring.is_ok()) << ring.status().to_string();
  EXPECT_EQ(ring->current(), id_of(kOne));
}

TEST_F(KeyCommand, HasNoInput) {
  const auto ring = load_key_command(std::string("cat; echo ") + kOne);
  EXPECT_TRUE(ring.is_ok()) << ring.status().to_string();
}

TEST_F(KeyCommand, FailuresSayNothingOfKeyOrCommand) {
  const std::string one = kOne;
  const std::pair<std::string, StatusCode> cases[] = {
      {"echo " + one + "; exit 3", StatusCode::kUnavailable},
      {"echo " + one + "; kill -9 $$", StatusCode::kUnavailable},
      {"echo " + one + "; no-such-command-anywhere 2>&-", StatusCode::kUnavailable},
      {"echo x" + one, StatusCode::kInvalidArgument},
      {"printf " + one + "; echo " + one, StatusCode::kInvalidArgument},
      {"true " + one, StatusCode::kInvalidArgument},
      {"", StatusCode::kInvalidArgument},
      {std::string("true\0", 5) + one, StatusCode::kInvalidArgument},
  };
  for (const auto& [command, code] : cases) {
    const Status status = load_key_command(command).status();
    EXPECT_EQ(status.code(), code) << command << ": " << status.to_string();
    expect_no_key_in(status.message(), one);
  }
  const Status exited = load_key_command("exit 3").status();
  EXPECT_NE(exited.message().find("exit status 3"), std::string::npos) << exited.message();
  const Status killed = load_key_command("kill -9 $$").status();
  EXPECT_NE(killed.message().find("signal 9"), std::string::npos) << killed.message();
}

TEST_F(KeyCommand, PrintsTooMuch) {
  const auto start = std::chrono::steady_clock::now();
  const Status status = load_key_command("yes 0123456789", 20s).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status.to_string();
  EXPECT_NE(status.message().find("more than"), std::string::npos) << status.message();
  EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
}

/// The process whose id stands in this file has gone, or goes soon.
bool goes_away(const std::string& pid_file) {
  pid_t pid = 0;
  std::ifstream(pid_file) >> pid;
  if (pid <= 0) return false;
  for (int i = 0; i < 500; ++i) {
    // An orphan that nobody waits for stays a zombie where no init reaps it: gone all the same.
    std::string stat;
    std::getline(std::ifstream("/proc/" + std::to_string(pid) + "/stat"), stat);
    if (stat.empty() || stat.find(") Z ") != std::string::npos) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

TEST_F(KeyCommand, HangsAndIsKilledWithItsChildren) {
  const auto start = std::chrono::steady_clock::now();
  const Status status =
      load_key_command("echo $$ > '" + file("shell") + "'; sleep 1000 & echo $! > '" + file("child") + "'; wait", 500ms)
          .status();
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded) << status.to_string();
  EXPECT_NE(status.message().find("500 ms"), std::string::npos) << status.message();
  const auto took = std::chrono::steady_clock::now() - start;
  EXPECT_GE(took, 500ms);
  EXPECT_LT(took, 30s);
  EXPECT_TRUE(goes_away(file("shell")));
  EXPECT_TRUE(goes_away(file("child")));
}

TEST_F(KeyCommand, HangsAfterItsOutputHasEnded) {
  const std::string command =
      std::string("echo ") + kOne + "; echo $$ > '" + file("shell") + "'; exec sleep 1000 >/dev/null";
  EXPECT_EQ(load_key_command(command, 500ms).status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(goes_away(file("shell")));
}

TEST_F(KeyCommand, StartsAsFromAShellWhateverTheProgramIgnores) {
  struct sigaction before {};
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  ASSERT_EQ(sigaction(SIGPIPE, &ignore, &before), 0);
  const auto ring = load_key_command(std::string("echo ") + kOne + "; kill -PIPE $$");
  ASSERT_EQ(sigaction(SIGPIPE, &before, nullptr), 0);
  // A shell that inherits an ignored signal cannot get it back, and would have ended well.
  ASSERT_FALSE(ring.is_ok());
  EXPECT_NE(ring.status().message().find("signal 13"), std::string::npos) << ring.status().to_string();
}

TEST_F(KeyCommand, LeavesNoDescriptorsOpen) {
  const auto open_descriptors = [] {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
    return count;
  };
  const std::size_t before = open_descriptors();
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(load_key_command(std::string("echo ") + kOne).is_ok());
    EXPECT_FALSE(load_key_command("sleep 1000", 10ms).is_ok());
  }
  EXPECT_EQ(open_descriptors(), before);
}

}  // namespace
}  // namespace finchkv::cache_store
