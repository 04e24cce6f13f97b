// TenantView: what one tenant's views of all kinds of storage have in common: who may put what, which of an entry's
// readers serves which call, pages and prefixes over own and shared entries.
//
// Internal to cache_store. A storage's own view says what is there and brings readers to blocks. Immutable,
// thread-safe.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cache_store/entry_reader.h"
#include "cache_store/store.h"
#include "cache_store/store_common.h"
#include "cache_store/tenant_standing.h"

namespace finchkv::cache_store {

class TenantView : public Store {
 public:
  Result<EntryInfo> put(const PutRequest& request) final;
  Result<EntryInfo> put_packed(const PackedEntry& entry, const PutOptions& options) final;
  Result<std::vector<std::vector<std::uint32_t>>> read_origins(const CacheId& id) final;
  Result<std::vector<std::int32_t>> read_document_tokens(const CacheId& id) final;
  Result<PackedEntry> read_packed(const CacheId& id) final;
  Status verify(const CacheId& id) final;
  Result<EntryPage> list(const std::optional<CacheId>& after, std::size_t limit) final;
  Result<EntryPage> list_shared(const std::optional<CacheId>& after, std::size_t limit) final;
  Result<CacheId> resolve_prefix(std::string_view hex_prefix) final;
  Result<StoreStats> stats() final { return sum_of_list(*this); }
  const Tenant& tenant() const final { return as_.tenant(); }

 protected:
  explicit TenantView(TenantStanding as) : as_(std::move(as)) {}

  /// Which entry an id means: the tenant's own, else a shared one.
  enum class Which : std::uint8_t {
    kFirst,   ///< whatever state it is in
    kSound,   ///< past an own one that is damaged
    kShared,  ///< the shared one alone
  };
  /// The first of `find_own` and `find_shared` that counts, with the own one's error where neither is sound.
  template <typename T>
  static Result<T> choose(Which which, const std::function<Result<T>()>& find_own,
                          const std::function<Result<T>()>& find_shared) {
    if (which == Which::kShared) return find_shared();
    auto own = find_own();
    if (own.is_ok() || own.status().code() == StatusCode::kNotFound) {
      return own.is_ok() ? std::move(own) : find_shared();
    }
    if (which != Which::kSound || own.status().code() != StatusCode::kCorrupt) return own;
    auto shared = find_shared();
    return shared.is_ok() ? std::move(shared) : std::move(own);
  }

  /// What to do with an entry's reader and blocks; `owner` is whose entry it is.
  using UseReader = std::function<Status(std::string_view owner, const EntryReader&, BlockSource&)>;

  /// permission_denied for a storage that was opened for reading.
  virtual Status prepare_to_write() = 0;
  /// What is there already and is to stay: nullopt for nothing, or for what is damaged, expired or in quarantine.
  virtual Result<std::optional<EntryInfo>> existing(const std::string& owner, const CacheId& id) = 0;
  /// Stores what has been checked.
  virtual Result<EntryInfo> store(const PackedEntry& packed, const PutOptions& options) = 0;
  /// Calls `use` under a lease, again where blocks went meanwhile.
  virtual Status read_blocks(const CacheId& id, Which which, const UseReader& use) = 0;
  virtual Result<EntryPage> list_under(const std::string& owner, const std::optional<CacheId>& after,
                                       std::size_t limit) = 0;
  /// IdPrefix::kEnough + 1 at most.
  virtual Result<std::vector<CacheId>> ids_under(const std::string& owner, const IdPrefix& prefix) = 0;

  TenantStanding as_;
};

}  // namespace finchkv::cache_store
