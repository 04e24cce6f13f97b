// The half of LedgerBook that makes room: who goes, what is promised to whom, and leases, which keep entries from
// going.
//
// Bytes are counted so that nothing has to be waited for that is not certain. A reservation takes the free bytes it
// needs at once; the rest is promised to it out of its victims' bytes, which stay counted as `leaving` until they are
// gone, and only then become `reserved`. What its victims give beyond the promise is nobody's until then, so another
// reservation either finds victims of its own or waits.
#include <algorithm>
#include <cassert>

#include <fmt/format.h>

#include "cache_store/ledger_book.h"
#include "cache_store/store_common.h"

namespace finchkv::cache_store {

void LedgerBook::advance(std::uint64_t now_ms) {
  while (!leases_.empty() && leases_.begin()->first.first <= now_ms) drop_lease(leases_.begin());
  if (now_ms <= expired_until_) return;
  std::vector<SlotIndex> past;
  for (auto it = expiries_.upper_bound({expired_until_, kNone}); it != expiries_.end() && it->first <= now_ms; ++it) {
    past.push_back(it->second);
  }
  for (const SlotIndex slot : past) leave(slot);
  expired_until_ = now_ms;
  for (const SlotIndex slot : past) enter(slot);
}

void LedgerBook::choose(SlotIndex slot, Eviction& eviction) {
  Slot& s = slots_[slot];
  const std::uint64_t bytes = s.record.bytes;
  Pool& account = pool(s.record.account);
  if (s.state == State::kReleased) {
    for (Pool* p : {&account, &store_}) {
      p->usage.held -= bytes;
      p->released -= bytes;
    }
  } else {
    leave(slot);
  }
  s.state = State::kLeaving;
  account.usage.leaving += bytes;
  store_.usage.leaving += bytes;
  if (s.record.account == eviction.account) eviction.from_account += bytes;
  eviction.from_store += bytes;
  eviction.victims.push_back(slot);
}

// With an account only what is that account's, until both have enough.
void LedgerBook::choose_released(std::optional<AccountId> account, std::uint64_t account_missing,
                                 std::uint64_t store_missing, Eviction& eviction) {
  std::erase_if(released_, [&](SlotIndex slot) {
    if (account && slots_[slot].record.account != *account) return false;
    if (eviction.from_account >= account_missing && eviction.from_store >= store_missing) return false;
    choose(slot, eviction);
    return true;
  });
}

void LedgerBook::evict_lowest(Pool& from, std::uint64_t enough, AccountId account, Eviction& eviction) {
  const bool whole_store = &from == &store_;
  std::uint64_t evicted = 0;
  while (evicted < enough && !from.victims.empty()) {
    const SlotIndex slot = from.victims.lowest();
    const EntryRecord& record = slots_[slot].record;
    evicted += record.bytes;
    // The account's clock follows the store's evictions, and never the other way round: one tenant's churn under its
    // own quota says nothing about what others have.
    Pool& owner = pool(whole_store ? record.account : account);
    if (from.victims.lowest_rank() != 0) {  // going because of its time says nothing either
      owner.clock = std::max(owner.clock, record.ranks.in_account);
      owner.aged = true;
      if (whole_store) {
        store_.clock = std::max(store_.clock, record.ranks.in_store);
        store_.aged = true;
      }
    }
    choose(slot, eviction);
  }
}

LedgerBook::Room LedgerBook::make_room(AccountId account, std::uint64_t bytes, Eviction& eviction) {
  Pool& own = pool(account);
  if (bytes > own.limit() || bytes > store_.limit()) return Room::kNever;
  const std::uint64_t own_missing = own.missing(bytes);
  const std::uint64_t store_missing = store_.missing(bytes);
  const auto room = [](const Pool& p, std::uint64_t missing) {
    if (missing <= p.can_go()) return Room::kReady;
    return missing <= p.can_go() + p.going() ? Room::kSoon : Room::kNever;
  };
  if (const Room worse = std::max(room(own, own_missing), room(store_, store_missing)); worse != Room::kReady) {
    return worse;
  }
  eviction.account = account;
  eviction.bytes = bytes;
  if (own_missing > 0) {
    choose_released(account, own_missing, 0, eviction);
    if (eviction.from_account < own_missing) {
      evict_lowest(own, own_missing - eviction.from_account, account, eviction);
    }
  }
  if (eviction.from_store < store_missing) choose_released(std::nullopt, 0, store_missing, eviction);
  if (eviction.from_store < store_missing) {
    evict_lowest(store_, store_missing - eviction.from_store, account, eviction);
  }
  const auto promise = [&](Pool& p, std::uint64_t from) {
    const std::uint64_t promised = std::min(bytes, from);
    p.promised += promised;
    p.usage.reserved += bytes - promised;
  };
  promise(own, eviction.from_account);
  promise(store_, eviction.from_store);
  return Room::kReady;
}

Status LedgerBook::why_no_room(AccountId account, std::uint64_t bytes) const {
  const Pool& own = pool(account);
  const bool own_full = bytes > own.limit() || own.missing(bytes) > own.can_go() + own.going();
  const Pool& full = own_full ? own : store_;
  const std::string what = full.usage.limit ? fmt::format("{} is {} bytes", full.limit_name, full.limit())
                                            : fmt::format("no store can hold more than {} bytes", full.limit());
  if (bytes > full.limit()) {
    return Status::resource_exhausted(fmt::format(
        "{} bytes are needed and {}: keep fewer entries, use a narrower dtype or raise the limit", bytes, what));
  }
  return Status::resource_exhausted(fmt::format(
      "{} bytes are needed and {}, of which {} are pinned, {} are being read, {} belong to removed entries that are "
      "still being read, and {} are being written; unpin entries, try again later or raise the limit",
      bytes, what, full.usage.pinned, full.usage.leased, full.usage.held - full.released,
      full.usage.reserved + full.promised));
}

LedgerBook::Eviction LedgerBook::clear(bool down_to_limits) {
  Eviction eviction;
  for (const SlotIndex slot : released_) choose(slot, eviction);
  released_.clear();
  if (!down_to_limits) return eviction;
  const auto trim = [&](Pool& p, AccountId account) {
    const std::uint64_t missing = p.missing(0);
    if (missing > p.going()) evict_lowest(p, missing - p.going(), account, eviction);
  };
  for (std::size_t i = 0; i < accounts_.size(); ++i) trim(accounts_[i], static_cast<AccountId>(i));
  trim(store_, AccountId::kShared);
  return eviction;
}

Status LedgerBook::above_limits() const {
  const auto check = [](const Pool& p) {
    if (p.missing(0) <= p.going()) return Status::ok();
    return Status::resource_exhausted(
        fmt::format("{} is {} bytes and {} bytes stay: {} pinned, {} being read, {} of removed entries that are still "
                    "being read, {} "
                    "being written; unpin entries, try again later or raise the limit",
                    p.limit_name, p.limit(), p.usage.used() - p.going(), p.usage.pinned, p.usage.leased,
                    p.usage.held - p.released, p.usage.reserved + p.promised));
  };
  for (const Pool& account : accounts_) FINCHKV_RETURN_IF_ERROR(check(account));
  return check(store_);
}

std::vector<Removal> LedgerBook::removals(const Eviction& eviction) const {
  std::vector<Removal> out;
  out.reserve(eviction.victims.size());
  for (const SlotIndex slot : eviction.victims) {
    const EntryRecord& r = slots_[slot].record;
    out.push_back({.account = r.account, .id = r.id, .put_id = r.put_id, .bytes = r.bytes});
  }
  return out;
}

void LedgerBook::finish(const Eviction& eviction, bool gone) {
  for (const SlotIndex slot : eviction.victims) {
    Slot& s = slots_[slot];
    for (Pool* p : {&pool(s.record.account), &store_}) p->usage.leaving -= s.record.bytes;
    if (gone) {
      if (s.indexed) unindex(slot);
      free_slot(slot);
    } else if (s.indexed) {
      s.state = State::kLive;
      enter(slot);
    } else {
      retire(slot);
    }
  }
  const auto redeem = [&](Pool& p, std::uint64_t from) {
    const std::uint64_t promised = std::min(eviction.bytes, from);
    p.promised -= promised;
    if (gone) {
      p.usage.reserved += promised;
    } else {
      p.usage.reserved -= eviction.bytes - promised;
    }
  };
  redeem(pool(eviction.account), eviction.from_account);
  redeem(store_, eviction.from_store);
}

Result<LedgerBook::LeaseKey> LedgerBook::lease(AccountId account, const CacheId& id, const PutId& put_id,
                                               std::uint64_t now_ms) {
  FINCHKV_ASSIGN_OR_RETURN(const SlotIndex slot, live_or_not_found(account, id));
  const EntryRecord& record = slots_[slot].record;
  if (record.put_id != put_id) {
    return about_entry(id, Status::not_found("it has been replaced; read its head again"));
  }
  if (record.expires_unix_ms != 0 && record.expires_unix_ms <= now_ms) {
    return about_entry(id, Status::not_found("it has expired"));
  }
  const LeaseKey key{now_ms + options_.lease_ms, next_lease_++};
  leave(slot);
  ++slots_[slot].leases;
  enter(slot);
  leases_.emplace(key, slot);
  return key;
}

bool LedgerBook::extend(LeaseKey& key, std::uint64_t now_ms) {
  const auto it = leases_.find(key);
  if (it == leases_.end()) return false;
  if (key.first <= now_ms) {
    drop_lease(it);
    return false;
  }
  auto node = leases_.extract(it);
  key.first = now_ms + options_.lease_ms;
  node.key() = key;
  leases_.insert(std::move(node));
  return true;
}

void LedgerBook::end_lease(const LeaseKey& key) {
  if (const auto it = leases_.find(key); it != leases_.end()) drop_lease(it);
}

void LedgerBook::drop_lease(std::map<LeaseKey, SlotIndex>::iterator lease) {
  const SlotIndex slot = lease->second;
  leases_.erase(lease);
  Slot& s = slots_[slot];
  if (s.state == State::kLive) {
    leave(slot);
    --s.leases;
    enter(slot);
  } else if (--s.leases == 0) {
    release(slot);
  }
}

}  // namespace finchkv::cache_store
