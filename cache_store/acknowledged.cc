#include "cache_store/acknowledged.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>

#include <fmt/format.h>

#include "base/digest.h"

namespace finchkv::cache_store {
namespace {

constexpr std::size_t kNumber = 8;
constexpr std::size_t kBody = kNumber + 1;
constexpr std::size_t kSlot = kBody + 16;
using Slot = std::array<std::byte, kSlot>;

Slot make_slot(const Acknowledged& now) {
  Slot slot{};
  for (std::size_t i = 0; i < kNumber; ++i) slot[i] = static_cast<std::byte>(now.sequence >> (8 * i) & 0xffU);
  slot[kNumber] = static_cast<std::byte>(now.open ? 1 : 0);
  const BlockDigest digest = block_digest(std::span(slot).first(kBody));
  std::memcpy(slot.data() + kBody, digest.data(), digest.size());
  return slot;
}

std::optional<Acknowledged> read_slot(int fd, unsigned which) {
  Slot slot{};
  if (pread(fd, slot.data(), kSlot, static_cast<off_t>(which * kSlot)) != static_cast<ssize_t>(kSlot)) {
    return std::nullopt;
  }
  Acknowledged found;
  for (std::size_t i = kNumber; i-- > 0;)
    found.sequence = found.sequence << 8 | std::to_integer<std::uint64_t>(slot[i]);
  found.open = slot[kNumber] != std::byte{0};
  if (make_slot(found) != slot) return std::nullopt;
  return found;
}

struct Slots {
  Acknowledged last;
  unsigned next = 0;  // the older one
};

// Of two slots with one sequence number the first is taken: what differs then is only whether it was closed, and the
// answer "open" costs no more than time.
Slots read_slots(int fd) {
  const auto first = read_slot(fd, 0);
  const auto second = read_slot(fd, 1);
  if (!first && !second) return {};
  if (!second || (first && first->sequence > second->sequence)) return {*first, 1};
  if (!first || second->sequence > first->sequence) return {*second, 0};
  return {{first->sequence, first->open || second->open}, 0};
}

std::string path_in(const std::string& directory) { return directory + "/" + kAcknowledgedFile; }

}  // namespace

Acknowledged read_acknowledged(const std::string& directory) {
  const int fd = ::open(path_in(directory).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  const Slots slots = read_slots(fd);
  close(fd);
  return slots.last;
}

Status AcknowledgedFile::open(const std::string& directory) {
  const std::lock_guard lock(mutex_);
  if (fd_ < 0) {
    const std::string path = path_in(directory);
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd_ < 0) {
      const int error = errno;
      const StatusCode code = error == EACCES || error == EROFS ? StatusCode::kPermissionDenied
                              : error == ENOSPC                 ? StatusCode::kResourceExhausted
                                                                : StatusCode::kUnavailable;
      return {code, fmt::format("{} cannot be opened: {}", path, std::strerror(error))};
    }
  }
  const Slots slots = read_slots(fd_);
  slot_ = slots.next;
  last_ = slots.last;
  write_slot({last_.sequence, true});
  write_slot({last_.sequence, true});  // both: none is left that says closed
  return Status::ok();
}

AcknowledgedFile::~AcknowledgedFile() {
  if (fd_ >= 0) close(fd_);
}

void AcknowledgedFile::write_slot(const Acknowledged& now) {
  if (fd_ < 0) return;
  const Slot slot = make_slot(now);
  if (pwrite(fd_, slot.data(), kSlot, static_cast<off_t>(slot_ * kSlot)) != static_cast<ssize_t>(kSlot)) return;
  last_ = now;
  slot_ ^= 1U;
  synced_ = false;
}

void AcknowledgedFile::note(std::uint64_t sequence) {
  const std::lock_guard lock(mutex_);
  if (sequence > last_.sequence) write_slot({sequence, true});
}

void AcknowledgedFile::note_closed() {
  const std::lock_guard lock(mutex_);
  write_slot({last_.sequence, false});
  write_slot({last_.sequence, false});
}

void AcknowledgedFile::sync() {
  const std::lock_guard lock(mutex_);
  if (fd_ < 0 || synced_) return;
  synced_ = fdatasync(fd_) == 0;
}

}  // namespace finchkv::cache_store
