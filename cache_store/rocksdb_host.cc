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

constexpr std::size_t kHeads = 0;
constexpr std::size_t kBlocks = 1;

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
  rocksdb::DB* db = nullptr;
  const rocksdb::Status opened =
      rocksdb::DB::Open(database_options(create, false, options_.env), directory_, families(), &families_, &db);
  db_.reset(db);
  if (opened.IsInvalidArgument()) {
    return Status::corrupt(
        fmt::format("the store {} does not hold together: {}; restore a copy", directory_, opened.ToString()));
  }
  return from_rocksdb(opened, directory_, "opening it");
}

Status RocksDbHost::open_reader() {
  FINCHKV_ASSIGN_OR_RETURN(const DirectoryState state, inspect_directory(directory_));
  if (state != DirectoryState::kStore) return no_store(directory_);
  FINCHKV_ASSIGN_OR_RETURN(reader_directory_, TemporaryDirectory::make());
  rocksdb::Status opened;
  // The writer may remove a file between our reading its name and opening it: look again.
  for (int attempt = 0; attempt < 5; ++attempt) {
    rocksdb::DB* db = nullptr;
    opened = rocksdb::DB::OpenAsSecondary(database_options(false, true, options_.env), directory_,
                                          reader_directory_->path(), families(), &families_, &db);
    db_.reset(db);
    if (opened.ok() || opened.IsCorruption()) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return from_rocksdb(opened, directory_, "opening it for reading");
}

RocksDbHost::~RocksDbHost() {
  if (!db_) return;
  for (rocksdb::ColumnFamilyHandle* family : families_) db_->DestroyColumnFamilyHandle(family).PermitUncheckedError();
  db_->Close().PermitUncheckedError();  // acknowledged data is durable already
}

Result<std::unique_ptr<Store>> RocksDbHost::view(Tenant tenant) {
  FINCHKV_RETURN_IF_ERROR(tenant.validate());
  FINCHKV_RETURN_IF_ERROR(catch_up());
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

Status RocksDbHost::catch_up() {
  if (!is_reader()) return Status::ok();
  rocksdb::Status status = db_->TryCatchUpWithPrimary();
  // A file that went away between two steps of catching up is there no more at the next.
  for (int attempt = 0; attempt < 3 && status.IsIOError(); ++attempt) status = db_->TryCatchUpWithPrimary();
  return from_rocksdb(status, directory_, "reading what its writer did");
}

Status RocksDbHost::prepare_to_write() {
  if (is_reader()) {
    return Status::permission_denied(fmt::format("the store {} was opened for reading only", directory_));
  }
  if (!write_failed_.load()) return Status::ok();
  const rocksdb::Status resumed = db_->Resume();
  if (resumed.IsBusy()) {
    return Status::unavailable(
        fmt::format("the store {} is recovering from a failed write: try again in some seconds", directory_));
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(resumed, directory_, "going on after a failed write"));
  write_failed_.store(false);
  return Status::ok();
}

rocksdb::Status RocksDbHost::get(rocksdb::ColumnFamilyHandle* family, const std::string& key,
                                 rocksdb::PinnableSlice& value) {
  rocksdb::ReadOptions options;
  options.fill_cache = family == families_[kHeads];
  rocksdb::Status status = db_->Get(options, family, key, &value);
  if (is_reader() && status.IsIOError() && db_->TryCatchUpWithPrimary().ok()) {
    value.Reset();
    status = db_->Get(options, family, key, &value);
  }
  return status;
}

Result<std::optional<std::string>> RocksDbHost::read_record(const std::string& key) {
  rocksdb::PinnableSlice value;
  const rocksdb::Status status = get(families_[kHeads], key, value);
  if (status.IsNotFound()) return std::optional<std::string>();
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(status, directory_, "reading a head"));
  return std::optional<std::string>(value.ToString());
}

BlockReader RocksDbHost::block_reader(const PutId& put_id) {
  return [this, put_id](std::uint32_t ordinal, const std::function<Status(std::span<const std::byte>)>& use) -> Status {
    rocksdb::PinnableSlice value;
    const rocksdb::Status status = get(families_[kBlocks], block_key(put_id, ordinal), value);
    if (status.IsNotFound()) return Status::not_found(fmt::format("block {} is missing", ordinal));
    FINCHKV_RETURN_IF_ERROR(from_rocksdb(status, directory_, fmt::format("reading block {}", ordinal)));
    return use(as_bytes_of(value));
  };
}

std::unique_ptr<rocksdb::Iterator> RocksDbHost::iterate(const std::string& from, const std::string& end) {
  // RocksDB only points to the bound, so bound and iterator live together.
  struct Bounded : rocksdb::Iterator {
    std::string end;
    rocksdb::Slice end_slice;
    std::unique_ptr<rocksdb::Iterator> inner;

    bool Valid() const override { return inner->Valid(); }
    void SeekToFirst() override { inner->SeekToFirst(); }
    void SeekToLast() override { inner->SeekToLast(); }
    void Seek(const rocksdb::Slice& target) override { inner->Seek(target); }
    void SeekForPrev(const rocksdb::Slice& target) override { inner->SeekForPrev(target); }
    void Next() override { inner->Next(); }
    void Prev() override { inner->Prev(); }
    rocksdb::Slice key() const override { return inner->key(); }
    rocksdb::Slice value() const override { return inner->value(); }
    rocksdb::Status status() const override { return inner->status(); }
  };
  auto it = std::make_unique<Bounded>();
  it->end = end;
  it->end_slice = it->end;
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &it->end_slice;
  it->inner.reset(db_->NewIterator(options, families_[kHeads]));
  it->Seek(from);
  return it;
}

Status RocksDbHost::write(rocksdb::WriteBatch& batch, bool sync, std::string_view doing) {
  rocksdb::WriteOptions options;
  options.sync = sync;
  const rocksdb::Status status = db_->Write(options, &batch);
  if (!status.ok()) write_failed_.store(true);
  return from_rocksdb(status, directory_, doing);
}

Status RocksDbHost::write_blocks(const PutId& put_id, const EncodedEntry& entry) {
  if (entry.block_bytes < options_.large_put_bytes) {
    rocksdb::WriteBatch batch;
    for (const Block& block : entry.blocks) {
      const rocksdb::Status added =
          batch.Put(families_[kBlocks], block_key(put_id, block.ordinal), as_slice(block.bytes));
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
        db_->Put(past_the_log, families_[kBlocks], block_key(put_id, block.ordinal), as_slice(block.bytes));
    if (!status.ok()) write_failed_.store(true);
    FINCHKV_RETURN_IF_ERROR(from_rocksdb(status, directory_, "writing an entry"));
  }
  step(PutStep::kBlocksWritten);
  rocksdb::FlushOptions flush;
  flush.wait = true;
  flush.allow_write_stall = true;
  const rocksdb::Status flushed = db_->Flush(flush, families_[kBlocks]);
  if (!flushed.ok()) write_failed_.store(true);
  return from_rocksdb(flushed, directory_, "writing an entry");
}

void RocksDbHost::add_block_deletes(rocksdb::WriteBatch& batch, const PutId& put_id, std::uint32_t count) {
  for (std::uint32_t ordinal = 0; ordinal < count; ++ordinal) {
    batch.Delete(families_[kBlocks], block_key(put_id, ordinal)).PermitUncheckedError();  // fails for huge keys only
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
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options, families_[kBlocks]));
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
  const auto it = iterate(std::string(kAllHeads), prefix_end(std::string(kAllHeads)));
  for (; it->Valid(); it->Next()) {
    const auto head = decode_head_unbound(as_bytes_of(it->value()));
    if (head.is_ok()) {
      found.insert(head->put_id);
    } else if (head.status().code() != StatusCode::kCorrupt) {
      // A newer head names blocks that this program cannot see: removing anything would be a guess.
      return head.status();
    }
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(it->status(), directory_, "reading all heads"));
  return found;
}

Status RocksDbHost::remove_blocks(const PutId& put_id, GcReport& report) {
  rocksdb::WriteBatch batch;
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options, families_[kBlocks]));
  for (it->Seek(block_key(put_id, 0)); it->Valid(); it->Next()) {
    if (put_id_of_block_key(it->key().ToStringView()) != put_id) break;
    FINCHKV_RETURN_IF_ERROR(
        from_rocksdb(batch.Delete(families_[kBlocks], it->key()), directory_, "removing abandoned blocks"));
    ++report.blocks;
    report.bytes += it->value().size();
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(it->status(), directory_, "removing abandoned blocks"));
  ++report.puts;
  return write(batch, true, "removing abandoned blocks");
}

}  // namespace finchkv::cache_store
