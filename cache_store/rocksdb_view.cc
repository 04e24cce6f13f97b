// One tenant's view of a RocksDB store: what an entry is, in terms of the host's records and blocks.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "cache_store/codec.h"
#include "cache_store/rocksdb_host.h"
#include "cache_store/rocksdb_keys.h"
#include "cache_store/rocksdb_status.h"
#include "cache_store/store_common.h"

namespace finchkv::cache_store {
namespace {

using Record = std::optional<std::string>;

class RocksDbView : public Store {
 public:
  RocksDbView(std::shared_ptr<RocksDbHost> host, Tenant tenant) : host_(std::move(host)), tenant_(std::move(tenant)) {}

  Result<EntryInfo> put(const PutRequest& request) override;
  Result<EntryInfo> find(const CacheId& id) override;
  Result<KvSet> get(const CacheId& id) override;
  Result<std::vector<std::vector<std::uint32_t>>> read_origins(const CacheId& id) override;
  Result<std::vector<std::int32_t>> read_document_tokens(const CacheId& id) override;
  Status verify(const CacheId& id) override;
  Status remove(const CacheId& id) override;
  Result<EntryPage> list(const std::optional<CacheId>& after, std::size_t limit) override;
  Result<CacheId> resolve_prefix(std::string_view hex_prefix) override;
  Result<StoreStats> stats() override;
  const Tenant& tenant() const override { return tenant_; }

 private:
  Result<EntryHead> decode(const CacheId& id, std::string_view record) const {
    auto head = decode_head(std::as_bytes(std::span<const char>(record.data(), record.size())), id, tenant_);
    if (!head.is_ok()) return about_entry(id, head.status());
    return head;
  }
  Result<EntryInfo> info_of(const CacheId& id, const EntryHead& head);
  Result<EntryInfo> commit(const CacheId& id, const PutRequest& request, const EncodedEntry& entry,
                           const Record& before);
  void discard(const EncodedEntry& entry);
  void record_hit(const CacheId& id, const PutId& put_id);
  template <typename Read>
  auto read_entry(const CacheId& id, const Read& read) -> decltype(read(EntryHead(), BlockReader()));

