#include "cache_store/key_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "cache_store/descriptor.h"
#include "cache_store/key_command.h"

namespace finchkv::cache_store {
namespace {

constexpr std::size_t kHexDigits = 2 * kKeyBytes;

Status file_error(int error, const std::string& path, std::string_view doing) {
  const auto sentence = [&](std::string_view advice) {
    return fmt::format("{} failed while {}: {}{}", path, doing, std::strerror(error), advice);
  };
  switch (error) {
    case ENOENT:
    case ENOTDIR: return Status::not_found(sentence("; check the path"));
    case EACCES:
    case EPERM:
    case EROFS: return Status::permission_denied(sentence("; check who owns it"));
    case ENOSPC:
    case EDQUOT: return Status::resource_exhausted(sentence("; free some space and try again"));
    case ENAMETOOLONG:
    case ELOOP: return Status::invalid_argument(sentence(""));
    default: return Status::unavailable(sentence(""));
  }
}

std::optional<unsigned> hex_value(std::byte digit) {
  const auto c = static_cast<char>(digit);
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<unsigned>(c - 'A' + 10);
  return std::nullopt;
}

bool is_blank(std::byte b) { return b == std::byte{' '} || b == std::byte{'\t'} || b == std::byte{'\r'}; }

// Not from_hex: that leaves the key behind in a string.
std::optional<KeyEncryptionKey> key_of_line(std::span<const std::byte> line) {
  if (line.size() != kHexDigits) return std::nullopt;
  std::array<std::byte, kKeyBytes> bytes{};
  bool good = true;
  for (std::size_t i = 0; i < kKeyBytes; ++i) {
    const auto high = hex_value(line[2 * i]);
    const auto low = hex_value(line[2 * i + 1]);
    good = good && high && low;
    if (good) bytes[i] = static_cast<std::byte>(*high * 16 + *low);
  }
  std::optional<KeyEncryptionKey> key;
  if (good) key = KeyEncryptionKey::copy_of(bytes);
  wipe(bytes);
  return key;
}

Result<std::vector<KeyEncryptionKey>> split_keys(std::span<const std::byte> text, const std::string& source) {
  std::vector<KeyEncryptionKey> keys;
  if (text.size() == kKeyBytes) {
    keys.push_back(KeyEncryptionKey::copy_of(text.first<kKeyBytes>()));
  } else {
    for (std::size_t number = 1; !text.empty(); ++number) {
      const auto end = std::find(text.begin(), text.end(), std::byte{'\n'});
      auto line = text.first(static_cast<std::size_t>(end - text.begin()));
      text = text.subspan(std::min(text.size(), line.size() + 1));
      while (!line.empty() && is_blank(line.back())) line = line.first(line.size() - 1);
      if (line.empty()) continue;
      std::optional<KeyEncryptionKey> key = key_of_line(line);
      if (!key) {
        return Status::invalid_argument(fmt::format("{}: line {} is not a key: 64 hex digits are ({} characters here)",
                                                    source, number, line.size()));
      }
      keys.push_back(*std::move(key));
    }
  }
  if (keys.empty()) {
    return Status::invalid_argument(
        fmt::format("{} holds no key: 32 raw bytes or lines of 64 hex digits are expected", source));
  }
  return keys;
}

Result<KeyRing> parse_keys(std::span<const std::byte> text, const std::string& source) {
  FINCHKV_ASSIGN_OR_RETURN(std::vector<KeyEncryptionKey> keys, split_keys(text, source));
  auto ring = KeyRing::make(std::move(keys));
  if (!ring.is_ok()) return Status(ring.status().code(), fmt::format("{}: {}", source, ring.status().message()));
  return ring;
}

Status write_keys(int fd, const std::string& path, std::span<const KeyEncryptionKey> keys) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  SecretBuffer lines(keys.size() * (kHexDigits + 1));
  std::span<std::byte> text = lines.bytes();
  for (const KeyEncryptionKey& key : keys) {
    for (std::size_t i = 0; i < kKeyBytes; ++i) {
      const auto value = std::to_integer<unsigned>(key.bytes()[i]);
      text[2 * i] = static_cast<std::byte>(kDigits[value >> 4]);
      text[2 * i + 1] = static_cast<std::byte>(kDigits[value & 15]);
    }
    text[kHexDigits] = static_cast<std::byte>('\n');
    text = text.subspan(kHexDigits + 1);
  }
  // Before the first byte: the process's mask may have taken the owner's rights.
  if (::fchmod(fd, 0600) != 0) return file_error(errno, path, "setting its mode");
  const ssize_t written = ::write(fd, lines.bytes().data(), lines.bytes().size());
  if (written != std::ssize(lines.bytes())) return file_error(written < 0 ? errno : ENOSPC, path, "writing it");
  if (::fsync(fd) != 0) return file_error(errno, path, "syncing it");
  return Status::ok();
}

Status sync_parent(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  const Descriptor directory(::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0 || ::fsync(directory.get()) != 0) return file_error(errno, path, "syncing its directory");
  return Status::ok();
}

// The bytes of a key file that its owner alone may use.
Result<std::size_t> read_key_file(const std::string& path, SecretBuffer& text) {
  // Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return file_error(errno, path, "opening the key file");
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return file_error(errno, path, "inspecting the key file");
  if (!S_ISREG(info.st_mode)) {
    return Status::invalid_argument(fmt::format("{} is not a regular file: a key file is one", path));
  }
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return Status::permission_denied(fmt::format(
        "the key file {} has mode {:04o}, so others than its owner may use it: chmod 600 it, and make a new "
        "key if somebody may have read it",
        path, info.st_mode & 07777U));
  }
  std::size_t filled = 0;
  while (filled < text.bytes().size()) {
    const ssize_t got = ::read(file.get(), text.bytes().data() + filled, text.bytes().size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return file_error(errno, path, "reading the key file");
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  if (filled > kMaxKeySourceBytes) {
    return Status::invalid_argument(
        fmt::format("{} has more than {} bytes: a key file holds keys and nothing else", path, kMaxKeySourceBytes));
  }
  return filled;
}

}  // namespace

Result<KeyRing> load_key_file(const std::string& path) {
  SecretBuffer text(kMaxKeySourceBytes + 1);
  FINCHKV_ASSIGN_OR_RETURN(const std::size_t filled, read_key_file(path, text));
  return parse_keys(text.bytes().first(filled), path);
}

Result<KeyRing> load_key_command(const std::string& command, std::chrono::milliseconds limit) {
  SecretBuffer text(kMaxKeySourceBytes + 1);
  FINCHKV_ASSIGN_OR_RETURN(const std::size_t filled, run_key_command(command, limit, text.bytes()));
  return parse_keys(text.bytes().first(filled), "the key command's output");
}

Result<KeyId> generate_key_file(const std::string& path) {
  const KeyEncryptionKey key = KeyEncryptionKey::random();
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (file.get() < 0) {
    if (errno != EEXIST) return file_error(errno, path, "making the key file");
    return Status::invalid_argument(
        fmt::format("there is a file {} already, and a key is never overwritten: name another", path));
  }
  Status written = write_keys(file.get(), path, {&key, 1});
  if (written.is_ok()) written = sync_parent(path);
  if (!written.is_ok()) {
    ::unlink(path.c_str());
    return written;
  }
  return KeyId::of(key);
}

Result<KeyId> rotate_key_file(const std::string& path) {
  SecretBuffer text(kMaxKeySourceBytes + 1);
  FINCHKV_ASSIGN_OR_RETURN(const std::size_t filled, read_key_file(path, text));
  FINCHKV_ASSIGN_OR_RETURN(std::vector<KeyEncryptionKey> keys, split_keys(text.bytes().first(filled), path));
  if ((keys.size() + 1) * (kHexDigits + 1) > kMaxKeySourceBytes) {
    return Status::invalid_argument(
        fmt::format("{} holds {} keys and has no room for another: take out those that no entry and no backup needs",
                    path, keys.size()));
  }
  keys.insert(keys.begin(), KeyEncryptionKey::random());
  const KeyId id = KeyId::of(keys.front());
  std::string temporary = path + ".XXXXXX";
  const Descriptor file(::mkostemp(temporary.data(), O_CLOEXEC));
  if (file.get() < 0) return file_error(errno, path, "writing the new key beside it");
  Status written = write_keys(file.get(), temporary, keys);
  if (written.is_ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    written = file_error(errno, path, "putting the new key in front");
  }
  if (!written.is_ok()) {
    ::unlink(temporary.c_str());
    return written;
  }
  FINCHKV_RETURN_IF_ERROR(sync_parent(path));
  return id;
}

}  // namespace finchkv::cache_store
