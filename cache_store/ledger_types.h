// The words of the ledger (ledger.h): accounts, what it knows of an entry, what is used.
//
// Plain values. All times are Unix milliseconds and come from the caller.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/status.h"
#include "cache_store/eviction_policy.h"
#include "cache_store/identity.h"
#include "cache_store/put_id.h"

namespace finchkv::cache_store {

/// Whose quota an entry counts against: a tenant's (Ledger::account), or that of what all tenants share.
enum class AccountId : std::uint32_t { kShared = 0 };

/// An entry's places in the order of eviction, as its policy gave them: in its account's, where the quota is the limit,
/// and in the store's. Kept apart so that one tenant's churn does not age what another has. Opaque; to be persisted as
/// they are. Zeros: not known, worked out again from the rest of the record.
struct Ranks {
  std::uint64_t in_account = 0;
  std::uint64_t in_store = 0;

  bool operator==(const Ranks&) const = default;
};

struct EntryRecord {
  AccountId account = AccountId::kShared;
  CacheId id;
  PutId put_id;
  std::uint64_t bytes = 0;  ///< all blocks as stored
  std::uint64_t cost_ms = 0;
  std::uint64_t hits = 0;
  std::uint64_t last_used_unix_ms = 0;
  std::uint64_t created_unix_ms = 0;
  std::uint64_t expires_unix_ms = 0;  ///< 0: never
  Ranks ranks;
  bool pinned = false;

  bool operator==(const EntryRecord&) const = default;
};

/// A put whose head (where one names it) and blocks the host is to delete.
struct Removal {
  AccountId account = AccountId::kShared;
  CacheId id;  ///< zeros for a put that was abandoned
  PutId put_id;
  std::uint64_t bytes = 0;
};

/// Deletes all of these, durably, and returns when they are gone. It is called without any lock of the ledger's, on the
/// thread that asked for room, with at least one removal; it must not ask the same ledger for room. A head is to be
/// deleted only while it names this put id: a replacing put may have been faster. After a failure all of them count as
/// still there and come again, so what is gone already must not be an error.
using Remove = std::function<Status(std::span<const Removal>)>;

/// Bytes of an account or of the store: live + leaving + reserved + held never exceeds the limit.
struct Usage {
  std::optional<std::uint64_t> limit;
  std::uint64_t entries = 0;  ///< live
  std::uint64_t pinned_entries = 0;
  std::uint64_t live = 0;      ///< of entries that can be found
  std::uint64_t leaving = 0;   ///< given to Remove and not gone yet
  std::uint64_t reserved = 0;  ///< of puts that are being written
  std::uint64_t held = 0;      ///< of removed or replaced entries: still being read, or not deleted yet
  std::uint64_t pinned = 0;    ///< of `live`
  std::uint64_t leased = 0;    ///< of `live`: being read and not pinned

  [[nodiscard]] std::uint64_t used() const { return live + leaving + reserved + held; }
  bool operator==(const Usage&) const = default;
};

struct LedgerOptions {
  std::optional<std::uint64_t> limit;  ///< bytes of the whole store; none: as much as there is
  /// How much of a quota, and of the store's limit, may be pinned: 0 to 100. Half leaves room for everybody else's
  /// puts.
  std::uint32_t pin_percent = 50;
  /// A reader that has not come further for so long is taken for dead, and no longer keeps bytes from being deleted.
  std::uint64_t lease_ms = 60'000;
  /// touch() asks for a take_dirty() when so many records wait: a write per hit would cost more than the hit.
  std::size_t dirty_batch = 256;
  std::shared_ptr<const EvictionPolicy> policy;  ///< null: make_gdsf_policy()

  /// invalid_argument naming the field.
  [[nodiscard]] Status validate() const;
};

}  // namespace finchkv::cache_store
