// Ledger: the book of a store that keeps its limits at every moment. It knows every entry's size, cost, use, pin, lease
// and time, decides who goes when room is needed, and counts a byte from before it is written until after it is gone.
//
// What is promised: for the store, and for every account with a quota, live + leaving + reserved + held bytes
// (ledger_types.h) never exceed the limit, provided that a host writes an entry's blocks only under a Reservation, and
// deletes blocks only when Remove says so. Lowering a limit, or opening a store that is above it, is followed by
// trim().
//
// How a host (the RocksDB store, the memory store) uses it:
//   open     account() and set_quota() for each tenant, add() for each entry, add_abandoned() for blocks that no entry
//            names, trim().
//   put      reserve(encoded bytes); write blocks; write the head and commit() under the entry's lock;
//            delete_released(). When it fails after the first write: abandon().
//   get      read the head and lease() it under the entry's lock; progress() after each block; touch().
//   remove   delete the head and erase() under the entry's lock; delete_released().
//   sometimes, and when touch() says so: take_dirty(), expired(), delete_released().
// An entry's lock is the host's own and makes head and ledger change together. Lock order: entry's lock, then the
// ledger's (inside its calls). reserve(), trim() and delete_released() call Remove, which takes entries' locks: never
// call them with one held.
//
// Thread-safe; one mutex, never held during a callback; O(log n) per entry touched. Tokens (Reservation, Lease) belong
// to one thread at a time, are movable, may outlive the Ledger, and give back what they hold when they are destroyed.
// Left out: I/O, threads, clocks of its own, and all persistence: the host keeps EntryRecords and adds them again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "cache_store/ledger_types.h"

namespace finchkv::cache_store {

class LedgerCore;

/// Room for one put. Its bytes are free again when it is destroyed.
class Reservation {
 public:
  Reservation(Reservation&& other) noexcept = default;
  Reservation& operator=(Reservation&& other) noexcept;
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;
  ~Reservation();

  [[nodiscard]] std::uint64_t bytes() const { return core_ ? bytes_ : 0; }

  /// The put has become an entry of the reservation's account (record.account and record.ranks are not looked at).
  /// Bytes that it did not need are free again. An entry of the same id is replaced: its bytes are held until the last
  /// lease on it has ended and Remove has deleted it. It is pinned if the record or the replaced entry is (unless
  /// that is past its time) and the cap on pins allows it: the returned record, the one to persist, says.
  /// invalid_argument, and nothing has changed, when record.bytes is more than what was reserved.
  [[nodiscard]] Result<EntryRecord> commit(EntryRecord record);

  /// The put failed, and some of its blocks may be there: the bytes stay counted until Remove has deleted them.
  void abandon(const PutId& put_id);

 private:
  friend class Ledger;
  Reservation(std::shared_ptr<LedgerCore> core, AccountId account, std::uint64_t bytes)
      : core_(std::move(core)), account_(account), bytes_(bytes) {}

  std::shared_ptr<LedgerCore> core_;
  AccountId account_;
  std::uint64_t bytes_;
};

/// While it lives and makes progress, the blocks of one put are not deleted.
class Lease {
 public:
  Lease(Lease&& other) noexcept = default;
  Lease& operator=(Lease&& other) noexcept;
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  ~Lease();

  /// To be called after each block and before its bytes are used for anything that a missing block would spoil.
  /// deadline_exceeded when lease_ms have passed since the last call: the blocks may be gone; read the entry again.
  [[nodiscard]] Status progress(std::uint64_t now_ms);

 private:
  friend class Ledger;
  Lease(std::shared_ptr<LedgerCore> core, const CacheId& id, std::pair<std::uint64_t, std::uint64_t> key)
      : core_(std::move(core)), id_(id), key_(key) {}

  std::shared_ptr<LedgerCore> core_;
  CacheId id_;
  std::pair<std::uint64_t, std::uint64_t> key_;
};

class Ledger {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Ledger>> create(const LedgerOptions& options = {});
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;
  ~Ledger();

