// LedgerBook: the ledger's state and arithmetic; ledger.h says what it all means.
//
// Internal to cache_store. Not thread-safe (Ledger holds a mutex around it) and never calls out.
// An entry keeps its slot from the moment it is live until its bytes are gone:
//   live -> leaving (chosen to make room) -> free, or back where it came from when it could not be deleted
//   live -> held (removed or replaced under a lease) -> released (nobody reads it any more) -> leaving -> free
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/status.h"
#include "cache_store/ledger_types.h"
#include "cache_store/victim_heap.h"

namespace finchkv::cache_store {

class LedgerBook {
 public:
  using SlotIndex = std::uint32_t;
  /// Deadline and a number of its own: names a lease for as long as it lives.
  using LeaseKey = std::pair<std::uint64_t, std::uint64_t>;

  /// Victims that were chosen, and what their going gives to whom. Ends in finish().
  struct Eviction {
    std::vector<SlotIndex> victims;
    AccountId account = AccountId::kShared;
    std::uint64_t bytes = 0;         ///< to be reserved
    std::uint64_t from_account = 0;  ///< of them those that the victims give to the account's room
    std::uint64_t from_store = 0;    ///< and to the store's
  };
  enum class Room : std::uint8_t {
    kReady,  ///< the eviction says what has to go first
    kSoon,   ///< what others are deleting will be enough: ask again when they are done
    kNever,  ///< not enough can go
  };

  explicit LedgerBook(const LedgerOptions& options);
  LedgerBook(const LedgerBook&) = delete;
  LedgerBook& operator=(const LedgerBook&) = delete;

  /// Leases without progress end, entries past their time move to the front of the order.
  void advance(std::uint64_t now_ms);

  AccountId account(std::string_view tenant);
  void set_limit(std::optional<std::uint64_t> bytes) { store_.usage.limit = bytes; }
  void set_quota(AccountId account, std::optional<std::uint64_t> bytes) { pool(account).usage.limit = bytes; }
  void set_pin_percent(std::uint32_t percent) { options_.pin_percent = percent; }
  void set_lease_ms(std::uint64_t lease_ms) { options_.lease_ms = lease_ms; }
  [[nodiscard]] std::uint64_t lease_ms() const { return options_.lease_ms; }
  [[nodiscard]] const Usage& usage() const { return store_.usage; }
  [[nodiscard]] const Usage& usage(AccountId account) const { return pool(account).usage; }

  Status add(const EntryRecord& record);
  Status add_abandoned(AccountId account, const PutId& put_id, std::uint64_t bytes);
  Status erase(AccountId account, const CacheId& id, const PutId& put_id);
  [[nodiscard]] std::optional<EntryRecord> find(AccountId account, const CacheId& id) const;
  bool touch(AccountId account, const CacheId& id, std::uint64_t now_ms);
  Status set_pinned(AccountId account, const CacheId& id, bool pinned);
  Status set_expiry(AccountId account, const CacheId& id, std::uint64_t expires_unix_ms);
  [[nodiscard]] std::vector<EntryRecord> expired(std::uint64_t now_ms, std::size_t most) const;
  std::vector<EntryRecord> take_dirty(std::size_t most);

  Room make_room(AccountId account, std::uint64_t bytes, Eviction& eviction);
  [[nodiscard]] Status why_no_room(AccountId account, std::uint64_t bytes) const;
  /// What is released, and with `down_to_limits` as much as can go and must.
  Eviction clear(bool down_to_limits);
  [[nodiscard]] Status above_limits() const;
  [[nodiscard]] std::vector<Removal> removals(const Eviction& eviction) const;
  void finish(const Eviction& eviction, bool gone);

  Result<EntryRecord> commit(std::uint64_t reserved, const EntryRecord& record);
  void give_back(AccountId account, std::uint64_t reserved);
  void abandon(AccountId account, std::uint64_t reserved, const PutId& put_id);

  Result<LeaseKey> lease(AccountId account, const CacheId& id, const PutId& put_id, std::uint64_t now_ms);
  /// False when it has ended.
  bool extend(LeaseKey& key, std::uint64_t now_ms);
  void end_lease(const LeaseKey& key);

 private:
  enum class State : std::uint8_t { kFree, kLive, kLeaving, kHeld, kReleased };

  struct Slot {
    EntryRecord record;
    std::uint32_t leases = 0;
    State state = State::kFree;
    bool indexed = false;  // find() gets here; a leaving entry that is not goes to `released` when it cannot go
    bool dirty = false;
    bool in_dirty_queue = false;  // the slot, whatever entry it had when it was queued
  };

