#include "cache_store/store_url.h"

#include <array>

#include <fmt/format.h>

namespace finchkv::cache_store {

Result<StoreUrl> parse_store_url(std::string_view url) {
  constexpr std::array<std::string_view, 4> kRemote = {"unix:", "tcp://", "tls://", "rados://"};
  constexpr std::string_view kRocksDb = "rocksdb:";
  if (url.empty()) return Status::invalid_argument("no store is named: give its directory");
  if (url == "memory:") return StoreUrl{StoreUrl::Kind::kMemory, {}};
  for (const std::string_view scheme : kRemote) {
    if (url.substr(0, scheme.size()) == scheme) {
      return Status::unsupported(
          fmt::format("{}: stores at {} come with a later version; name a directory", url, scheme));
    }
  }
  if (url.substr(0, kRocksDb.size()) == kRocksDb) url.remove_prefix(kRocksDb.size());
  if (url.empty() || url.find("://") != std::string_view::npos) {
    return Status::invalid_argument(fmt::format("{}: there is no such kind of store; name a directory", url));
  }
  return StoreUrl{StoreUrl::Kind::kDirectory, std::string(url)};
}

}  // namespace finchkv::cache_store
