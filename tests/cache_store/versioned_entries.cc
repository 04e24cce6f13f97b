#include "tests/cache_store/versioned_entries.h"

#include <algorithm>
#include <string>

namespace finchkv::cache_store::testing {

VersionedEntries::VersionedEntries(std::uint32_t names, SpecOf spec_of) : spec_of_(spec_of) {
  for (std::uint32_t name = 0; name < names; ++name) {
    first_.push_back(make_put(spec_of(name), name));
    ids_.push_back(cache_id(first_.back().identity, {}));
  }
}

KvSet VersionedEntries::set_of(std::uint32_t name, std::uint32_t version) const {
  return make_set(spec_of_(name), version * names() + name);
}

PutRequest VersionedEntries::request(std::uint32_t name, std::uint32_t version) const {
  PutRequest request = first_[name];
  request.set = set_of(name, version);
  request.label = std::to_string(version);
  request.if_exists = IfExists::kReplace;
  return request;
}

bool VersionedEntries::holds(const KvSet& set, std::uint32_t name, std::uint32_t version) const {
  const KvSet expected = set_of(name, version);
  return std::ranges::equal(set.layers, expected.layers, [](const KvLayer& a, const KvLayer& b) {
    return same_bytes(a.keys, b.keys) && same_bytes(a.values, b.values) && std::ranges::equal(a.origins, b.origins);
  });
}

}  // namespace finchkv::cache_store::testing