  std::shared_ptr<RocksDbHost> host_;
  Tenant tenant_;
};

Result<EntryInfo> RocksDbView::info_of(const CacheId& id, const EntryHead& head) {
  EntryInfo info = make_entry_info(id, head);
  FINCHKV_ASSIGN_OR_RETURN(const Record record, host_->read_record(access_key(tenant_, id)));
  if (const auto access = record ? decode_access(*record) : std::nullopt) {
    info.label = access->label;
    info.hits = access->hits;
    info.last_used_unix_ms = std::max(info.last_used_unix_ms, access->last_used_unix_ms);
  }
  return info;
}

// Reads an entry's blocks under its head. A replacing put or a removal may take the blocks away meanwhile: then the
// head has changed, and the new one counts.
template <typename Read>
auto RocksDbView::read_entry(const CacheId& id, const Read& read) -> decltype(read(EntryHead(), BlockReader())) {
  const std::string key = head_key(tenant_, id);
  FINCHKV_RETURN_IF_ERROR(host_->catch_up().status());
  FINCHKV_ASSIGN_OR_RETURN(Record record, host_->read_record(key));
  for (;;) {
    if (!record) return no_such_entry(id);
    FINCHKV_ASSIGN_OR_RETURN(const EntryHead head, decode(id, *record));
    auto result = read(head, host_->block_reader(head.put_id));
    if (result.is_ok()) return result;
    const Status status = result.status();
    if (status.code() != StatusCode::kNotFound) return about_entry(id, status);
    // A reader's block may also have moved to another file under the same head.
    FINCHKV_ASSIGN_OR_RETURN(const bool reopened, host_->catch_up());
    FINCHKV_ASSIGN_OR_RETURN(Record now, host_->read_record(key));
    if (now == record && !reopened) return about_entry(id, Status::corrupt(status.message()));
    record = std::move(now);
  }
}

Result<EntryInfo> RocksDbView::put(const PutRequest& request) {
  FINCHKV_RETURN_IF_ERROR(host_->prepare_to_write());
  FINCHKV_RETURN_IF_ERROR(check_put(request, tenant_));
  const CacheId id = cache_id(request.identity, tenant_);
  FINCHKV_ASSIGN_OR_RETURN(const Record before, host_->read_record(head_key(tenant_, id)));
  if (before && request.if_exists == IfExists::kKeep) {
    // A damaged head is replaced; one of a newer version is not ours to touch.
    auto head = decode(id, *before);
    if (head.is_ok()) return info_of(id, *head);
    if (head.status().code() != StatusCode::kCorrupt) return head.status();
  }
  const PutId put_id = PutId::random();
  auto encoded = encode_entry(request, put_id, unix_ms_now());
  if (!encoded.is_ok()) return about_entry(id, encoded.status());
  const RocksDbHost::Claim claim(*host_, put_id);
  host_->step(PutStep::kClaimed);
  if (const Status written = host_->write_blocks(put_id, *encoded); !written.is_ok()) {
    discard(*encoded);
    return about_entry(id, written);
  }
  host_->step(PutStep::kBlocksDurable);
  return commit(id, request, *encoded, before);
}

Result<EntryInfo> RocksDbView::commit(const CacheId& id, const PutRequest& request, const EncodedEntry& entry,
                                      const Record& before) {
  const std::string key = head_key(tenant_, id);
  Record replaced;
  {
    const std::lock_guard lock(host_->entry_mutex(id));
    FINCHKV_ASSIGN_OR_RETURN(replaced, host_->read_record(key));
    if (replaced && replaced != before) {  // another put of the same id was faster: the same inputs, so as good
      discard(entry);
      FINCHKV_ASSIGN_OR_RETURN(const EntryHead theirs, decode(id, *replaced));
      return info_of(id, theirs);
    }
    rocksdb::WriteBatch batch;
    if (!tenant_.name.empty()) {
      const std::string tenant = tenant_key(tenant_);
      FINCHKV_ASSIGN_OR_RETURN(const Record check, host_->read_record(tenant));
      if (check && *check != tenant_check(tenant_)) {
        discard(entry);
        return wrong_tenant_key(tenant_);
      }
      batch.Put(tenant, tenant_check(tenant_)).PermitUncheckedError();
    }
    const AccessRecord access{.hits = 0, .last_used_unix_ms = entry.head.created_unix_ms, .label = request.label};
    batch.Put(access_key(tenant_, id), encode_access(access)).PermitUncheckedError();
    const auto& record = entry.head_record;
    batch.Put(key, rocksdb::Slice(reinterpret_cast<const char*>(record.data()), record.size())).PermitUncheckedError();
    // When this fails the head may be in the log all the same and come back at the next opening: its blocks stay, and
    // gc removes them once the log is gone.
    FINCHKV_RETURN_IF_ERROR(about_entry(id, host_->write(batch, true, "writing an entry's head")));
  }
  host_->step(PutStep::kHeadWritten);
  if (replaced) {
    if (const auto old = decode(id, *replaced); old.is_ok()) {
      rocksdb::WriteBatch batch;
      host_->add_block_deletes(batch, old->put_id, old->block_count());
      // The new entry is stored; what this leaves behind is gc's.
      (void)host_->write(batch, false, "removing replaced blocks").is_ok();
    }
  }
  host_->step(PutStep::kOldBlocksRemoved);
  return info_of(id, entry.head);
}

void RocksDbView::discard(const EncodedEntry& entry) {
  rocksdb::WriteBatch batch;
  host_->add_block_deletes(batch, entry.head.put_id, entry.head.block_count());
  (void)host_->write(batch, false, "removing an unfinished entry").is_ok();  // gc removes what this cannot
}

Result<EntryInfo> RocksDbView::find(const CacheId& id) {
  FINCHKV_RETURN_IF_ERROR(host_->catch_up().status());
  FINCHKV_ASSIGN_OR_RETURN(const Record record, host_->read_record(head_key(tenant_, id)));
  if (!record) return no_such_entry(id);
  FINCHKV_ASSIGN_OR_RETURN(const EntryHead head, decode(id, *record));
  return info_of(id, head);
}

Result<KvSet> RocksDbView::get(const CacheId& id) {
  PutId put_id;
  auto set = read_entry(id, [&](const EntryHead& head, const BlockReader& blocks) {
    put_id = head.put_id;
    return cache_store::read_kvset(head, blocks);
  });
  if (set.is_ok() && !host_->is_reader()) record_hit(id, put_id);
  return set;
}

// Best effort: a hit that cannot be noted is still a hit.
void RocksDbView::record_hit(const CacheId& id, const PutId& put_id) {
  const std::lock_guard lock(host_->entry_mutex(id));
  const auto head_record = host_->read_record(head_key(tenant_, id));
  if (!head_record.is_ok() || !*head_record) return;
  const auto head = decode(id, **head_record);
  if (!head.is_ok() || head->put_id != put_id) return;
  const std::string key = access_key(tenant_, id);
  const auto record = host_->read_record(key);
  if (!record.is_ok()) return;
  AccessRecord access = (*record ? decode_access(**record) : std::nullopt).value_or(AccessRecord{});
  ++access.hits;
  access.last_used_unix_ms = std::max(access.last_used_unix_ms, unix_ms_now());
  rocksdb::WriteBatch batch;
  batch.Put(key, encode_access(access)).PermitUncheckedError();
  (void)host_->write(batch, false, "noting a hit").is_ok();
}

Result<std::vector<std::vector<std::uint32_t>>> RocksDbView::read_origins(const CacheId& id) {
  return read_entry(
      id, [](const EntryHead& head, const BlockReader& blocks) { return cache_store::read_origins(head, blocks); });
}

Result<std::vector<std::int32_t>> RocksDbView::read_document_tokens(const CacheId& id) {
  FINCHKV_ASSIGN_OR_RETURN(const EntryInfo info, find(id));
  if (!info.has_document_tokens) return about_entry(id, Status::not_found("it was stored without its document"));
  return read_entry(id, [&](const EntryHead& head, const BlockReader& blocks) {
    return cache_store::read_document_tokens(head, tenant_, blocks);
  });
}

Status RocksDbView::verify(const CacheId& id) {
  return read_entry(id,
                    [&](const EntryHead& head, const BlockReader& blocks) -> Result<bool> {
                      FINCHKV_RETURN_IF_ERROR(verify_entry(head, tenant_, blocks));
                      return true;
                    })
      .status();
}

Status RocksDbView::remove(const CacheId& id) {
  FINCHKV_RETURN_IF_ERROR(host_->prepare_to_write());
  const std::lock_guard lock(host_->entry_mutex(id));
  const std::string key = head_key(tenant_, id);
  FINCHKV_ASSIGN_OR_RETURN(const Record record, host_->read_record(key));
  if (!record) return no_such_entry(id);
  rocksdb::WriteBatch batch;
  batch.Delete(key).PermitUncheckedError();
  batch.Delete(access_key(tenant_, id)).PermitUncheckedError();
  // A head that cannot be read names no blocks: gc finds them.
  if (const auto head = decode(id, *record); head.is_ok()) {
    host_->add_block_deletes(batch, head->put_id, head->block_count());
  }
  return about_entry(id, host_->write(batch, true, "removing an entry"));
}

Result<EntryPage> RocksDbView::list(const std::optional<CacheId>& after, std::size_t limit) {
  FINCHKV_RETURN_IF_ERROR(check_page_limit(limit));
  FINCHKV_RETURN_IF_ERROR(host_->catch_up().status());
  const std::string prefix = head_prefix(tenant_);
  const std::string from = after ? head_key(tenant_, *after) + '\0' : prefix;
  EntryPage page;
  std::optional<CacheId> last;
  auto it = host_->iterate(from, prefix_end(prefix));
  for (std::size_t seen = 0; it->Valid(); it->Next()) {
    const auto id = id_of_head_key(it->key().ToStringView(), prefix);
    if (!id) continue;
    if (seen == limit) {
      page.next = last;
      break;
    }
    ++seen;
    last = id;
    const auto head = decode(*id, it->value().ToStringView());
    if (!head.is_ok()) {
      page.unreadable.push_back(*id);
      continue;
    }
    FINCHKV_ASSIGN_OR_RETURN(EntryInfo info, info_of(*id, *head));
    page.entries.push_back(std::move(info));
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(it->status(), host_->directory(), "listing its entries"));
  return page;
}

Result<CacheId> RocksDbView::resolve_prefix(std::string_view hex_prefix) {
  FINCHKV_ASSIGN_OR_RETURN(const IdPrefix wanted, IdPrefix::parse(hex_prefix));
  FINCHKV_RETURN_IF_ERROR(host_->catch_up().status());
  const std::string prefix = head_prefix(tenant_);
  std::vector<CacheId> matches;
  auto it = host_->iterate(head_key(tenant_, wanted.lowest()), prefix_end(prefix));
  for (; it->Valid() && matches.size() <= IdPrefix::kEnough; it->Next()) {
    const auto id = id_of_head_key(it->key().ToStringView(), prefix);
    if (!id) continue;
    if (!wanted.matches(*id)) break;
    matches.push_back(*id);
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(it->status(), host_->directory(), "looking for an id"));
  return wanted.choose(matches);
}

Result<StoreStats> RocksDbView::stats() {
  StoreStats total;
  std::optional<CacheId> after;
  do {
    FINCHKV_ASSIGN_OR_RETURN(const EntryPage page, list(after, kMaxPage));
    for (const EntryInfo& entry : page.entries) total.add(entry);
    total.unreadable += page.unreadable.size();
    after = page.next;
  } while (after);
  total.disk_bytes = directory_bytes(host_->directory());
  return total;
}

}  // namespace

std::unique_ptr<Store> make_rocksdb_view(std::shared_ptr<RocksDbHost> host, Tenant tenant) {
  return std::make_unique<RocksDbView>(std::move(host), std::move(tenant));
}

}  // namespace finchkv::cache_store
