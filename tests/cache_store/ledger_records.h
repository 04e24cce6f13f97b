// Entry records and put ids for the ledger's tests.
#pragma once

#include <cstdint>
#include <cstring>

#include "cache_store/ledger.h"

namespace finchkv::cache_store::testing {

inline CacheId numbered_id(std::uint64_t number) {
  CacheId id;
  std::memcpy(id.bytes.data(), &number, sizeof(number));
  return id;
}

inline PutId numbered_put(std::uint64_t number) {
  PutId put_id;
  std::memcpy(put_id.bytes.data(), &number, sizeof(number));
  return put_id;
}

inline std::uint64_t number_of(const PutId& put_id) {
  std::uint64_t number = 0;
  std::memcpy(&number, put_id.bytes.data(), sizeof(number));
  return number;
}

inline EntryRecord make_record(AccountId account, std::uint64_t id, std::uint64_t put, std::uint64_t bytes) {
  EntryRecord record;
  record.account = account;
  record.id = numbered_id(id);
  record.put_id = numbered_put(put);
  record.bytes = bytes;
  record.cost_ms = 10;
  return record;
}

}  // namespace finchkv::cache_store::testing
