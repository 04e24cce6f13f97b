#include "tests/cache_store/disk_ledger.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>

namespace finchkv::cache_store::testing {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kPage = 4096;

std::string plain(const std::string& name) { return fs::path(name).lexically_normal().string(); }

std::string read_range(const std::string& path, std::uint64_t from, std::uint64_t to) {
  std::string bytes(to - from, '\0');
  std::ifstream in(path, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(from));
  in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!in) throw std::runtime_error("the disk ledger cannot read " + path);
  return bytes;
}

void write_at(const std::string& path, std::uint64_t offset, const std::string& bytes) {
  std::fstream out(path, std::ios::binary | std::ios::in | std::ios::out);
  out.seekp(static_cast<std::streamoff>(offset));
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!out.flush()) throw std::runtime_error("the disk ledger cannot write " + path);
}

// Each page of [from, to) is zero with even chances.
void punch(const std::string& path, std::uint64_t from, std::uint64_t to, std::mt19937_64& random) {
  while (from < to) {
    const std::uint64_t end = std::min(to, (from / kPage + 1) * kPage);
    if (random() % 2 == 0) write_at(path, from, std::string(end - from, '\0'));
    from = end;
  }
}

}  // namespace

DiskLedger::FilePtr DiskLedger::fresh(std::uint64_t size) {
  auto file = std::make_shared<File>();
  file->number = next_number_++;
  file->size = file->synced = size;
  return file;
}

DiskLedger::FilePtr DiskLedger::at(const std::string& name) {
  const std::string path = plain(name);
  const auto found = names_.find(path);
  if (found != names_.end()) return found->second;
  return durable_[path] = names_[path] = fresh(fs::file_size(path));
}

DiskLedger::FilePtr DiskLedger::creating(const std::string& name) {
  if (fs::exists(name)) {
    truncating(name, 0);
    return at(name);
  }
  const std::string path = plain(name);
  pending_.push_back({Change::Kind::kLink, path, {}, names_[path] = fresh(0)});
  return pending_.back().file;
}

void DiskLedger::truncating(const std::string& name, std::uint64_t size) {
  File& file = *at(name);
  if (size < file.synced) {
    // Nothing was synced since an earlier truncation: what the disk has follows on what this one takes away.
    file.cut = read_range(plain(name), size, file.synced) + file.cut;
    file.cut_at = size;
    file.synced = size;
  }
  file.size = std::min(file.size, size);
}

void DiskLedger::put_aside(const std::string& path) {
  const std::string spare = spare_of(*names_.at(path));
  if (fs::exists(spare)) return;
  fs::create_directories(spare_);
  fs::create_hard_link(path, spare);
}

void DiskLedger::removing(const std::string& name) {
  const std::string path = plain(name);
  (void)at(path);
  put_aside(path);
  names_.erase(path);
  pending_.push_back({Change::Kind::kRemove, path, {}, nullptr});
}

void DiskLedger::renaming(const std::string& from, const std::string& to) {
  const std::string source = plain(from);
  const std::string target = plain(to);
  const FilePtr file = at(source);
  if (fs::exists(target)) {
    (void)at(target);
    put_aside(target);
  }
  names_.erase(source);
  names_[target] = file;
  pending_.push_back({Change::Kind::kRename, target, source, file});
}

void DiskLedger::linked(const std::string& from, const std::string& to) {
  const FilePtr file = at(from);
  names_[plain(to)] = file;
  pending_.push_back({Change::Kind::kLink, plain(to), {}, file});
}

void DiskLedger::synced(File& file, std::uint64_t size) {
  file.synced = std::max(file.synced, std::min(size, file.size));
  file.cut.clear();
}

void DiskLedger::sync_failed(File& file) {
  if (file.synced < file.size) file.doubtful.emplace_back(file.synced, file.size);
}

void DiskLedger::apply(const Change& change, Names& names) {
  if (change.kind == Change::Kind::kRename) names.erase(change.from);
  if (change.kind == Change::Kind::kRemove) {
    names.erase(change.name);
  } else {
    names[change.name] = change.file;
  }
}

void DiskLedger::directory_synced(const std::string& directory) {
  fs::path wanted(plain(directory));
  if (!wanted.has_filename()) wanted = wanted.parent_path();  // "dir/"
  std::erase_if(pending_, [&](const Change& change) {
    if (fs::path(change.name).parent_path() != wanted) return false;
    apply(change, durable_);
    return true;
  });
  drop_spare_files();
}

std::string DiskLedger::spare_of(const File& file) const {
  return (fs::path(spare_) / std::to_string(file.number)).string();
}

void DiskLedger::drop_spare_files() {
  if (!fs::exists(spare_)) return;
  std::set<std::string> wanted;
  for (const auto& [name, file] : durable_) wanted.insert(spare_of(*file));
  for (const Change& change : pending_) {
    if (change.file) wanted.insert(spare_of(*change.file));
  }
  for (const auto& entry : fs::directory_iterator(spare_)) {
    if (!wanted.contains(entry.path().string())) fs::remove(entry.path());
  }
}

// The changes since the last sync up to some moment.
DiskLedger::Names DiskLedger::survivors(std::mt19937_64& random) const {
  Names names = durable_;
  const std::uint64_t moment = random() % 2 == 0 ? 0 : random() % (pending_.size() + 1);
  for (std::size_t i = 0; i < moment; ++i) apply(pending_[i], names);
  return names;
}

void DiskLedger::tear(const std::string& path, const File& file, std::mt19937_64& random, TornEnds ends) {
  if (!file.cut.empty() && random() % 2 == 0) {  // the truncation never reached the disk
    fs::resize_file(path, file.cut_at);
    write_at(path, file.cut_at, file.cut);
    return;
  }
  std::uint64_t kept = file.size;
  if (ends == TornEnds::kWithHoles && random() % 2 == 0) {
    punch(path, file.synced, file.size, random);
  } else if (const auto way = random() % 3; way > 0) {
    kept = way == 1 ? file.synced : file.synced + random() % (file.size - file.synced + 1);
  }
  fs::resize_file(path, kept);
  for (const auto& [from, to] : file.doubtful) punch(path, from, std::min(to, file.synced), random);
}

void DiskLedger::lose_power(std::mt19937_64& random, TornEnds ends) {
  const Names names = survivors(random);
  fs::create_directories(spare_);
  for (const auto& [name, file] : names_) {
    put_aside(name);
    fs::remove(name);
  }
  std::map<std::uint64_t, FilePtr> files;  // by number, so that the same seed tears the same way
  for (const auto& [name, file] : names) files[file->number] = file;
  for (const auto& [number, file] : files) tear(spare_of(*file), *file, random, ends);
  for (const auto& [name, file] : names) fs::create_hard_link(spare_of(*file), name);
  fs::remove_all(spare_);
  names_.clear();
  durable_.clear();
  pending_.clear();
}

}  // namespace finchkv::cache_store::testing
