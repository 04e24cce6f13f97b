#include "cache_store/rocksdb_host.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "cache_store/hit_spool.h"
#include "cache_store/rocksdb_status.h"
#include "cache_store/settings.h"
#include "cache_store/store_common.h"

namespace finchkv::cache_store {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) { return as_byte_span(text); }

// A reader may have a store of format 1 before it.
std::optional<AccessRecord> decode_any_access(std::string_view record) {
  auto access = decode_access(record);
  return access ? access : decode_access_1(record);
}

}  // namespace

Result<std::shared_ptr<StoreHost>> open_rocksdb_store(const std::string& directory, const RocksDbOptions& options) {
  return RocksDbHost::open(directory, options);
}

RocksDbHost::RocksDbHost(std::string directory, RocksDbOptions options)
    : directory_(std::move(directory)),
      options_(std::move(options)),
      written_(std::make_shared<WriteCounter>()),
      pool_(options_.read_threads.value_or(ReadPool::usual_threads())) {
  rocksdb::Env* const below = options_.env != nullptr ? options_.env : rocksdb::Env::Default();
  env_ = rocksdb::NewCompositeEnv(make_direct_file_system(below->GetFileSystem(), written_));
}

Result<std::shared_ptr<StoreHost>> RocksDbHost::open(const std::string& directory, const RocksDbOptions& options) {
  if (options.settings) FINCHKV_RETURN_IF_ERROR(options.settings->validate());
  std::shared_ptr<RocksDbHost> host(new RocksDbHost(directory, options));
  FINCHKV_RETURN_IF_ERROR(host->is_reader() ? host->open_reader() : host->open_writer());
  return std::shared_ptr<StoreHost>(std::move(host));
}

RocksDbHost::~RocksDbHost() {
  stop_upkeep();
  if (!loaded_whole_ || write_failed_.load()) return;
  delete_released();  // what the last stream kept
  absorb_hits();
  write_dirty();
  write_counters();
  // Only a store that holds nothing but its entries, whatever becomes of the machine from here on, was closed: any
  // other is looked through by the next writer.
  const bool clean = ledger().usage().held == 0 && uncertain_.empty();
  if (clean && sync_log()) acknowledged_.note_closed();
}

Status RocksDbHost::open_writer() {
  FINCHKV_ASSIGN_OR_RETURN(DirectoryState state, inspect_directory(directory_));
  if (state != DirectoryState::kStore && !options_.create_if_missing) return no_store(directory_);
  if (state == DirectoryState::kMissing) FINCHKV_RETURN_IF_ERROR(create_directory(directory_));
  FINCHKV_ASSIGN_OR_RETURN(lock_, WriterLock::acquire(directory_, options_.wait));
  FINCHKV_ASSIGN_OR_RETURN(state, inspect_directory(directory_));  // another process may have been first
  if (state == DirectoryState::kEmpty) FINCHKV_RETURN_IF_ERROR(write_marker(directory_));
  FINCHKV_RETURN_IF_ERROR(prepare_incoming(*env_, directory_));
  // Never "create if missing" over a store: RocksDB would then take a lost CURRENT for a new database.
  FINCHKV_ASSIGN_OR_RETURN(database_,
                           open_for_writing(directory_, {.create = state != DirectoryState::kStore, .env = env_}));
  const Acknowledged last = read_acknowledged(directory_);
  FINCHKV_RETURN_IF_ERROR(acknowledged_.open(directory_));
  acknowledged_.sync();  // what a power loss leaves of this writer is to be looked for
  const bool left_open = state == DirectoryState::kStore && (last.open || last.sequence == 0);
  FINCHKV_RETURN_IF_ERROR(load_records(left_open));
  loaded_whole_ = true;
  start_upkeep();
  return Status::ok();
}

