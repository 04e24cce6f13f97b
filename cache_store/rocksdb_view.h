// RocksDbView: one tenant's view of a RocksDB store: what an entry is, in terms of the host's records and blocks.
//
// Internal to cache_store. Reading stands in rocksdb_view.cc, putting in rocksdb_put.cc, what changes an entry that is
// there in rocksdb_change.cc. Thread-safe; keeps its host open.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cache_store/codec.h"
#include "cache_store/entry_reader.h"
#include "cache_store/rocksdb_host.h"
#include "cache_store/store_common.h"
#include "cache_store/tenant_view.h"

namespace finchkv::cache_store {

using Record = std::optional<std::string>;

/// An entry as it was found: everything that is needed to read it.
struct Found {
  std::string owner;
  Record record;
  EntryHead head;
  EntryInfo info;
};

class RocksDbView final : public TenantView {
 public:
  RocksDbView(std::shared_ptr<RocksDbHost> host, TenantStanding as)
      : TenantView(std::move(as)), host_(std::move(host)) {}

  Result<EntryInfo> find(const CacheId& id) override;
  Result<std::unique_ptr<EntryStream>> stream(const CacheId& id, const StreamOptions& options) override;
  Status remove(const CacheId& id) override;
  Status set_label(const CacheId& id, const std::string& label) override;
  Status set_pinned(const CacheId& id, bool pinned) override;
  Status set_expiry(const CacheId& id, std::uint64_t unix_ms) override;
  Result<std::uint64_t> rewrap_keys() override;

 private:
  Status prepare_to_write() override { return host_->prepare_to_write(); }
  Result<std::optional<EntryInfo>> existing(const std::string& owner, const CacheId& id) override;
  Result<EntryInfo> store(const PackedEntry& packed, const PutOptions& options) override;
  Status read_blocks(const CacheId& id, Which which, const UseReader& use) override;
  Result<EntryPage> list_under(const std::string& owner, const std::optional<CacheId>& after,
                               std::size_t limit) override;
  Result<std::vector<CacheId>> ids_under(const std::string& owner, const IdPrefix& prefix) override;

  Result<EntryHead> decode(std::string_view owner, const CacheId& id, std::string_view record) const;
  Result<EntryInfo> info_of(std::string_view owner, const CacheId& id, const EntryHead& head,
                            const std::optional<AccessRecord>& access) const;
  Result<bool> may_look_under(std::string_view owner);
  Result<Found> look_up_under(std::string_view owner, const CacheId& id);
  Result<Found> look_up(const CacheId& id, Which which);
  Status use_found(const CacheId& id, const Found& found, const UseReader& use, bool& opened);
  Result<std::unique_ptr<EntryStream>> start_stream(const CacheId& id, Which which, const StreamOptions& options,
                                                    PutId& put_id);
  Result<std::unique_ptr<EntryStream>> restart_stream(const CacheId& id, const Status& why,
                                                      const StreamOptions& options, PutId& put_id);
  Result<EntryInfo> try_store(const PackedEntry& packed, const PutOptions& options);
  Result<std::optional<AccessRecord>> write_head(const std::string& owner, const CacheId& id, const PutOptions& options,
                                                 const EncodedEntry& entry, const std::optional<PutId>& before,
                                                 Reservation& reservation);
  Result<std::optional<Removal>> add_removal_in_front(const std::string& owner, const CacheId& id,
                                                      const PutOptions& options, rocksdb::WriteBatch& batch);
  Result<EntryInfo> commit(const CacheId& id, const PutOptions& options, const EncodedEntry& entry,
                           const std::optional<PutId>& before, Reservation reservation);
  Result<AccessRecord> first_access(const PutOptions& options, const EncodedEntry& entry) const;
  Status change_access(const CacheId& id, std::string_view doing,
                       const std::function<Status(const std::string& owner, AccessRecord&)>& change);
  Status check_tenant(std::string_view owner, rocksdb::WriteBatch& batch);

  std::shared_ptr<RocksDbHost> host_;
};

}  // namespace finchkv::cache_store
