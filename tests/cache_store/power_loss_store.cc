#include "tests/cache_store/power_loss_store.h"

#include <algorithm>
#include <cstdio>

#include <rocksdb/db.h>

namespace finchkv::cache_store::testing {
namespace {

constexpr std::uint32_t kNames = 16;
constexpr std::uint64_t kLarge = 24U << 10;  // puts from here on go past the log
constexpr std::uint64_t kPatience = 12;      // errors before a life ends

bool is_large(std::uint32_t name) { return name % 4 == 0; }

SetSpec spec_of(std::uint32_t name) {
  if (is_large(name)) return {.layers = 2, .heads = 2, .dim = 64, .kept = 40, .doc_tokens = 100};
  return {.kept = 1 + name};
}

unsigned long long as_printed(std::uint64_t n) { return n; }

RocksDbOptions store_options(rocksdb::Env* env) {
  RocksDbOptions options;
  options.large_put_bytes = kLarge;
  options.env = env;
  return options;
}

// Everything outside the default family, by a reader of our own that leaves the directory as it is.
std::uint64_t blocks_in(const std::string& directory) {
  rocksdb::DBOptions options;
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  std::vector<std::string> names;
  EXPECT_TRUE(rocksdb::DB::ListColumnFamilies(options, directory, &names).ok());
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  families.reserve(names.size());
  for (const std::string& name : names) families.emplace_back(name, rocksdb::ColumnFamilyOptions());
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* opened = nullptr;
  const auto status = rocksdb::DB::OpenForReadOnly(options, directory, families, &handles, &opened);
  EXPECT_TRUE(status.ok()) << status.ToString();
  if (!status.ok()) return 0;
  const std::unique_ptr<rocksdb::DB> db(opened);
  std::uint64_t blocks = 0;
  for (rocksdb::ColumnFamilyHandle* handle : handles) {
    if (handle->GetName() != rocksdb::kDefaultColumnFamilyName) {
      const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator({}, handle));
      for (it->SeekToFirst(); it->Valid(); it->Next()) ++blocks;
      EXPECT_TRUE(it->status().ok()) << it->status().ToString();
    }
    db->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  }
  return blocks;
}

std::uint64_t blocks_of_one_entry(std::uint32_t name) {
  const ScratchDirectory scratch;
  {
    auto host = open_rocksdb_store(scratch.store(), store_options(nullptr));
    EXPECT_TRUE((*(*host)->view({}))->put(power_loss_entries().request(name, 1)).is_ok());
  }
  return blocks_in(scratch.store());
}

}  // namespace

const VersionedEntries& power_loss_entries() {
  static const VersionedEntries entries(kNames, spec_of);
  return entries;
}

void Tally::add(const Tally& other) {
  lives += other.lives;
  acknowledged += other.acknowledged;
  failed_openings += other.failed_openings;
  for (std::size_t i = 0; i < errors.size(); ++i) errors[i] += other.errors[i];
  for (std::size_t i = 0; i < kFaultKinds; ++i) injected[i] += other.injected[i];
}

void Tally::print() const {
  std::printf("%llu lives, %llu acknowledged, %llu failed openings", as_printed(lives), as_printed(acknowledged),
              as_printed(failed_openings));
  for (std::size_t i = 0; i < errors.size(); ++i) {
    if (errors[i] == 0) continue;
    std::printf(", %s %llu", status_code_name(static_cast<StatusCode>(i)).data(), as_printed(errors[i]));
  }
  for (std::size_t i = 0; i < kFaultKinds; ++i) {
    if (injected[i] == 0) continue;
    std::printf(", %s %llu", fault_name(static_cast<Fault>(i)).data(), as_printed(injected[i]));
  }
  std::printf("\n");
}

void expect_a_disks_fault(const Status& status, Tally& tally) {
  ++tally.errors[static_cast<std::size_t>(status.code())];
  EXPECT_TRUE(status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kResourceExhausted ||
              status.code() == StatusCode::kCorrupt)
      << status.to_string();
}

PowerLoss::PowerLoss(std::uint64_t seed, TornEnds ends) : ends_(ends), random_(seed) {
  for (std::uint32_t name = 0; name < kNames; ++name) allowed_[name] = {kAbsent};
}

void PowerLoss::live(const Life& life) {
  ++tally_.lives;
  fs_->inject(life.rates, random_());
  if (!life.faults_while_opening) fs_->stop_injecting();
  fs_->crash_after(random_() % (random_() % 4 == 0 ? 30 : 200));
  if (life.full_disk) fs_->limit_bytes(random_() % (200U << 10));
  {
    Opened opened;
    if (const Status status = open(opened); status.is_ok()) {
      fs_->inject(life.rates, random_());
      const std::uint64_t errors = tally_.all_errors();
      for (int i = 0; i < 60 && !fs_->crashed() && !::testing::Test::HasFatalFailure(); ++i) {
        operate(opened);
        if (tally_.all_errors() - errors > kPatience) break;  // the database may want to be opened again
      }
    } else {
      ++tally_.failed_openings;
      expect_a_disks_fault(status, tally_);
    }
    fs_->crash();
  }
  fs_->stop_injecting();
  fs_->limit_bytes({});
  if (life.killed) {
    fs_->keep_unsynced();
  } else {
    fs_->drop_unsynced(random_(), ends_);
  }
  if (!::testing::Test::HasFatalFailure()) settle(!life.killed);
}