Status RocksDbHost::open_reader() {
  FINCHKV_ASSIGN_OR_RETURN(const DirectoryState state, inspect_directory(directory_));
  if (state != DirectoryState::kStore) return no_store(directory_);
  FINCHKV_ASSIGN_OR_RETURN(auto opened, open_for_reading(directory_, {.reader = true, .env = env_}));
  {
    const std::lock_guard lock(database_mutex_);
    database_ = std::move(opened);
  }
  FINCHKV_ASSIGN_OR_RETURN(const StoreSettings settings, kept_settings());
  FINCHKV_ASSIGN_OR_RETURN(limits_, StoreLimits::create(settings));
  return Status::ok();
}

std::shared_ptr<Database> RocksDbHost::database() {
  const std::lock_guard lock(database_mutex_);
  return database_;
}

Result<StoreSettings> RocksDbHost::kept_settings() {
  if (options_.settings) return *options_.settings;
  FINCHKV_ASSIGN_OR_RETURN(const auto record, read_record(std::string(kSettingsKey)));
  return record ? decode_settings(*record) : StoreSettings{};
}

// What the writer keeps in memory of the store.
Status RocksDbHost::load_records(bool left_open) {
  FINCHKV_ASSIGN_OR_RETURN(const StoreSettings settings, kept_settings());
  FINCHKV_ASSIGN_OR_RETURN(limits_, StoreLimits::create(settings));
  FINCHKV_ASSIGN_OR_RETURN(const auto counters, read_record(std::string(kCountersKey)));
  if (counters) loaded_ = decode_counters(*counters).value_or(Counters{});
  noted_counters_ = loaded_;
  FINCHKV_ASSIGN_OR_RETURN(std::vector<PutId> puts, load_ledger());
  // Best effort: damage is for who reads the entry, and must not keep the others from being read.
  if (left_open) (void)count_abandoned(std::move(puts)).is_ok();
  absorb_hits();
  // What is over a limit and cannot go (a full disk, pins) is the next put's to hear of.
  (void)ledger().trim(unix_ms_now(), remover()).is_ok();
  return Status::ok();
}

// The puts of all entries.
Result<std::vector<PutId>> RocksDbHost::load_ledger() {
  std::vector<PutId> puts;
  rocksdb::WriteBatch upgraded;
  auto it = iterate(std::string(kAllAccess), prefix_end(std::string(kAllAccess)));
  for (; it->Valid(); it->Next()) {
    const auto key = parse_entry_key(it->key().ToStringView());
    if (!key) continue;
    auto access = decode_access(it->value().ToStringView());
    if (!access) {
      FINCHKV_ASSIGN_OR_RETURN(access, upgrade_access(*key, it->value().ToStringView()));
      if (!access) continue;
      upgraded.Put(it->key(), encode_access(*access)).PermitUncheckedError();
    }
    FINCHKV_RETURN_IF_ERROR(ledger().add(ledger_record(account(key->owner), key->id, *access)));
    puts.push_back(access->put_id);
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(it->status(), directory_, "reading what is known of its entries"));
  if (upgraded.Count() != 0) FINCHKV_RETURN_IF_ERROR(write(upgraded, true, "bringing it to this format"));
  // Older programs would not see what this one writes: from here on they are told so.
  FINCHKV_RETURN_IF_ERROR(ensure_current_format(directory_));
  return puts;
}

// A record of format 1 gets what its head knows; nullopt for one that stands for nothing.
Result<std::optional<AccessRecord>> RocksDbHost::upgrade_access(const EntryKey& key, std::string_view record) {
  FINCHKV_ASSIGN_OR_RETURN(const auto head_record, read_record(head_key(key.owner, key.id)));
  if (!head_record) return std::optional<AccessRecord>();
  AccessRecord access = decode_access_1(record).value_or(AccessRecord{});
  if (const auto head = decode_head_unbound(bytes_of(*head_record)); head.is_ok()) {
    access.put_id = head->put_id;
    access.bytes = head->stored_bytes;
    access.cost_ms = head->compress_ms;
    access.created_unix_ms = head->created_unix_ms;
  }
  return std::optional(access);
}

