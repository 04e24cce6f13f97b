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
#include "cache_store/tenant_standing.h"

namespace finchkv::cache_store {

using Record = std::optional<std::string>;

/// An entry as it was found: everything that is needed to read it.
struct Found {
  std::string owner;
  Record record;
  EntryHead head;
  EntryInfo info;
};

class RocksDbView final : public Store {
 public:
  RocksDbView(std::shared_ptr<RocksDbHost> host, TenantStanding as) : host_(std::move(host)), as_(std::move(as)) {}

  Result<EntryInfo> put(const PutRequest& request) override;
  Result<EntryInfo> put_packed(const PackedEntry& entry, const PutOptions& options) override;
  Result<EntryInfo> find(const CacheId& id) override;
  Result<std::unique_ptr<EntryStream>> stream(const CacheId& id) override;
  Result<std::vector<std::vector<std::uint32_t>>> read_origins(const CacheId& id) override;
  Result<std::vector<std::int32_t>> read_document_tokens(const CacheId& id) override;
  Result<PackedEntry> read_packed(const CacheId& id) override;
  Status verify(const CacheId& id) override;
  Status remove(const CacheId& id) override;
  Status set_label(const CacheId& id, const std::string& label) override;
  Status set_pinned(const CacheId& id, bool pinned) override;
  Status set_expiry(const CacheId& id, std::uint64_t unix_ms) override;
  Result<std::uint64_t> rewrap_keys() override;
  Result<EntryPage> list(const std::optional<CacheId>& after, std::size_t limit) override;
  Result<CacheId> resolve_prefix(std::string_view hex_prefix) override;
  Result<StoreStats> stats() override { return sum_of_list(*this); }
  const Tenant& tenant() const override { return as_.tenant(); }

 private:
  Result<EntryHead> decode(std::string_view owner, const CacheId& id, std::string_view record) const;
  Result<EntryInfo> info_of(std::string_view owner, const CacheId& id, const EntryHead& head,
                            const std::optional<AccessRecord>& access) const;
  Result<bool> owns_its_name();
  Result<Found> look_up_under(std::string_view owner, const CacheId& id);
  Result<Found> look_up(const CacheId& id);
  Result<std::unique_ptr<EntryStream>> start_stream(const CacheId& id, PutId& put_id);
  template <typename Read>
  auto read_entry(const CacheId& id, const Read& read)
      -> decltype(read(std::declval<const EntryReader&>(), std::declval<BlockSource&>()));
  Result<EntryInfo> store(const PackedEntry& packed, const PutOptions& options);
  Result<EntryInfo> try_store(const PackedEntry& packed, const PutOptions& options);
  Result<std::optional<EntryInfo>> existing(std::string_view owner, const CacheId& id, const Record& record);
  Result<std::optional<AccessRecord>> write_head(const std::string& owner, const CacheId& id, const PutOptions& options,
                                                 const EncodedEntry& entry, const Record& before,
                                                 Reservation& reservation);
  Result<EntryInfo> commit(const CacheId& id, const PutOptions& options, const EncodedEntry& entry,
                           const Record& before, Reservation reservation);
  Result<AccessRecord> first_access(const PutOptions& options, const EncodedEntry& entry) const;
  Status change_access(const CacheId& id, std::string_view doing,
                       const std::function<Status(const std::string& owner, AccessRecord&)>& change);
  Status check_tenant(std::string_view owner, rocksdb::WriteBatch& batch);

  std::shared_ptr<RocksDbHost> host_;
  TenantStanding as_;
};

}  // namespace finchkv::cache_store
