#include "tests/cache_store/kill9_history.h"

#include <algorithm>
#include <cstdio>

namespace finchkv::cache_store::testing {

Kill9History::Kill9History() {
  for (std::uint32_t name = 0; name < kKill9Names; ++name) now_[name] = {kAbsent};
}

void Kill9History::may_be(std::uint32_t name, std::uint32_t version) {
  now_[name].insert(version);
  if (in_backup_) (*in_backup_)[name].insert(version);
}

void Kill9History::is_one_of(std::uint32_t name, const std::set<std::uint32_t>& versions) {
  now_[name] = versions;
  if (in_backup_) (*in_backup_)[name].insert(versions.begin(), versions.end());
}

// Only a put makes the store evict, and it may take whatever is not pinned.
void Kill9History::begin_put(std::uint32_t name, std::uint32_t version) {
  being_put_.insert(name);
  if (being_put_.size() > 1) beside_others_ = being_put_;
  for (std::uint32_t other = 0; other < kKill9Names; ++other) {
    if (!is_pinned(other)) may_be(other, kAbsent);
  }
  may_be(name, version);
}

void Kill9History::end_put(std::uint32_t name, std::uint32_t version) {
  being_put_.erase(name);
  const bool alone = beside_others_.erase(name) == 0;
  is_one_of(name, alone || is_pinned(name) ? std::set{version} : std::set{version, kAbsent});
  ++acknowledged_;
}

void Kill9History::follow(const std::string& said) {
  being_put_.clear();
  beside_others_.clear();
  in_backup_.reset();
  begun_ = false;
  std::uint32_t evicted = 0;
  std::size_t at = 0;
  for (std::size_t end = 0; (end = said.find('\n', at)) != std::string::npos; at = end + 1) {
    char what = 0;
    unsigned name = 0;
    unsigned version = 0;
    ASSERT_EQ(std::sscanf(said.c_str() + at, "%c %u %u", &what, &name, &version), 3);
    switch (static_cast<Said>(what)) {
      case Said::kOpened: opened_ = true; break;
      case Said::kPutting: begin_put(name, version); break;
      case Said::kPut: end_put(name, version); break;
      case Said::kRemoving: may_be(name, kAbsent); break;
      case Said::kRemoved:
        is_one_of(name, {kAbsent});
        ++acknowledged_;
        break;
      case Said::kBackingUp:
        in_backup_ = now_;
        begun_ = true;
        break;
      case Said::kBackedUp:
        ASSERT_TRUE(in_backup_);
        last_backup_ = {name, *std::move(in_backup_)};
        in_backup_.reset();
        ++backups_;
        break;
      case Said::kEvicted: evicted = std::max(evicted, name); break;
      default: FAIL() << "the child said " << what;
    }
  }
  evictions_ += evicted;
}

}  // namespace finchkv::cache_store::testing