Status RocksDbHost::set_settings(const StoreSettings& settings) {
  FINCHKV_RETURN_IF_ERROR(prepare_to_write());
  FINCHKV_RETURN_IF_ERROR(settings.validate());
  rocksdb::WriteBatch batch;
  batch.Put(std::string(kSettingsKey), encode_settings(settings)).PermitUncheckedError();
  FINCHKV_RETURN_IF_ERROR(write(batch, true, "keeping its settings"));
  FINCHKV_RETURN_IF_ERROR(limits_->set(settings));
  return ledger().trim(unix_ms_now(), remover());
}

HeadIterator::HeadIterator(std::shared_ptr<Database> database, const std::string& from, std::string end)
    : database_(std::move(database)),
      end_(std::make_unique<std::string>(std::move(end))),
      end_slice_(std::make_unique<rocksdb::Slice>(*end_)) {
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = end_slice_.get();
  it_.reset(database_->db->NewIterator(options, database_->heads));
  it_->Seek(from);
}

HeadIterator RocksDbHost::iterate(const std::string& from, const std::string& end) { return {database(), from, end}; }

Result<std::unique_ptr<Store>> RocksDbHost::view(Tenant tenant, ViewOptions options) {
  FINCHKV_RETURN_IF_ERROR(tenant.validate());
  FINCHKV_RETURN_IF_ERROR(catch_up().status());
  FINCHKV_ASSIGN_OR_RETURN(const auto check, read_record(tenant_key(tenant)));
  if (check && *check != tenant_check(tenant)) return wrong_tenant_key(tenant);
  return make_rocksdb_view(shared_from_this(), std::move(tenant), std::move(options));
}

RocksDbHost::Claim::Claim(RocksDbHost& host, const PutId& put_id) : host_(host), put_id_(put_id) {
  const std::lock_guard lock(host_.claims_mutex_);
  host_.claims_.insert(put_id_);
}

RocksDbHost::Claim::~Claim() {
  const std::lock_guard lock(host_.claims_mutex_);
  host_.claims_.extract(put_id_);
}

Result<bool> RocksDbHost::catch_up() {
  if (!is_reader()) return false;
  const std::lock_guard lock(reopen_mutex_);
  if (!files_changed(directory_, database()->seen)) return false;
  FINCHKV_ASSIGN_OR_RETURN(auto opened, open_for_reading(directory_, {.reader = true, .env = env_}));
  const std::lock_guard database_lock(database_mutex_);
  database_ = std::move(opened);
  return true;
}

Status RocksDbHost::prepare_to_write() {
  if (is_reader()) {
    return Status::permission_denied(
        fmt::format("the store {} was opened for reading only; open it for writing", directory_));
  }
  if (!write_failed_.load()) return Status::ok();
  const std::lock_guard lock(reopen_mutex_);
  if (!write_failed_.load()) return Status::ok();
  Status status = Status::ok();
  writes_.while_resting([&] { status = reopen_writer(); });
  if (status.is_ok()) settle_uncertain();
  return status;
}

