#include "cache_store/hit_spool.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <span>

#include "base/digest.h"

namespace finchkv::cache_store {
namespace {

constexpr off_t kMostBytes = 1 << 20;  // nobody takes them in: a store without a writer for long
constexpr std::size_t kMaxOwner = 64;

struct Record {
  std::array<std::uint8_t, 32> id{};
  std::uint64_t unix_ms = 0;
  std::uint8_t owner_bytes = 0;
  std::array<char, kMaxOwner> owner{};
  std::uint8_t hit = 0;
  std::array<std::uint8_t, 6> unused{};
};
constexpr std::size_t kRecord = sizeof(Record);
constexpr std::size_t kStored = kRecord + sizeof(BlockDigest);

std::string path_of(const std::string& directory) { return directory + "/finchkv.hits"; }

std::array<std::byte, kStored> encode(const Record& record) {
  std::array<std::byte, kStored> out{};
  std::memcpy(out.data(), &record, kRecord);
  const BlockDigest digest = block_digest(std::span(out).first(kRecord));
  std::memcpy(out.data() + kRecord, digest.data(), digest.size());
  return out;
}

}  // namespace

void spool_lookup(const std::string& directory, const SpooledLookup& lookup) {
  if (lookup.owner.size() > kMaxOwner) return;
  const int fd = open(path_of(directory).c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return;
  struct stat now {};
  if (fstat(fd, &now) == 0 && now.st_size < kMostBytes) {
    Record record;
    record.id = lookup.id.bytes;
    record.unix_ms = lookup.unix_ms;
    record.owner_bytes = static_cast<std::uint8_t>(lookup.owner.size());
    std::memcpy(record.owner.data(), lookup.owner.data(), lookup.owner.size());
    record.hit = lookup.hit ? 1 : 0;
    const auto bytes = encode(record);
    if (write(fd, bytes.data(), bytes.size()) < 0) {
      // A full disk: the look-up is not counted.
    }
  }
  close(fd);
}

void take_spooled_lookups(const std::string& directory, const std::function<void(const SpooledLookup&)>& use) {
  const std::string path = path_of(directory);
  const std::string taken = path + ".taken";
  if (std::rename(path.c_str(), taken.c_str()) != 0) return;
  std::ifstream file(taken, std::ios::binary);
  std::array<std::byte, kStored> bytes{};
  while (file.read(reinterpret_cast<char*>(bytes.data()), kStored)) {
    Record record;
    std::memcpy(&record, bytes.data(), kRecord);
    if (record.owner_bytes > kMaxOwner || encode(record) != bytes) continue;
    use({.owner = {record.owner.data(), record.owner_bytes},
         .id = {record.id},
         .unix_ms = record.unix_ms,
         .hit = record.hit != 0});
  }
  std::remove(taken.c_str());
}

}  // namespace finchkv::cache_store
