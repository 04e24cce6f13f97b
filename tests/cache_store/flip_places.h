// Where bit_flip_test flips bits: the files of a store by kind, and copies of a store with one bit flipped.
//
// The lock files and the texts that RocksDB writes for people (OPTIONS, IDENTITY, LOG) are left alone: nothing of an
// answer stands in them. Immutable once made.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cache_store/rocksdb_store.h"

namespace finchkv::cache_store::testing {

struct Flip {
  std::string file;
  std::uint64_t byte = 0;
  int bit = 0;
};

// Every kind of place as often as any other, every bit of a kind as often as any other.
class Flipper {
 public:
  // With a kind of `only`, nothing else is flipped.
  Flipper(const std::string& directory, const std::string& only);
  [[nodiscard]] std::pair<std::string, Flip> next(std::mt19937_64& random) const;
  [[nodiscard]] bool has(const std::string& kind) const { return ranges_.contains(kind); }
  [[nodiscard]] std::uint64_t bytes_of(const std::string& kind) const;

 private:
  struct Range {
    std::string file;
    std::uint64_t from;
    std::uint64_t bytes;
  };
  static std::vector<Range> record_lengths(const std::filesystem::path& path);

  std::map<std::string, std::vector<Range>> ranges_;
};

// All files but the flipped one are hard links where the store is only read. Without a file in `flip`, a copy as it is.
void copy_with(const std::string& from, const std::string& to, const Flip& flip, RocksDbOptions::Mode mode);

}  // namespace finchkv::cache_store::testing