// After a failed write, as after a crash. Whoever only reads goes on meanwhile, and after a vain attempt, with the
// database opened for reading.
Status RocksDbHost::reopen_writer() {
  constexpr auto kLongest = std::chrono::seconds(5);
  FINCHKV_ASSIGN_OR_RETURN(auto for_reading, open_for_reading(directory_, {.env = env_}));
  std::weak_ptr<Database> failed;
  {
    const std::lock_guard lock(database_mutex_);
    failed = database_;
    database_ = std::move(for_reading);
  }
  const auto deadline = std::chrono::steady_clock::now() + kLongest;
  while (!failed.expired()) {
    if (std::chrono::steady_clock::now() >= deadline) {
      return Status::unavailable(
          fmt::format("the store {} cannot be opened again after a failed write while an entry is being read: try "
                      "again in some seconds",
                      directory_));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  FINCHKV_ASSIGN_OR_RETURN(auto opened, open_for_writing(directory_, {.env = env_}));
  const std::lock_guard lock(database_mutex_);
  database_ = std::move(opened);
  write_failed_.store(false);
  return Status::ok();
}

Result<std::optional<std::string>> RocksDbHost::read_record(const std::string& key) {
  const auto database = this->database();
  std::string value;
  const rocksdb::Status status = database->db->Get({}, database->heads, key, &value);
  if (status.IsNotFound()) return std::optional<std::string>();
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(status, directory_, "reading a head"));
  return std::optional<std::string>(std::move(value));
}

Result<std::optional<AccessRecord>> RocksDbHost::read_access(std::string_view owner, const CacheId& id) {
  FINCHKV_ASSIGN_OR_RETURN(const auto record, read_record(access_key(owner, id)));
  return record ? decode_any_access(*record) : std::nullopt;
}

Result<RocksDbHost::EntryRecords> RocksDbHost::read_records(std::string_view owner, const CacheId& id) {
  const auto database = this->database();
  const std::array<std::string, 2> names = {head_key(owner, id), access_key(owner, id)};
  const std::array<rocksdb::Slice, 2> keys = {names[0], names[1]};
  std::array<rocksdb::PinnableSlice, 2> values;
  std::array<rocksdb::Status, 2> statuses;
  // Most ids that are asked for are not there, and most of the time goes into looking: only what is there needs both.
  if (database->db->Get({}, database->heads, keys[0], values.data()).IsNotFound()) return EntryRecords();
  values[0].Reset();
  // Of one column family, so RocksDB reads both at one sequence number.
  database->db->MultiGet({}, database->heads, keys.size(), keys.data(), values.data(), statuses.data());
  for (const rocksdb::Status& status : statuses) {
    if (!status.ok() && !status.IsNotFound()) return from_rocksdb(status, directory_, "reading a head");
  }
  EntryRecords records;
  if (statuses[0].ok()) records.head = values[0].ToString();
  if (statuses[1].ok()) records.access = decode_any_access(values[1].ToStringView());
  return records;
}

std::optional<PutId> RocksDbHost::EntryRecords::put_id() const {
  if (!head) return std::nullopt;
  if (access) return access->put_id;
  const auto decoded = decode_head_unbound(bytes_of(*head));
  return decoded.is_ok() ? decoded->put_id : PutId{};
}

Status RocksDbHost::write_access(std::string_view owner, const CacheId& id, const AccessRecord& access,
                                 bool acknowledge, std::string_view doing) {
  rocksdb::WriteBatch batch;
  batch.Put(access_key(owner, id), encode_access(access)).PermitUncheckedError();
  return write(batch, acknowledge, doing);
}

void RocksDbHost::add_removal(std::string_view owner, const CacheId& id, const std::optional<std::string>& head,
                              rocksdb::WriteBatch& batch) {
  if (head) note_layout_of(*head);
  batch.Delete(head_key(owner, id)).PermitUncheckedError();
  batch.Delete(access_key(owner, id)).PermitUncheckedError();
}

Status RocksDbHost::write(rocksdb::WriteBatch& batch, bool acknowledge, std::string_view doing) {
  rocksdb::WriteOptions options;
  options.sync = acknowledge && settings().durability == Durability::kSync;
  const RestGate::Pass pass(writes_);
  const rocksdb::Status status = database()->db->Write(options, &batch);
  if (!status.ok()) write_failed_.store(true);
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(status, directory_, doing));
  if (options.sync) acknowledged_.note(last_sequence_of(batch));
  return Status::ok();
}

Status RocksDbHost::write_put(const EncodedEntry& entry) {
  const RestGate::Pass pass(writes_);
  const auto database = this->database();
  const Status status = write_blocks(*database, entry);
  if (!status.is_ok()) write_failed_.store(true);
  return status;
}

Result<Reservation> RocksDbHost::reserve(std::string_view owner, std::uint64_t bytes) {
  return ledger().reserve(account(owner), bytes, unix_ms_now(), remover());
}

