#include "cache_store/rocksdb_blocks.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <rocksdb/convenience.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/write_batch.h>

#include "cache_store/direct_read.h"
#include "cache_store/rocksdb_keys.h"
#include "cache_store/rocksdb_status.h"

namespace finchkv::cache_store {
namespace {

rocksdb::Slice as_slice(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const std::byte> as_bytes_of(const rocksdb::Slice& slice) {
  return std::as_bytes(std::span<const char>(slice.data(), slice.size()));
}

// Every block is checked against its own digest too; but RocksDB parses a table's block before that, and its assertions
// end the process over a damaged key. kAround: what it parses is compared on the way (direct_read.h).
enum class Checked { kByRocksDb, kAround };

rocksdb::ReadOptions block_read_options(Checked checked = Checked::kByRocksDb) {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  options.verify_checksums = checked == Checked::kByRocksDb;
  return options;
}

Status write_to_log(Database& database, const EncodedEntry& entry) {
  rocksdb::WriteBatch batch;
  for (const Block& block : entry.blocks) {
    const rocksdb::Status added =
        batch.Put(database.blocks, block_key(entry.head.put_id, block.ordinal), as_slice(block.bytes));
    FINCHKV_RETURN_IF_ERROR(from_rocksdb(added, database.directory, "preparing an entry"));
  }
  return from_rocksdb(database.db->Write({}, &batch), database.directory, "writing an entry");
}

Status write_table(Database& database, const EncodedEntry& entry) {
  const PutId& put_id = entry.head.put_id;
  rocksdb::ColumnFamilyHandle* const family = database.table_family(put_id);
  const std::string path = incoming_directory(database.directory) + "/" + to_hex(put_id.bytes) + ".sst";
  // What was just stored is likely to be asked for: it stays in the page cache. Writing out begins at once: the disk
  // works while the rest is hashed.
  rocksdb::SstFileWriter writer(rocksdb::EnvOptions(database.db->GetDBOptions()), database.db->GetOptions(family),
                                family, /*invalidate_page_cache=*/false);
  rocksdb::Status status = writer.Open(path);
  for (const Block& block : entry.blocks) {
    if (status.ok()) status = writer.Put(block_key(put_id, block.ordinal), as_slice(block.bytes));
  }
  if (status.ok()) status = writer.Finish();
  if (status.ok()) {
    rocksdb::IngestExternalFileOptions options;
    options.move_files = true;
    options.snapshot_consistency = false;
    options.write_global_seqno = false;
    status = database.db->IngestExternalFile(family, {path}, options);
  }
  // Ingesting has moved it; what this cannot remove, an opening clears.
  if (!status.ok()) database.env->DeleteFile(path).PermitUncheckedError();
  return from_rocksdb(status, database.directory, "writing an entry");
}

Status delete_tables(Database& database, const std::vector<PutId>& puts) {
  for (rocksdb::ColumnFamilyHandle* family : database.tables) {
    std::vector<std::string> ends;
    for (const PutId& put : puts) {
      if (database.table_family(put) != family) continue;
      ends.push_back(block_key(put, 0));
      ends.push_back(after_put(put));
    }
    std::vector<rocksdb::Slice> slices(ends.begin(), ends.end());
    std::vector<rocksdb::RangePtr> ranges;
    for (std::size_t i = 0; i < slices.size(); i += 2) ranges.emplace_back(&slices[i], &slices[i + 1]);
    if (ranges.empty()) continue;
    const rocksdb::Status status =
        rocksdb::DeleteFilesInRanges(database.db.get(), family, ranges.data(), ranges.size());
    FINCHKV_RETURN_IF_ERROR(from_rocksdb(status, database.directory, "removing an entry's table"));
  }
  return Status::ok();
}

std::unique_ptr<rocksdb::Iterator> iterate_blocks(Database& database, rocksdb::ColumnFamilyHandle* family,
                                                  Checked checked = Checked::kByRocksDb) {
  return std::unique_ptr<rocksdb::Iterator>(database.db->NewIterator(block_read_options(checked), family));
}

Status add_small_deletes(Database& database, const BlocksToDelete& put, rocksdb::WriteBatch& batch) {
  for (std::uint32_t ordinal = 0; ordinal < put.layout.count; ++ordinal) {
    batch.Delete(database.blocks, block_key(put.put_id, ordinal)).PermitUncheckedError();  // fails for huge keys only
  }
  if (put.layout.count != 0) return Status::ok();
  const auto it = iterate_blocks(database, database.blocks);
  for (it->Seek(block_key(put.put_id, 0)); it->Valid(); it->Next()) {
    if (put_id_of_block_key(it->key().ToStringView()) != put.put_id) break;
    batch.Delete(database.blocks, it->key()).PermitUncheckedError();
  }
  return from_rocksdb(it->status(), database.directory, "looking for an entry's blocks");
}

Status check_block(const BlockRef& ref, std::size_t bytes, const BlockDigest& digest) {
  if (bytes != ref.stored_bytes) {
    return Status::corrupt(fmt::format("{} has {} bytes where {} were stored", describe(ref), bytes, ref.stored_bytes));
  }
  if (digest != ref.digest) return Status::corrupt(fmt::format("{} does not match its digest", describe(ref)));
  return Status::ok();
}

Status missing(const BlockRef& ref) { return Status::not_found(fmt::format("{} is missing", describe(ref))); }

class RocksDbSource : public BlockSource {
 public:
  RocksDbSource(std::shared_ptr<Database> database, SourceOptions options)
      : database_(std::move(database)), options_(std::move(options)) {}

  Status read(const BlockRef& ref, std::span<std::byte> into) final { return use(fetch(ref, into, nullptr)); }
  Status read_with(const BlockRef& ref, std::span<std::byte> into, BlockWork& work) final {
    return use(fetch(ref, into, &work));
  }

 protected:
  virtual Status fetch(const BlockRef& ref, std::span<std::byte> into, BlockWork* work) = 0;

  // All of a block stands at its place, whatever stood there before.
  static Status worked(std::span<std::byte> into, BlockWork* work) {
    if (work == nullptr) return Status::ok();
    work->again();
    work->arrived(into.size());
    return Status::ok();
  }

  Status use(const Status& fetched) const {
    if (options_.before_use)
      FINCHKV_RETURN_IF_ERROR(options_.before_use());  // first: it says why a block may have gone
    return fetched;
  }

  Status failed(const rocksdb::Status& status, const BlockRef& ref) const {
    // A reader opens files when it needs them, and the writer may have removed one.
    if (status.IsNotFound() || status.IsPathNotFound()) return missing(ref);
    return from_rocksdb(status, database_->directory, "reading " + describe(ref));
  }

  std::shared_ptr<Database> database_;
  SourceOptions options_;
};

class SmallSource final : public RocksDbSource {
 public:
  using RocksDbSource::RocksDbSource;

 private:
  Status fetch(const BlockRef& ref, std::span<std::byte> into, BlockWork* work) override {
    rocksdb::PinnableSlice value;
    const rocksdb::Status status =
        database_->db->Get(block_read_options(), database_->blocks, block_key(options_.put_id, ref.ordinal), &value);
    if (!status.ok()) return failed(status, ref);
    FINCHKV_RETURN_IF_ERROR(check_block(ref, value.size(), block_digest(as_bytes_of(value))));
    if (!into.empty()) std::memcpy(into.data(), value.data(), into.size());
    return worked(into, work);
  }
};

class TableSource final : public RocksDbSource {
 public:
  using RocksDbSource::RocksDbSource;

 private:
  Status fetch(const BlockRef& ref, std::span<std::byte> into, BlockWork* work) override {
    rocksdb::ColumnFamilyHandle* const family = database_->table_family(options_.put_id);
    if (family == nullptr) return missing(ref);
    const std::string key = block_key(options_.put_id, ref.ordinal);
    if (into.size() < DirectRead::kSmallest) return fetch_checked(*family, key, ref, into, work);
    // One for each block: an iterator looks again at the key where it stands, which is in memory of the caller's.
    const auto it = iterate_blocks(*database_, family, Checked::kAround);
    DirectRead direct(key, into, hasher_, work);
    it->Seek(key);
    if (direct.irregular()) return fetch_checked(*family, key, ref, into, work);
    FINCHKV_RETURN_IF_ERROR(check_position(*it, key, ref));
    const rocksdb::Slice value = it->value();
    if (const auto digest = direct.took(value.data(), value.size())) return check_block(ref, value.size(), *digest);
    return copy_checked(ref, value, into, work);
  }

  Status fetch_checked(rocksdb::ColumnFamilyHandle& family, const std::string& key, const BlockRef& ref,
                       std::span<std::byte> into, BlockWork* work) {
    const auto it = iterate_blocks(*database_, &family);
    it->Seek(key);
    FINCHKV_RETURN_IF_ERROR(check_position(*it, key, ref));
    return copy_checked(ref, it->value(), into, work);
  }

  Status check_position(const rocksdb::Iterator& it, const std::string& key, const BlockRef& ref) const {
    if (!it.status().ok()) return failed(it.status(), ref);
    return it.Valid() && it.key() == rocksdb::Slice(key) ? Status::ok() : missing(ref);
  }

  static Status copy_checked(const BlockRef& ref, const rocksdb::Slice& value, std::span<std::byte> into,
                             BlockWork* work) {
    FINCHKV_RETURN_IF_ERROR(check_block(ref, value.size(), block_digest(as_bytes_of(value))));
    // The value may lie across its place, where a table of another form put it.
    if (!into.empty()) std::memmove(into.data(), value.data(), into.size());
    return worked(into, work);
  }

  BlockHasher hasher_;
};

}  // namespace

std::string incoming_directory(const std::string& directory) { return directory + "/incoming"; }

Status prepare_incoming(rocksdb::Env& env, const std::string& directory) {
  const std::string incoming = incoming_directory(directory);
  rocksdb::Status status = env.CreateDirIfMissing(incoming);
  std::vector<std::string> left;
  if (status.ok()) status = env.GetChildren(incoming, &left);
  for (const std::string& name : left) {
    if (status.ok() && name != "." && name != "..") status = env.DeleteFile(fmt::format("{}/{}", incoming, name));
  }
  return from_rocksdb(status, directory, "clearing " + incoming);
}

Status write_blocks(Database& database, const EncodedEntry& entry) {
  return entry.head.own_table ? write_table(database, entry) : write_to_log(database, entry);
}

Status delete_blocks(Database& database, std::span<const BlocksToDelete> puts) {
  rocksdb::WriteBatch batch;
  std::vector<PutId> tables;
  for (const BlocksToDelete& put : puts) {
    const bool known = put.layout.count != 0;
    if (!known || put.layout.own_table) tables.push_back(put.put_id);
    if (!known || !put.layout.own_table) FINCHKV_RETURN_IF_ERROR(add_small_deletes(database, put, batch));
  }
  if (batch.Count() != 0) {
    // Not synced: what comes back after a crash has no head and is garbage.
    const rocksdb::Status status = database.db->Write({}, &batch);
    FINCHKV_RETURN_IF_ERROR(from_rocksdb(status, database.directory, "removing an entry's blocks"));
  }
  return delete_tables(database, tables);
}

Result<std::set<PutId>> puts_with_blocks(Database& database) {
  std::set<PutId> found;
  const auto note = [&](std::string_view key) {
    const auto put_id = put_id_of_block_key(key);
    if (put_id) found.insert(*put_id);
    return put_id.has_value();
  };
  const Status foreign =
      Status::corrupt(fmt::format("the store {} has a block under a key that is not ours", database.directory));
  const auto it = iterate_blocks(database, database.blocks);
  for (it->SeekToFirst(); it->Valid(); it->Seek(after_put(*put_id_of_block_key(it->key().ToStringView())))) {
    if (!note(it->key().ToStringView())) return foreign;
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(it->status(), database.directory, "looking for abandoned blocks"));
  for (rocksdb::ColumnFamilyHandle* family : database.tables) {
    rocksdb::ColumnFamilyMetaData meta;  // a table's keys are all of one put: its smallest says which
    database.db->GetColumnFamilyMetaData(family, &meta);
    for (const auto& level : meta.levels) {
      for (const auto& file : level.files) {
        if (!note(file.smallestkey)) return foreign;
      }
    }
  }
  return found;
}

Result<BlockSum> sum_blocks(Database& database, const PutId& put_id) {
  BlockSum sum;
  for (rocksdb::ColumnFamilyHandle* family : {database.blocks, database.table_family(put_id)}) {
    const auto it = iterate_blocks(database, family);
    for (it->Seek(block_key(put_id, 0)); it->Valid(); it->Next()) {
      if (put_id_of_block_key(it->key().ToStringView()) != put_id) break;
      ++sum.blocks;
      sum.bytes += it->value().size();
    }
    FINCHKV_RETURN_IF_ERROR(from_rocksdb(it->status(), database.directory, "reading abandoned blocks"));
  }
  return sum;
}

std::unique_ptr<BlockSource> open_block_source(std::shared_ptr<Database> database, SourceOptions options) {
  if (options.own_table) return std::make_unique<TableSource>(std::move(database), std::move(options));
  return std::make_unique<SmallSource>(std::move(database), std::move(options));
}

std::uint64_t small_put_bytes(Database& database) {
  std::uint64_t bytes = 0;
  database.db->GetIntProperty(database.blocks, "rocksdb.total-blob-file-size", &bytes);
  return bytes;
}

Status reclaim(Database& database) {
  constexpr std::uint64_t kWorthIt = 32 << 20;
  rocksdb::CompactRangeOptions options;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  options.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kDisable;
  // Keys alone, which are small: files whose values are all dead go, and the rest is known.
  rocksdb::Status status = database.db->CompactRange(options, database.blocks, nullptr, nullptr);
  std::uint64_t dead = 0;
  database.db->GetIntProperty(database.blocks, "rocksdb.live-blob-file-garbage-size", &dead);
  const std::uint64_t all = small_put_bytes(database);
  if (status.ok() && dead >= kWorthIt && dead > all / 3) {
    options.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kForce;
    options.blob_garbage_collection_age_cutoff = dead > all / 2 ? 1.0 : 0.5;
    options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForce;
    status = database.db->CompactRange(options, database.blocks, nullptr, nullptr);
  }
  return from_rocksdb(status, database.directory, "freeing what deleted entries took");
}

}  // namespace finchkv::cache_store
