#include "cache_store/library_versions.h"

#include <openssl/crypto.h>
#include <zstd.h>

#include <rocksdb/version.h>

namespace finchkv::cache_store {

std::vector<std::pair<std::string, std::string>> library_versions() {
  return {{"RocksDB", rocksdb::GetRocksVersionAsString()},
          {"zstd", ZSTD_versionString()},
          {"OpenSSL", OpenSSL_version(OPENSSL_VERSION_STRING)}};
}

}  // namespace finchkv::cache_store