void RocksDbHost::note_layout(const EntryHead& head) {
  const std::lock_guard lock(claims_mutex_);
  layouts_[head.put_id] = {.count = head.block_count(), .own_table = head.own_table};
}

void RocksDbHost::note_layout_of(std::string_view head_record) {
  if (const auto head = decode_head_unbound(bytes_of(head_record)); head.is_ok()) note_layout(*head);
}

void RocksDbHost::delete_released() { (void)ledger().delete_released(unix_ms_now(), remover()).is_ok(); }

Remove RocksDbHost::remover() {
  return [this](std::span<const Removal> removals) { return remove_entries(removals); };
}

Status RocksDbHost::remove_entries(std::span<const Removal> removals) {
  std::vector<BlocksToDelete> blocks;
  for (const Removal& removal : removals) {
    FINCHKV_ASSIGN_OR_RETURN(const bool evicted, remove_head(removal, limits_->owner_of(removal.account)));
    if (evicted) ++evictions_;
    const std::lock_guard lock(claims_mutex_);
    const auto it = layouts_.find(removal.put_id);
    blocks.push_back({removal.put_id, it == layouts_.end() ? BlockLayout{} : it->second});
  }
  const RestGate::Pass pass(writes_);
  const auto database = this->database();
  if (const Status status = delete_blocks(*database, blocks); !status.is_ok()) {
    write_failed_.store(true);
    return status;
  }
  for (const Removal& removal : removals) {
    const std::lock_guard lock(claims_mutex_);
    const auto it = layouts_.find(removal.put_id);
    if (it == layouts_.end() || !it->second.own_table) small_deleted_bytes_ += removal.bytes;
    if (it != layouts_.end()) layouts_.erase(it);
  }
  if (reclaim_due()) upkeep_wake_.notify_all();
  return Status::ok();
}

// The head of an entry that is to go; what was removed or replaced before has none, or another put's: false.
Result<bool> RocksDbHost::remove_head(const Removal& removal, std::string_view owner) {
  const std::lock_guard lock(entry_mutex(removal.id));
  FINCHKV_ASSIGN_OR_RETURN(const auto access, read_access(owner, removal.id));
  if (!access || access->put_id != removal.put_id) return false;
  FINCHKV_ASSIGN_OR_RETURN(const auto head, read_record(head_key(owner, removal.id)));
  rocksdb::WriteBatch batch;
  add_removal(owner, removal.id, head, batch);
  FINCHKV_RETURN_IF_ERROR(write(batch, true, "removing an entry"));
  return true;
}

Result<std::unique_ptr<BlockSource>> RocksDbHost::open_source(std::string_view owner, const CacheId& id,
                                                              const EntryHead& head) {
  SourceOptions how{.put_id = head.put_id, .own_table = head.own_table, .before_use = nullptr};
  if (!is_reader()) {
    FINCHKV_ASSIGN_OR_RETURN(Lease lease, ledger().lease(account(owner), id, head.put_id, unix_ms_now()));
    struct Guard {
      Guard(Lease given, RocksDbHost& host, const PutId& put_id) : lease(std::move(given)), claim(host, put_id) {}
      Lease lease;
      Claim claim;
    };
    auto guard = std::make_shared<Guard>(std::move(lease), *this, head.put_id);
    how.before_use = [guard] { return guard->lease.progress(unix_ms_now()); };
  }
  return open_block_source(database(), std::move(how));
}

void RocksDbHost::note_lookup(bool found) {
  ++lookups_;
  if (!found) ++misses_;
}

void RocksDbHost::note_use(std::string_view owner, const CacheId& id, bool hit) {
  const std::uint64_t now = unix_ms_now();
  if (is_reader()) return spool_lookup(directory_, {.owner = owner, .id = id, .unix_ms = now, .hit = hit});
  note_lookup(hit);
  if (hit && ledger().touch(account(owner), id, now)) write_dirty();
}

}  // namespace finchkv::cache_store
