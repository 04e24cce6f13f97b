// Opening RocksDB stores in tests, and looking at their files.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cache_store/rocksdb_store.h"

namespace finchkv::cache_store::testing {

struct Opened {
  std::shared_ptr<StoreHost> host;
  std::unique_ptr<Store> store;
};

inline Opened open(const std::string& directory, const RocksDbOptions& options = {}) {
  auto host = open_rocksdb_store(directory, options);
  EXPECT_TRUE(host.is_ok()) << host.status().message();
  if (!host.is_ok()) return {};
  auto store = (*host)->view({});
  EXPECT_TRUE(store.is_ok());
  return {*host, *std::move(store)};
}

inline Opened open_reader(const std::string& directory) {
  RocksDbOptions options;
  options.mode = RocksDbOptions::Mode::kRead;
  return open(directory, options);
}

inline Status open_status(const std::string& directory, const RocksDbOptions& options = {}) {
  return open_rocksdb_store(directory, options).status();
}

inline std::vector<std::string> files_in(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

inline void write_file(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace finchkv::cache_store::testing