  // What stands under one limit: an account, or the store.
  struct Pool {
    Pool(VictimHeap::Places& places, std::string pool_name, std::string limit_word)
        : victims(places), name(std::move(pool_name)), limit_name(std::move(limit_word)) {}
    VictimHeap victims;
    Usage usage;
    std::uint64_t evictable = 0;  // bytes of `victims`
    std::uint64_t released = 0;   // of usage.held: nobody reads them
    std::uint64_t promised = 0;   // of usage.leaving: somebody's reservation already counts on them
    std::uint64_t clock = 0;
    bool aged = false;  // something was evicted: the clock is real
    std::string name, limit_name;

    [[nodiscard]] std::uint64_t limit() const;
    [[nodiscard]] std::uint64_t missing(std::uint64_t bytes) const;
    [[nodiscard]] std::uint64_t can_go() const { return evictable + released; }
    [[nodiscard]] std::uint64_t going() const { return usage.leaving - promised; }
  };

  struct Key {
    AccountId account;
    const CacheId* id;
  };
  struct KeyHash {
    using is_transparent = void;
    const std::deque<Slot>* slots;
    std::size_t operator()(const Key& key) const;
    std::size_t operator()(SlotIndex slot) const;
  };
  struct KeyEqual {
    using is_transparent = void;
    const std::deque<Slot>* slots;
    bool operator()(SlotIndex a, SlotIndex b) const;
    bool operator()(const Key& a, SlotIndex b) const;
    bool operator()(SlotIndex a, const Key& b) const { return (*this)(b, a); }
  };

  static constexpr SlotIndex kNone = 0xFFFFFFFFU;

  Pool& pool(AccountId account) {
    assert(static_cast<std::size_t>(account) < accounts_.size() && "an account of another ledger");
    return accounts_[static_cast<std::size_t>(account)];
  }
  [[nodiscard]] const Pool& pool(AccountId account) const {
    assert(static_cast<std::size_t>(account) < accounts_.size() && "an account of another ledger");
    return accounts_[static_cast<std::size_t>(account)];
  }
  [[nodiscard]] SlotIndex indexed(AccountId account, const CacheId& id) const;
  [[nodiscard]] SlotIndex live(AccountId account, const CacheId& id) const;
  [[nodiscard]] bool believable_size(std::uint64_t bytes) const;
  [[nodiscard]] Result<SlotIndex> live_or_not_found(AccountId account, const CacheId& id) const;
  SlotIndex new_slot(const EntryRecord& record);
  void free_slot(SlotIndex slot);
  void index(SlotIndex slot);
  void unindex(SlotIndex slot);

  // Into and out of the sums and orders of live entries. Whatever changes a live entry's standing does so in between.
  void enter(SlotIndex slot);
  void leave(SlotIndex slot);
  // Out of the index for good: held or released.
  void retire(SlotIndex slot);
  void retire_put(AccountId account, const PutId& put_id, std::uint64_t bytes);  // of a put without an entry
  void release(SlotIndex slot);
  void mark_dirty(SlotIndex slot);
  void rank(Slot& slot);

  void choose(SlotIndex slot, Eviction& eviction);
  void evict_lowest(Pool& from, std::uint64_t enough, AccountId account, Eviction& eviction);
  void choose_released(std::optional<AccountId> account, std::uint64_t account_missing, std::uint64_t store_missing,
                       Eviction& eviction);
  [[nodiscard]] Status may_pin(const Pool& pool, std::uint64_t bytes) const;
  void drop_lease(std::map<LeaseKey, SlotIndex>::iterator lease);

  LedgerOptions options_;
  std::deque<Slot> slots_;
  std::vector<SlotIndex> free_slots_;
  VictimHeap::Places places_in_account_, places_in_store_;
  std::unordered_set<SlotIndex, KeyHash, KeyEqual> index_;
  std::deque<Pool> accounts_;  // by AccountId
  std::map<std::string, AccountId, std::less<>> account_names_;
  Pool store_;
  std::set<std::pair<std::uint64_t, SlotIndex>> expiries_;
  std::uint64_t expired_until_ = 0;
  std::map<LeaseKey, SlotIndex> leases_;
  std::uint64_t next_lease_ = 0;
  std::vector<SlotIndex> released_;
  std::deque<SlotIndex> dirty_;
};

}  // namespace finchkv::cache_store
