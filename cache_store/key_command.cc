#include "cache_store/key_command.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "cache_store/descriptor.h"

namespace finchkv::cache_store {
namespace {

using Clock = std::chrono::steady_clock;

Status cannot_run(int error) {
  return Status::unavailable(fmt::format("the key command could not be run: {}", std::strerror(error)));
}

/// A started command, the leader of its own process group. Killed, and waited for, unless it has ended.
class Child {
 public:
  /// Starts it with `output` as its standard output. An errno, or 0.
  int start(const std::string& command, int output) {
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
    // Whatever this program blocks or ignores (SIGPIPE in a server), the command starts as from a shell.
    sigset_t none;
    sigemptyset(&none);
    sigset_t all;
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    std::string shell = "sh";
    std::string option = "-c";
    std::string text = command;
    char* const arguments[] = {shell.data(), option.data(), text.data(), nullptr};
    const int error = posix_spawn(&pid_, "/bin/sh", &files, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    if (error != 0) pid_ = -1;
    return error;
  }

  Child() = default;
  ~Child() {
    if (pid_ < 0) return;
    // Not yet waited for, so its number is still its own, and its group's.
    ::kill(-pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  /// As waitpid gives it; nullopt when the deadline came first. unavailable when somebody else has taken it.
  Result<std::optional<int>> wait_until(Clock::time_point deadline) {
    for (;;) {
      int status = 0;
      const pid_t ended = ::waitpid(pid_, &status, WNOHANG);
      if (ended == pid_) {
        pid_ = -1;
        return std::optional<int>(status);
      }
      if (ended < 0 && errno != EINTR) {
        pid_ = -1;
        return Status::unavailable(
            "the key command's exit status is lost: this program ignores SIGCHLD or waits for any child; use a key "
            "file");
      }
      if (Clock::now() >= deadline) return std::optional<int>();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

 private:
  pid_t pid_ = -1;
};

Status too_late(std::chrono::milliseconds limit) {
  return Status::deadline_exceeded(fmt::format(
      "the key command has not ended within {} ms and was killed: it must print its keys and end without asking",
      limit.count()));
}

}  // namespace

Result<std::size_t> run_key_command(const std::string& command, std::chrono::milliseconds limit,
                                    std::span<std::byte> out) {
  if (command.empty() || command.find('\0') != std::string::npos) {
    return Status::invalid_argument("the key command is empty or has a zero byte in it");
  }
  // What poll can count, and long enough for whoever means "for ever".
  const auto deadline = Clock::now() + std::min<std::chrono::milliseconds>(limit, std::chrono::hours(24));
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return cannot_run(errno);
  const Descriptor reading(ends[0]);
  Descriptor writing(ends[1]);
  Child child;
  if (const int error = child.start(command, writing.get()); error != 0) return cannot_run(error);
  writing.close();

  std::size_t filled = 0;
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return too_late(limit);
    pollfd ready{reading.get(), POLLIN, 0};
    const int polled = ::poll(&ready, 1, static_cast<int>(left));
    if (polled < 0 && errno != EINTR) return cannot_run(errno);
    if (polled <= 0) continue;
    const ssize_t got = ::read(reading.get(), out.data() + filled, out.size() - filled);
    if (got < 0 && errno != EINTR) return cannot_run(errno);
    if (got == 0) break;
    if (got > 0) filled += static_cast<std::size_t>(got);
    if (filled == out.size()) {
      return Status::invalid_argument(fmt::format(
          "the key command prints more than {} bytes: it must print keys and nothing else", out.size() - 1));
    }
  }

  FINCHKV_ASSIGN_OR_RETURN(const std::optional<int> status, child.wait_until(deadline));
  if (!status) return too_late(limit);
  if (WIFSIGNALED(*status)) {
    return Status::unavailable(fmt::format("the key command was killed by signal {}", WTERMSIG(*status)));
  }
  if (WEXITSTATUS(*status) != 0) {
    return Status::unavailable(
        fmt::format("the key command failed with exit status {}: run it by hand to see why", WEXITSTATUS(*status)));
  }
  return filled;
}

}  // namespace finchkv::cache_store