  /// A tenant's account, made when it is first asked for. The default tenant's name is empty. AccountIds are this
  /// ledger's: they are not to be persisted, and one of another ledger's is a bug (assert).
  [[nodiscard]] AccountId account(std::string_view tenant);
  /// None: no quota. Takes effect for the next reservation; trim() makes room down to a lower one.
  void set_quota(AccountId account, std::optional<std::uint64_t> bytes);
  void set_limit(std::optional<std::uint64_t> bytes);
  /// As LedgerOptions has them, and invalid_argument where it does not. For pins that are set and for leases that are
  /// taken or make progress from now on.
  [[nodiscard]] Status set_pin_percent(std::uint32_t percent);
  [[nodiscard]] Status set_lease_ms(std::uint64_t lease_ms);

  /// An entry that is there already, at opening, whatever the limits. invalid_argument when the id or its size is
  /// impossible: the account has the id, or bytes are beyond 2^62.
  [[nodiscard]] Status add(const EntryRecord& record);
  /// Blocks that are there already, at opening, and belong to no entry: their bytes stay counted until Remove has
  /// deleted them, with the next trim(), delete_released() or reserve(). invalid_argument when bytes are beyond 2^62.
  [[nodiscard]] Status add_abandoned(AccountId account, const PutId& put_id, std::uint64_t bytes);

  /// Room for `bytes` in the account's quota and in the store's limit. Entries that must go for it do so in ascending
  /// rank, those past their time first, the account's own for its quota and anybody's for the store's limit; never
  /// those that are pinned or leased. Returns when they are gone. resource_exhausted at once, with the numbers, and
  /// nothing evicted, when not enough can go. Where what other threads are deleting at this moment will be enough, it
  /// waits for them.
  /// From the moment an entry is chosen it can no longer be found, leased, pinned or touched. When `remove` fails all
  /// chosen ones are back as they were (but for those replaced or erased meanwhile), and its Status is returned.
  [[nodiscard]] Result<Reservation> reserve(AccountId account, std::uint64_t bytes, std::uint64_t now_ms,
                                            const Remove& remove);
  /// Evicts until every limit is kept. resource_exhausted when what is pinned, leased, held and reserved is more than
  /// that; what could go has gone.
  [[nodiscard]] Status trim(std::uint64_t now_ms, const Remove& remove);
  /// Deletes what was removed, replaced or abandoned and is read by nobody any more. Costs nothing when there is none;
  /// does not wait for what another thread is deleting.
  [[nodiscard]] Status delete_released(std::uint64_t now_ms, const Remove& remove);

  /// The entry is in the ledger no more (its head is deleted); its blocks go with the next delete_released() or
  /// reserve() after the last lease. not_found when there is none under this put id.
  [[nodiscard]] Status erase(AccountId account, const CacheId& id, const PutId& put_id);
  [[nodiscard]] std::optional<EntryRecord> find(AccountId account, const CacheId& id) const;
  /// Notes a hit. True when it is time for take_dirty().
  bool touch(AccountId account, const CacheId& id, std::uint64_t now_ms);
  /// resource_exhausted, with the numbers, when more than pin_percent of the quota or of the store's limit would be
  /// pinned; not_found. A pin keeps an entry from being evicted, not from expiring.
  [[nodiscard]] Status set_pinned(AccountId account, const CacheId& id, bool pinned);
  /// 0: never. not_found.
  [[nodiscard]] Status set_expiry(AccountId account, const CacheId& id, std::uint64_t expires_unix_ms);

  /// not_found when the entry is not there, past its time, being evicted, or has been replaced (then its head names
  /// another put id).
  [[nodiscard]] Result<Lease> lease(AccountId account, const CacheId& id, const PutId& put_id, std::uint64_t now_ms);

  /// Up to `most` entries past their time, the oldest first, for the host to remove.
  [[nodiscard]] std::vector<EntryRecord> expired(std::uint64_t now_ms, std::size_t most) const;
  /// Up to `most` records that have changed since they were last taken or added, for the host to write if the entry's
  /// head still names the put id. What is taken and not written is written after the next hit.
  [[nodiscard]] std::vector<EntryRecord> take_dirty(std::size_t most);

  [[nodiscard]] Usage usage() const;
  [[nodiscard]] Usage usage(AccountId account) const;

 private:
  explicit Ledger(std::shared_ptr<LedgerCore> core) : core_(std::move(core)) {}

  std::shared_ptr<LedgerCore> core_;
};

}  // namespace finchkv::cache_store
