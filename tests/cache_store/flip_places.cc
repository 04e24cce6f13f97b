#include "tests/cache_store/flip_places.h"

#include <cstring>
#include <iterator>

#include "tests/cache_store/rocksdb_open.h"

namespace finchkv::cache_store::testing {
namespace {

namespace fs = std::filesystem;

std::string kind_of(const fs::path& file) {
  const std::string name = file.filename().string();
  for (const char* skipped : {"LOCK", "finchkv.lock", "IDENTITY", "OPTIONS", "LOG"}) {
    if (name.compare(0, std::strlen(skipped), skipped) == 0) return "";
  }
  if (name.compare(0, 9, "MANIFEST-") == 0) return "manifest";
  for (const char* end : {".log", ".sst", ".blob"}) {
    if (file.extension() == end) return end + 1;
  }
  return name;
}

}  // namespace

// The lengths of a log's or manifest's records (header: checksum 4, length 2, type 1, in blocks of 32 KiB that no
// header straddles): few bytes, and those where damage can look like an end.
std::vector<Flipper::Range> Flipper::record_lengths(const fs::path& path) {
  constexpr std::size_t kBlock = 32768;
  constexpr std::size_t kHeader = 7;
  const std::string bytes = read_file(path);
  std::vector<Range> lengths;
  for (std::size_t at = 0; at + kHeader <= bytes.size();) {
    if (const std::size_t left = kBlock - at % kBlock; left < kHeader) {
      at += left;
      continue;
    }
    lengths.push_back({path.filename().string(), at + 4, 2});
    const auto low = static_cast<unsigned char>(bytes[at + 4]);
    const auto high = static_cast<unsigned char>(bytes[at + 5]);
    at += kHeader + low + 256U * high;
  }
  return lengths;
}

Flipper::Flipper(const std::string& directory, const std::string& only) {
  for (const auto& file : fs::directory_iterator(directory)) {
    if (!file.is_regular_file()) continue;
    const std::string kind = kind_of(file.path());
    if (kind.empty() || file.file_size() == 0) continue;
    ranges_[kind].push_back({file.path().filename().string(), 0, file.file_size()});
    if (kind == "log" || kind == "manifest") {
      auto& lengths = ranges_[kind + " lengths"];
      for (Range& length : record_lengths(file.path())) lengths.push_back(std::move(length));
    }
  }
  if (!only.empty()) std::erase_if(ranges_, [&](const auto& kind) { return kind.first != only; });
}

std::pair<std::string, Flip> Flipper::next(std::mt19937_64& random) const {
  const auto kind = std::next(ranges_.begin(), static_cast<std::ptrdiff_t>(random() % ranges_.size()));
  std::uint64_t place = random() % bytes_of(kind->first);
  auto range = kind->second.begin();
  for (; place >= range->bytes; ++range) place -= range->bytes;
  return {kind->first, {range->file, range->from + place, static_cast<int>(random() % 8)}};
}

std::uint64_t Flipper::bytes_of(const std::string& kind) const {
  std::uint64_t total = 0;
  for (const Range& range : ranges_.at(kind)) total += range.bytes;
  return total;
}

// A writer cuts the end of its log off and must not share it.
void copy_with(const std::string& from, const std::string& to, const Flip& flip, RocksDbOptions::Mode mode) {
  fs::remove_all(to);
  fs::create_directory(to);
  for (const auto& file : fs::directory_iterator(from)) {
    if (!file.is_regular_file()) continue;
    const std::string name = file.path().filename().string();
    const fs::path target = fs::path(to) / name;
    if (name == flip.file || mode == RocksDbOptions::Mode::kWrite) {
      fs::copy_file(file.path(), target);
    } else {
      fs::create_hard_link(file.path(), target);
    }
  }
  if (flip.file.empty()) return;
  const fs::path target = fs::path(to) / flip.file;
  std::string bytes = read_file(target);
  bytes[flip.byte] ^= static_cast<char>(1U << flip.bit);
  write_file(target, bytes);
}

}  // namespace finchkv::cache_store::testing
