// Which versions of the libraries under the store this program runs with, for reports.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace finchkv::cache_store {

/// {"RocksDB", "7.8.3"}, ...: of what is loaded, which may be newer than what was compiled against.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> library_versions();

}  // namespace finchkv::cache_store