void PowerLoss::count_blocks() {
  static const std::map<bool, std::uint64_t> per_entry = {{false, blocks_of_one_entry(1)},
                                                          {true, blocks_of_one_entry(0)}};
  std::uint64_t expected = 0;
  for (const auto& [name, version] : showing_) {
    if (version != kAbsent) expected += per_entry.at(is_large(name));
  }
  ASSERT_EQ(blocks_in(scratch_.store()), expected) << "blocks without a head, or a head without blocks";
}

Tally PowerLoss::tally() const {
  Tally tally = tally_;
  tally.injected = fs_->injected();
  return tally;
}

Status PowerLoss::open(Opened& opened) {
  auto host = open_rocksdb_store(scratch_.store(), store_options(&env_));
  if (!host.is_ok()) return host.status();
  auto store = (*host)->view({});
  if (!store.is_ok()) return store.status();
  opened = {*std::move(host), *std::move(store)};
  return Status::ok();
}

void PowerLoss::operate(Opened& opened) {
  const std::uint32_t name = static_cast<std::uint32_t>(random_() % kNames);
  switch (random_() % 16) {
    case 0:
    case 1:
    case 2: remove(opened, name); break;
    case 3:
    case 4:
    case 5: check(opened, name, Seen::kAmongFaults); break;
    case 6: {
      const auto report = opened.host->gc();
      if (!report.is_ok()) expect_a_disks_fault(report.status(), tally_);
      return;
    }
    default: put(opened, name);
  }
}

void PowerLoss::remove(Opened& opened, std::uint32_t name) {
  std::set<std::uint32_t>& versions = allowed_[name];
  const Status removed = opened.store->remove(power_loss_entries().id(name));
  if (removed.code() == StatusCode::kNotFound) {
    ASSERT_TRUE(versions.contains(kAbsent)) << removed.to_string();
  } else if (!removed.is_ok()) {
    expect_a_disks_fault(removed, tally_);
    versions.insert(kAbsent);
    return;
  }
  ++tally_.acknowledged;
  versions = {kAbsent};
}

void PowerLoss::put(Opened& opened, std::uint32_t name) {
  std::set<std::uint32_t>& versions = allowed_[name];
  PutRequest request = power_loss_entries().request(name, ++version_);
  if (random_() % 4 == 0) request.if_exists = IfExists::kKeep;
  const auto info = opened.store->put(request);
  if (!info.is_ok()) {
    expect_a_disks_fault(info.status(), tally_);
    versions.insert(version_);
    return;
  }
  ++tally_.acknowledged;
  const auto kept = static_cast<std::uint32_t>(std::stoul(info->label));  // ours, or what was there already
  if (kept != version_) {
    ASSERT_EQ(request.if_exists, IfExists::kKeep);
    ASSERT_TRUE(versions.contains(kept)) << "entry " << name << " has version " << kept;
  } else if (request.if_exists == IfExists::kKeep) {
    ASSERT_TRUE(versions.contains(kAbsent)) << "entry " << name << " was gone";
  }
  versions = {kept};
}

// What the store shows of a name is allowed.
void PowerLoss::check(Opened& opened, std::uint32_t name, Seen seen_how) {
  std::set<std::uint32_t>& versions = allowed_[name];
  const auto set = opened.store->get(power_loss_entries().id(name));
  std::uint32_t seen = kAbsent;
  if (set.is_ok()) {
    const auto found = std::find_if(versions.begin(), versions.end(),
                                    [&](auto v) { return v != kAbsent && power_loss_entries().holds(*set, name, v); });
    ASSERT_NE(found, versions.end()) << "entry " << name << " holds bytes that it cannot have";
    seen = *found;
  } else if (set.status().code() == StatusCode::kNotFound) {
    ASSERT_TRUE(versions.contains(kAbsent)) << "acknowledged entry " << name << " is gone";
  } else {
    ASSERT_TRUE(seen_how == Seen::kAmongFaults) << "name " << name << ": " << set.status().to_string();
    expect_a_disks_fault(set.status(), tally_);
    return;
  }
  if (seen_how == Seen::kAmongFaults) return;
  if (seen_how == Seen::kForGood) versions = {seen};
  showing_[name] = seen;
  if (seen != kAbsent) {
    ASSERT_TRUE(opened.store->verify(power_loss_entries().id(name)).is_ok());
  }
}

// Afterwards the store opens, shows what it may, and takes and gives as ever. What a killed process left is in the
// page cache only: it can still be lost, unless a put or a removal has said that it is so.
void PowerLoss::settle(bool for_good) {
  Opened opened;
  const Status status = open(opened);
  ASSERT_TRUE(status.is_ok()) << "the store does not open again: " << status.to_string();
  for (std::uint32_t name = 0; name < kNames; ++name) {
    check(opened, name, for_good ? Seen::kForGood : Seen::kUnsynced);
    if (::testing::Test::HasFatalFailure()) return;
  }
  const auto page = opened.store->list({}, 1000);
  ASSERT_TRUE(page.is_ok());
  EXPECT_TRUE(page->unreadable.empty());
  std::set<CacheId> listed;
  for (const EntryInfo& entry : page->entries) listed.insert(entry.id);
  for (const auto& [name, version] : showing_) {
    EXPECT_EQ(listed.contains(power_loss_entries().id(name)), version != kAbsent) << "name " << name;
  }
  ASSERT_TRUE(opened.host->gc().is_ok());
  const auto again = opened.host->gc();
  ASSERT_TRUE(again.is_ok());
  EXPECT_EQ(again->blocks, 0U);
  const auto name = static_cast<std::uint32_t>(random_() % kNames);
  const auto put = opened.store->put(power_loss_entries().request(name, ++version_));
  ASSERT_TRUE(put.is_ok()) << put.status().to_string();
  allowed_[name] = {showing_[name] = version_};
}

}  // namespace finchkv::cache_store::testing
