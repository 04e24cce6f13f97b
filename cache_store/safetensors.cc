#include "cache_store/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <string_view>

#include <fmt/format.h>

#include "base/key_turner.h"
#include "base/mapped_file.h"
#include "cache_store/safetensors_header.h"

namespace finchkv::cache_store {
namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 8U << 20;  // 4096 layers need less than a quarter

// A file that takes its name only when it is whole.
class NewFile {
 public:
  explicit NewFile(std::string path) : path_(std::move(path)), temporary_(fmt::format("{}.{}.new", path_, getpid())) {}
  ~NewFile() {
    if (fd_ >= 0) close(fd_);
    if (fd_ >= 0 || failed_) unlink(temporary_.c_str());
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  Status create() {
    fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    return fd_ >= 0 ? Status::ok() : error("making");
  }
  Status append(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return error("writing");
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    return Status::ok();
  }
  Status finish() {
    if (fsync(fd_) != 0) return error("syncing");
    const int closed = close(fd_);
    fd_ = -1;
    if (closed != 0 || rename(temporary_.c_str(), path_.c_str()) != 0) {
      failed_ = true;
      return error("finishing");
    }
    return Status::ok();
  }

 private:
  [[nodiscard]] Status error(std::string_view doing) const {
    const int code = errno;
    const std::string sentence = fmt::format("{} {} failed: {}", doing, path_, std::strerror(code));
    if (code == ENOSPC || code == EDQUOT || code == EFBIG) {
      return Status::resource_exhausted(sentence + "; free some space and export again");
    }
    if (code == EACCES || code == EPERM || code == EROFS) return Status::permission_denied(sentence);
    if (code == ENOENT || code == ENOTDIR || code == EISDIR) return Status::invalid_argument(sentence);
    return Status::unavailable(sentence);
  }

  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  bool failed_ = false;
};

// The keys of one layer at their new positions. Shorter layers sit at the end, so that the prompt follows all of them.
Result<std::vector<std::byte>> rotated_keys(const KvSet& set, const KvLayer& layer, std::uint64_t base) {
  try {
    FINCHKV_ASSIGN_OR_RETURN(const KeyTurner turner,
                             KeyTurner::create(set.rope, set.shape.head_dim, PairOrder::kAsStored, /*rotate=*/true,
                                               base + set.max_kept() - layer.n_kept, layer.n_kept));
    std::vector<std::byte> out(layer.keys.size());
    turner.turn(layer.keys, set.dtype, set.shape.n_kv_heads, layer.n_kept, out, set.dtype);
    return out;
  } catch (const std::bad_alloc&) {
    return Status::resource_exhausted(fmt::format("no memory to rotate {} bytes of keys", layer.keys.size()));
  }
}

Status check_export(const KvSet& set, const CacheIdentity& identity, const ExportOptions& options) {
  FINCHKV_RETURN_IF_ERROR(set.validate());
  FINCHKV_RETURN_IF_ERROR(identity.validate());
  if (set.doc_tokens > 0x7fffffffU) {
    return Status::invalid_argument("origins beyond 2^31 do not fit the file's 32-bit integers");
  }
  if (!options.rope_base) return Status::ok();
  if (set.key_form != KeyForm::kPreRope) {
    return Status::invalid_argument(
        fmt::format("keys of form {} cannot be rotated: export them without a RoPE base", key_form_name(set.key_form)));
  }
  if (*options.rope_base > 0xffffffffU) {
    return Status::invalid_argument(fmt::format("RoPE base {} is no position", *options.rope_base));
  }
  return Status::ok();
}

Status write_set(NewFile& file, const KvSet& set, const CacheIdentity& identity, const ExportOptions& options) {
  FINCHKV_RETURN_IF_ERROR(file.create());
  FINCHKV_RETURN_IF_ERROR(file.append(as_byte_span(make_safetensors_header(set, identity, options.rope_base))));
  for (const KvLayer& layer : set.layers) {
    if (options.rope_base) {
      FINCHKV_ASSIGN_OR_RETURN(const auto keys, rotated_keys(set, layer, *options.rope_base));
      FINCHKV_RETURN_IF_ERROR(file.append(keys));
    } else {
      FINCHKV_RETURN_IF_ERROR(file.append(layer.keys));
    }
    FINCHKV_RETURN_IF_ERROR(file.append(layer.values));
    FINCHKV_RETURN_IF_ERROR(file.append(std::as_bytes(layer.origins)));
  }
  return file.finish();
}

Result<ImportedSet> parse_file(std::span<const std::byte> file) {
  if (file.size() < kLengthBytes) return Status::corrupt("it is shorter than the length of a header");
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), kLengthBytes);
  if (header_bytes > kMaxHeaderBytes || header_bytes > file.size() - kLengthBytes) {
    return Status::corrupt(fmt::format("its header would have {} bytes", header_bytes));
  }
  const auto json = file.subspan(kLengthBytes, header_bytes);
  const auto data = file.subspan(kLengthBytes + header_bytes);
  FINCHKV_ASSIGN_OR_RETURN(
      SafetensorsHeader header,
      parse_safetensors_header({reinterpret_cast<const char*>(json.data()), json.size()}, data.size()));
  // The header's tensors tile the data, so this is no more memory than the file has bytes.
  const std::shared_ptr<std::byte> memory = allocate_shared_bytes(data.size() + 64 * header.layers.size() * 3);
  if (!memory) return Status::resource_exhausted(fmt::format("there is no memory for its {} bytes", data.size()));
  ImportedSet out{.identity = std::move(header.identity), .set = std::move(header.form)};
  std::size_t at = 0;
  const auto take = [&](const TensorPlace& place) {
    const std::span<std::byte> to(memory.get() + at, place.end - place.begin);
    if (!to.empty()) std::memcpy(to.data(), data.data() + place.begin, to.size());
    at += (to.size() + 63) / 64 * 64;
    return std::span<const std::byte>(to);
  };
  for (const LayerPlaces& places : header.layers) {
    KvLayer layer;
    layer.n_kept = places.n_kept;
    layer.keys = take(places.key);
    layer.values = take(places.value);
    const auto origins = take(places.origin);
    layer.origins = {reinterpret_cast<const std::uint32_t*>(origins.data()), origins.size() / sizeof(std::uint32_t)};
    out.set.layers.push_back(layer);
  }
  out.set.memory.push_back(memory);
  if (const Status valid = out.set.validate(); !valid.is_ok()) return Status::corrupt(valid.message());
  if (out.set.key_form != KeyForm::kRotated && out.set.next_position < out.set.max_kept()) {
    return Status::corrupt("its next position lies before its last kept entry");
  }
  return out;
}

}  // namespace

Status export_safetensors(const KvSet& set, const CacheIdentity& identity, const std::string& path,
                          const ExportOptions& options) {
  FINCHKV_RETURN_IF_ERROR(check_export(set, identity, options));
  NewFile file(path);
  return write_set(file, set, identity, options);
}

Result<ImportedSet> parse_safetensors(std::span<const std::byte> file, const std::string& name) {
  auto parsed = parse_file(file);
  if (parsed.is_ok()) return parsed;
  return Status(parsed.status().code(), fmt::format("{} cannot be imported: {}", name, parsed.status().message()));
}

Result<ImportedSet> import_safetensors(const std::string& path) {
  FINCHKV_ASSIGN_OR_RETURN(const auto file, MappedFile::open(path));
  return parse_safetensors(file.bytes(), path);
}

}  // namespace finchkv::cache_store
