#include "model/fingerprint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include <fmt/format.h>

#include "base/mapped_file.h"

namespace finchkv::model {
namespace {

constexpr std::size_t kLeafBytes = std::size_t{4} << 20;

Result<std::string> stamp(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return Status::not_found(fmt::format("{}: {}", path, std::strerror(errno)));
  return fmt::format("{}.{}.{}.{}.{:09}.{}.{:09}", st.st_dev, st.st_ino, st.st_size, st.st_mtim.tv_sec,
                     st.st_mtim.tv_nsec, st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
}

Result<std::string> stamps(std::span<const std::string> paths) {
  std::string all;
  for (const std::string& path : paths) {
    FINCHKV_ASSIGN_OR_RETURN(const std::string part, stamp(path));
    all += (all.empty() ? "" : "+") + part;
  }
  return all;
}

// Lines of "stamp hex"; later lines win.
std::optional<std::string> recall(const std::string& memory_path, const std::string& key) {
  std::ifstream in(memory_path);
  std::optional<std::string> found;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string stamped, hex;
    if (words >> stamped >> hex && stamped == key && hex.size() == 64) found = hex;
  }
  return found;
}

void remember(const std::string& memory_path, const std::string& key, const std::string& hex) {
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(memory_path).parent_path(), ignored);
  const std::string line = key + " " + hex + "\n";
  // One write() to a file opened for appending: lines of processes that finish together do not mix.
  const int fd = ::open(memory_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return;
  [[maybe_unused]] const auto written = ::write(fd, line.data(), line.size());
  ::close(fd);
}

}  // namespace

Sha256 model_fingerprint(const ModelConfig& config, const Tokenizer& tokenizer) {
  return sha256(as_byte_span(config.canonical() + "tokenizer=" + tokenizer.fingerprint() + "\n"));
}

Result<Sha256> weights_fingerprint(std::span<const std::string> part_paths, const std::string& memory_path,
                                   ThreadPool& pool) {
  FINCHKV_ASSIGN_OR_RETURN(const std::string key, stamps(part_paths));
  if (!memory_path.empty()) {
    if (const auto hex = recall(memory_path, key)) {
      if (const auto raw = from_hex(*hex)) {
        Sha256 out;
        std::memcpy(out.data(), raw->data(), out.size());
        return out;
      }
    }
  }
  std::vector<Sha256> leaves;
  for (const std::string& path : part_paths) {
    FINCHKV_ASSIGN_OR_RETURN(const auto file, MappedFile::open(path));
    const std::span<const std::byte> bytes = file.bytes();
    const std::size_t first = leaves.size();
    const std::size_t count = (bytes.size() + kLeafBytes - 1) / kLeafBytes;
    leaves.resize(first + count);
    pool.run(static_cast<std::int64_t>(count), [&](std::int64_t i, int) {
      const std::size_t at = static_cast<std::size_t>(i) * kLeafBytes;
      leaves[first + static_cast<std::size_t>(i)] = sha256(bytes.subspan(at, std::min(kLeafBytes, bytes.size() - at)));
    });
  }
  const Sha256 root = sha256(std::as_bytes(std::span(leaves)));
  FINCHKV_ASSIGN_OR_RETURN(const std::string after, stamps(part_paths));
  if (after != key)
    return Status::unavailable(fmt::format("{} changed while it was read: try again", part_paths.front()));
  if (!memory_path.empty()) remember(memory_path, key, to_hex(root));
  return root;
}

}  // namespace finchkv::model
