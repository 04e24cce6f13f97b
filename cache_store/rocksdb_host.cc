#include "cache_store/rocksdb_host.h"

#include <thread>
#include <utility>

#include <fmt/format.h>

#include "cache_store/rocksdb_keys.h"
#include "cache_store/rocksdb_options.h"
#include "cache_store/rocksdb_status.h"
#include "cache_store/store_common.h"

namespace finchkv::cache_store {
namespace {

std::vector<rocksdb::ColumnFamilyDescriptor> families() {
  return {{rocksdb::kDefaultColumnFamilyName, heads_options()}, {kBlocksFamily, blocks_options()}};
}

rocksdb::Slice as_slice(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const std::byte> as_bytes_of(const rocksdb::Slice& slice) {
  return std::as_bytes(std::span<const char>(slice.data(), slice.size()));
}

Status no_store(const std::string& directory) {
  return Status::not_found(fmt::format("there is no finchkv store in {}", directory));
}

bool lacks_family(const rocksdb::Status& status) {
  return status.IsInvalidArgument() && status.ToString().find("Column family not found") != std::string::npos;
}

void adopt(rocksdb::DB* db, const std::vector<rocksdb::ColumnFamilyHandle*>& handles, RocksDbHost::Database& to) {
  to.db.reset(db);
  to.heads = handles[0];  // in the order of families()
  to.blocks = handles[1];
}

}  // namespace

Result<std::shared_ptr<StoreHost>> open_rocksdb_store(const std::string& directory, const RocksDbOptions& options) {
  return RocksDbHost::open(directory, options);
}

Result<std::shared_ptr<StoreHost>> RocksDbHost::open(const std::string& directory, const RocksDbOptions& options) {
  std::shared_ptr<RocksDbHost> host(new RocksDbHost(directory, options));
  FINCHKV_RETURN_IF_ERROR(host->is_reader() ? host->open_reader() : host->open_writer());
  return std::shared_ptr<StoreHost>(std::move(host));
}

Status RocksDbHost::open_writer() {
  FINCHKV_ASSIGN_OR_RETURN(DirectoryState state, inspect_directory(directory_));
  if (state != DirectoryState::kStore && !options_.create_if_missing) return no_store(directory_);
  if (state == DirectoryState::kMissing) FINCHKV_RETURN_IF_ERROR(create_directory(directory_));
  FINCHKV_ASSIGN_OR_RETURN(lock_, WriterLock::acquire(directory_, options_.wait));
  FINCHKV_ASSIGN_OR_RETURN(state, inspect_directory(directory_));  // another process may have been first
  if (state == DirectoryState::kEmpty) FINCHKV_RETURN_IF_ERROR(write_marker(directory_));
  // Never "create if missing" over a store: RocksDB would then take a lost CURRENT for a new database.
  const bool create = state != DirectoryState::kStore;
  FINCHKV_ASSIGN_OR_RETURN(const FilesSeen files, look_at_files(directory_));
  const OpenKind kind{.create = create,
                      .reader = false,
                      .flush_logs = files.logs.size() > kMostLogs || files.log_bytes() > kMostLogBytes,
                      .env = options_.env};
  database_ = std::make_shared<Database>();
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status opened = rocksdb::DB::Open(database_options(kind), directory_, families(), &handles, &db);
  if (opened.IsInvalidArgument()) {
    return Status::corrupt(
        fmt::format("the store {} does not hold together: {}; restore a copy", directory_, opened.ToString()));
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(opened, directory_, "opening it"));
  adopt(db, handles, *database_);
  return Status::ok();
}

Status RocksDbHost::open_reader() {
  FINCHKV_ASSIGN_OR_RETURN(const DirectoryState state, inspect_directory(directory_));
  if (state != DirectoryState::kStore) return no_store(directory_);
  return open_for_reading();
}

Status RocksDbHost::open_for_reading() {
  rocksdb::Status opened;
  // The writer may flush, and remove a log, between our reading its manifest and its logs. Then what was opened is
  // thrown away.
  for (int attempt = 0; attempt < 200; ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    auto next = std::make_shared<Database>();
    FINCHKV_ASSIGN_OR_RETURN(next->seen, look_at_files(directory_));
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* db = nullptr;
    opened = rocksdb::DB::OpenForReadOnly(database_options({.reader = true, .env = options_.env}), directory_,
                                          families(), &handles, &db);
    if (opened.ok()) adopt(db, handles, *next);
    FINCHKV_ASSIGN_OR_RETURN(const FilesSeen now, look_at_files(directory_));
    if (!now.same_state(next->seen)) continue;
    if (!opened.ok()) break;
    const std::lock_guard lock(database_mutex_);
    database_ = std::move(next);
    return Status::ok();
  }
  if (opened.ok()) {
    return Status::unavailable(fmt::format("the store {} changes too fast to be read: try again", directory_));
  }
  // The first opening was killed before it had made both families: there is nothing to read yet.
  if (lacks_family(opened)) return no_store(directory_);
  return from_rocksdb(opened, directory_, "opening it for reading");
}

RocksDbHost::Database::~Database() {
  if (!db) return;
  db->DestroyColumnFamilyHandle(heads).PermitUncheckedError();
  db->DestroyColumnFamilyHandle(blocks).PermitUncheckedError();
  db->Close().PermitUncheckedError();  // acknowledged data is durable already
}

std::shared_ptr<RocksDbHost::Database> RocksDbHost::database() {
  const std::lock_guard lock(database_mutex_);
  return database_;
}

HeadIterator::HeadIterator(std::shared_ptr<RocksDbHost::Database> database, const std::string& from, std::string end)
    : database_(std::move(database)),
      end_(std::make_unique<std::string>(std::move(end))),
      end_slice_(std::make_unique<rocksdb::Slice>(*end_)) {
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = end_slice_.get();
  it_.reset(database_->db->NewIterator(options, database_->heads));
  it_->Seek(from);
}

Result<std::unique_ptr<Store>> RocksDbHost::view(Tenant tenant) {
  FINCHKV_RETURN_IF_ERROR(tenant.validate());
  FINCHKV_RETURN_IF_ERROR(catch_up().status());
  FINCHKV_ASSIGN_OR_RETURN(const auto check, read_record(tenant_key(tenant)));
  if (check && *check != tenant_check(tenant)) return wrong_tenant_key(tenant);
  return make_rocksdb_view(shared_from_this(), std::move(tenant));
}

RocksDbHost::Claim::Claim(RocksDbHost& host, const PutId& put_id) : host_(host), put_id_(put_id) {
  const std::lock_guard lock(host_.claims_mutex_);
  host_.claims_.insert(put_id_);
}

RocksDbHost::Claim::~Claim() {
  const std::lock_guard lock(host_.claims_mutex_);
  host_.claims_.erase(put_id_);
}

Result<bool> RocksDbHost::catch_up() {
  if (!is_reader()) return false;
  const std::lock_guard lock(reopen_mutex_);
  FINCHKV_ASSIGN_OR_RETURN(const FilesSeen now, look_at_files(directory_));
  if (now == database()->seen) return false;
  FINCHKV_RETURN_IF_ERROR(open_for_reading());
  return true;
}

Status RocksDbHost::prepare_to_write() {
  if (is_reader()) {
    return Status::permission_denied(fmt::format("the store {} was opened for reading only", directory_));
  }
  if (!write_failed_.load()) return Status::ok();
  const rocksdb::Status resumed = database()->db->Resume();
  if (resumed.IsBusy()) {
    return Status::unavailable(
        fmt::format("the store {} is recovering from a failed write: try again in some seconds", directory_));
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(resumed, directory_, "going on after a failed write"));
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

BlockReader RocksDbHost::block_reader(const PutId& put_id) {
  return [this, put_id, database = database()](std::uint32_t ordinal,
                                               const std::function<Status(std::span<const std::byte>)>& use) -> Status {
    rocksdb::ReadOptions options;
    options.fill_cache = false;
    rocksdb::PinnableSlice value;
    const rocksdb::Status status = database->db->Get(options, database->blocks, block_key(put_id, ordinal), &value);
    // A reader opens blob files when it needs them, and the writer may have removed one: the same as a missing block.
    if (status.IsNotFound() || (is_reader() && status.IsPathNotFound())) {
      return Status::not_found(fmt::format("block {} is missing", ordinal));
    }
    FINCHKV_RETURN_IF_ERROR(from_rocksdb(status, directory_, fmt::format("reading block {}", ordinal)));
    return use(as_bytes_of(value));
  };
}

HeadIterator RocksDbHost::iterate(const std::string& from, const std::string& end) { return {database(), from, end}; }

Status RocksDbHost::write(rocksdb::WriteBatch& batch, bool sync, std::string_view doing) {
  rocksdb::WriteOptions options;
  options.sync = sync;
  const rocksdb::Status status = database()->db->Write(options, &batch);
  if (!status.ok()) write_failed_.store(true);
  return from_rocksdb(status, directory_, doing);
}

Status RocksDbHost::write_blocks(const PutId& put_id, const EncodedEntry& entry) {
  const auto database = this->database();
  if (entry.block_bytes < options_.large_put_bytes) {
    rocksdb::WriteBatch batch;
    for (const Block& block : entry.blocks) {
      const rocksdb::Status added =
          batch.Put(database->blocks, block_key(put_id, block.ordinal), as_slice(block.bytes));
      FINCHKV_RETURN_IF_ERROR(from_rocksdb(added, directory_, "preparing an entry"));
    }
    FINCHKV_RETURN_IF_ERROR(write(batch, false, "writing an entry"));
    step(PutStep::kBlocksWritten);
    return Status::ok();
  }
  rocksdb::WriteOptions past_the_log;
  past_the_log.disableWAL = true;
  for (const Block& block : entry.blocks) {
    const rocksdb::Status status =
        database->db->Put(past_the_log, database->blocks, block_key(put_id, block.ordinal), as_slice(block.bytes));
    if (!status.ok()) write_failed_.store(true);
    FINCHKV_RETURN_IF_ERROR(from_rocksdb(status, directory_, "writing an entry"));
  }
  step(PutStep::kBlocksWritten);
  rocksdb::FlushOptions flush;
  flush.wait = true;
  flush.allow_write_stall = true;
  const rocksdb::Status flushed = database->db->Flush(flush, database->blocks);
  if (!flushed.ok()) write_failed_.store(true);
  return from_rocksdb(flushed, directory_, "writing an entry");
}

void RocksDbHost::add_block_deletes(rocksdb::WriteBatch& batch, const PutId& put_id, std::uint32_t count) {
  const auto database = this->database();
  for (std::uint32_t ordinal = 0; ordinal < count; ++ordinal) {
    batch.Delete(database->blocks, block_key(put_id, ordinal)).PermitUncheckedError();  // fails for huge keys only
  }
}

Result<GcReport> RocksDbHost::gc() {
  FINCHKV_RETURN_IF_ERROR(prepare_to_write());
  // In this order: a put whose blocks are seen is still claimed at the next step, or its head is written by the last.
  FINCHKV_ASSIGN_OR_RETURN(const std::set<PutId> with_blocks, puts_with_blocks());
  std::set<PutId> claimed;
  {
    const std::lock_guard lock(claims_mutex_);
    claimed = claims_;
  }
  FINCHKV_ASSIGN_OR_RETURN(const std::set<PutId> with_heads, puts_with_heads());
  GcReport report;
  for (const PutId& put_id : with_blocks) {
    if (claimed.contains(put_id) || with_heads.contains(put_id)) continue;
    FINCHKV_RETURN_IF_ERROR(remove_blocks(put_id, report));
  }
  return report;
}

Result<std::set<PutId>> RocksDbHost::puts_with_blocks() {
  std::set<PutId> found;
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  const auto database = this->database();
  const std::unique_ptr<rocksdb::Iterator> it(database->db->NewIterator(options, database->blocks));
  for (it->SeekToFirst(); it->Valid();) {
    const auto put_id = put_id_of_block_key(it->key().ToStringView());
    if (!put_id) {
      return Status::corrupt(fmt::format("the store {} has a block under a key that is not ours", directory_));
    }
    found.insert(*put_id);
    it->Seek(after_put(*put_id));
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(it->status(), directory_, "looking for abandoned blocks"));
  return found;
}

Result<std::set<PutId>> RocksDbHost::puts_with_heads() {
  std::set<PutId> found;
  auto it = iterate(std::string(kAllHeads), prefix_end(std::string(kAllHeads)));
  for (; it->Valid(); it->Next()) {
    const auto head = decode_head_unbound(as_bytes_of(it->value()));
    if (head.is_ok()) {
      found.insert(head->put_id);
    } else if (head_is_as_written(as_bytes_of(it->value()))) {
      // A newer head names blocks that this program cannot see: removing anything would be a guess.
      return Status(head.status().code(),
                    fmt::format("nothing was removed from the store {}: a head in it is whole but cannot be read here, "
                                "and its blocks would look abandoned: {}",
                                directory_, head.status().message()));
    }
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(it->status(), directory_, "reading all heads"));
  return found;
}

Status RocksDbHost::remove_blocks(const PutId& put_id, GcReport& report) {
  rocksdb::WriteBatch batch;
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  const auto database = this->database();
  const std::unique_ptr<rocksdb::Iterator> it(database->db->NewIterator(options, database->blocks));
  for (it->Seek(block_key(put_id, 0)); it->Valid(); it->Next()) {
    if (put_id_of_block_key(it->key().ToStringView()) != put_id) break;
    FINCHKV_RETURN_IF_ERROR(
        from_rocksdb(batch.Delete(database->blocks, it->key()), directory_, "removing abandoned blocks"));
    ++report.blocks;
    report.bytes += it->value().size();
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(it->status(), directory_, "removing abandoned blocks"));
  ++report.puts;
  return write(batch, true, "removing abandoned blocks");
}

}  // namespace finchkv::cache_store
