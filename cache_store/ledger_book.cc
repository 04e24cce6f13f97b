#include "cache_store/ledger_book.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include <fmt/format.h>

#include "cache_store/store_common.h"

namespace finchkv::cache_store {
namespace {

// Far above any disk, and far enough below 2^64 that sums of a few cannot wrap.
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 62;
// No policy comes near it: a rank beyond is damage, and would push the clock to where it cannot advance.
constexpr std::uint64_t kHighestBelievableRank = std::uint64_t{1} << 63;

std::uint64_t believable(std::uint64_t rank) { return rank < kHighestBelievableRank ? rank : 0; }

EntryUse use_of(const EntryRecord& record) {
  return {.bytes = record.bytes,
          .cost_ms = record.cost_ms,
          .hits = record.hits,
          .last_used_unix_ms = record.last_used_unix_ms};
}

}  // namespace

// Ids are hashes: any 8 bytes of them will do.
std::size_t LedgerBook::KeyHash::operator()(const Key& key) const {
  std::uint64_t bits = 0;
  std::memcpy(&bits, key.id->bytes.data(), sizeof(bits));
  return bits ^ (static_cast<std::uint64_t>(key.account) * 0x9E3779B97F4A7C15ULL);
}

std::size_t LedgerBook::KeyHash::operator()(SlotIndex slot) const {
  const EntryRecord& record = (*slots)[slot].record;
  return (*this)(Key{record.account, &record.id});
}

// Only indexed slots are compared with one another, and no two of them have one key.
bool LedgerBook::KeyEqual::operator()(SlotIndex a, SlotIndex b) const { return a == b; }

bool LedgerBook::KeyEqual::operator()(const Key& a, SlotIndex b) const {
  const EntryRecord& record = (*slots)[b].record;
  return record.account == a.account && record.id == *a.id;
}

std::uint64_t LedgerBook::Pool::limit() const { return usage.limit ? std::min(*usage.limit, kMostBytes) : kMostBytes; }

std::uint64_t LedgerBook::Pool::missing(std::uint64_t bytes) const {
  const std::uint64_t wanted = usage.used() + bytes;
  return wanted > limit() ? wanted - limit() : 0;
}

LedgerBook::LedgerBook(const LedgerOptions& options)
    : options_(options),
      index_(0, KeyHash{&slots_}, KeyEqual{&slots_}),
      store_(places_in_store_, "the store", "the store's limit") {
  if (!options_.policy) options_.policy = make_gdsf_policy();
  store_.usage.limit = options_.limit;
  accounts_.emplace_back(places_in_account_, "what all tenants share", "the quota of what all tenants share");
}

AccountId LedgerBook::account(std::string_view tenant) {
  if (const auto it = account_names_.find(tenant); it != account_names_.end()) return it->second;
  const auto account = static_cast<AccountId>(accounts_.size());
  std::string name = tenant.empty() ? "the default tenant" : fmt::format("tenant {}", tenant);
  std::string limit_name = fmt::format("the quota of {}", name);
  accounts_.emplace_back(places_in_account_, std::move(name), std::move(limit_name));
  account_names_.emplace(tenant, account);
  return account;
}

LedgerBook::SlotIndex LedgerBook::indexed(AccountId account, const CacheId& id) const {
  const auto it = index_.find(Key{account, &id});
  return it == index_.end() ? kNone : *it;
}

LedgerBook::SlotIndex LedgerBook::live(AccountId account, const CacheId& id) const {
  const SlotIndex slot = indexed(account, id);
  return slot != kNone && slots_[slot].state == State::kLive ? slot : kNone;
}

Result<LedgerBook::SlotIndex> LedgerBook::live_or_not_found(AccountId account, const CacheId& id) const {
  const SlotIndex slot = live(account, id);
  if (slot == kNone) return no_such_entry(id);
  return slot;
}

LedgerBook::SlotIndex LedgerBook::new_slot(const EntryRecord& record) {
  SlotIndex slot = 0;
  if (free_slots_.empty()) {
    slot = static_cast<SlotIndex>(slots_.size());
    slots_.emplace_back();
    places_in_account_.push_back(VictimHeap::kNowhere);
    places_in_store_.push_back(VictimHeap::kNowhere);
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  slots_[slot] = {.record = record, .in_dirty_queue = slots_[slot].in_dirty_queue};
  return slot;
}

void LedgerBook::free_slot(SlotIndex slot) {
  slots_[slot].state = State::kFree;
  slots_[slot].dirty = false;
  free_slots_.push_back(slot);
}

void LedgerBook::index(SlotIndex slot) {
  slots_[slot].indexed = true;
  index_.insert(slot);
}

void LedgerBook::unindex(SlotIndex slot) {
  index_.erase(slot);
  slots_[slot].indexed = false;
}

void LedgerBook::enter(SlotIndex slot) {
  const Slot& s = slots_[slot];
  const EntryRecord& r = s.record;
  for (Pool* p : {&pool(r.account), &store_}) {
    p->usage.live += r.bytes;
    ++p->usage.entries;
    if (r.pinned) {
      p->usage.pinned += r.bytes;
      ++p->usage.pinned_entries;
    } else if (s.leases != 0) {
      p->usage.leased += r.bytes;
    } else {
      const bool past = r.expires_unix_ms != 0 && r.expires_unix_ms <= expired_until_;
      p->evictable += r.bytes;
      p->victims.insert(slot, past ? 0 : (p == &store_ ? r.ranks.in_store : r.ranks.in_account));
    }
  }
  if (r.expires_unix_ms != 0) expiries_.emplace(r.expires_unix_ms, slot);
}

void LedgerBook::leave(SlotIndex slot) {
  const Slot& s = slots_[slot];
  const EntryRecord& r = s.record;
  for (Pool* p : {&pool(r.account), &store_}) {
    p->usage.live -= r.bytes;
    --p->usage.entries;
    if (r.pinned) {
      p->usage.pinned -= r.bytes;
      --p->usage.pinned_entries;
    } else if (s.leases != 0) {
      p->usage.leased -= r.bytes;
    } else {
      p->evictable -= r.bytes;
      p->victims.remove(slot);
    }
  }
  if (r.expires_unix_ms != 0) expiries_.erase({r.expires_unix_ms, slot});
}

void LedgerBook::retire(SlotIndex slot) {
  Slot& s = slots_[slot];
  for (Pool* p : {&pool(s.record.account), &store_}) p->usage.held += s.record.bytes;
  s.dirty = false;
  if (s.leases != 0) {
    s.state = State::kHeld;
  } else {
    release(slot);
  }
}

void LedgerBook::release(SlotIndex slot) {
  Slot& s = slots_[slot];
  s.state = State::kReleased;
  for (Pool* p : {&pool(s.record.account), &store_}) p->released += s.record.bytes;
  released_.push_back(slot);
}

void LedgerBook::rank(Slot& slot) {
  const EntryUse use = use_of(slot.record);
  slot.record.ranks = {options_.policy->rank(use, pool(slot.record.account).clock),
                       options_.policy->rank(use, store_.clock)};
}

bool LedgerBook::believable_size(std::uint64_t bytes) const {
  return bytes <= kMostBytes && store_.usage.used() + bytes <= kMostBytes;
}

Status LedgerBook::add(const EntryRecord& record) {
  if (indexed(record.account, record.id) != kNone) {
    return about_entry(record.id, Status::invalid_argument("it is in the ledger already"));
  }
  if (!believable_size(record.bytes)) {
    return about_entry(record.id, Status::invalid_argument(fmt::format("it cannot have {} bytes", record.bytes)));
  }
  const SlotIndex slot = new_slot(record);
  Slot& s = slots_[slot];
  s.state = State::kLive;
  const EntryUse use = use_of(record);
  s.record.ranks = {believable(record.ranks.in_account), believable(record.ranks.in_store)};
  if (s.record.ranks.in_account == 0) s.record.ranks.in_account = options_.policy->rank(use, 0);
  if (s.record.ranks.in_store == 0) s.record.ranks.in_store = options_.policy->rank(use, 0);
  index(slot);
  enter(slot);
  // The clock of the last process is not known, but every rank was given above it.
  for (Pool* p : {&pool(record.account), &store_}) {
    if (!p->aged && !p->victims.empty()) p->clock = p->victims.lowest_rank();
  }
  return Status::ok();
}

Status LedgerBook::add_abandoned(AccountId account, const PutId& put_id, std::uint64_t bytes) {
  if (!believable_size(bytes)) {
    return Status::invalid_argument(fmt::format("an abandoned put cannot have {} bytes", bytes));
  }
  retire_put(account, put_id, bytes);
  return Status::ok();
}

Status LedgerBook::erase(AccountId account, const CacheId& id, const PutId& put_id) {
  const SlotIndex slot = indexed(account, id);
  if (slot == kNone || slots_[slot].record.put_id != put_id) return no_such_entry(id);
  unindex(slot);
  if (slots_[slot].state == State::kLive) {
    leave(slot);
    retire(slot);
  }
  return Status::ok();
}

std::optional<EntryRecord> LedgerBook::find(AccountId account, const CacheId& id) const {
  const SlotIndex slot = live(account, id);
  if (slot == kNone) return std::nullopt;
  return slots_[slot].record;
}

bool LedgerBook::touch(AccountId account, const CacheId& id, std::uint64_t now_ms) {
  if (const SlotIndex slot = live(account, id); slot != kNone) {
    leave(slot);
    EntryRecord& record = slots_[slot].record;
    ++record.hits;
    record.last_used_unix_ms = std::max(record.last_used_unix_ms, now_ms);
    rank(slots_[slot]);
    enter(slot);
    mark_dirty(slot);
  }
  return dirty_.size() >= options_.dirty_batch;
}

Status LedgerBook::may_pin(const Pool& pool, std::uint64_t bytes) const {
  if (!pool.usage.limit) return Status::ok();
  const std::uint64_t limit = pool.limit();
  const std::uint64_t cap = limit / 100 * options_.pin_percent + limit % 100 * options_.pin_percent / 100;
  if (pool.usage.pinned + bytes <= cap) return Status::ok();
  return Status::resource_exhausted(fmt::format(
      "pinning its {} bytes would exceed the {} bytes ({} % of {}, {} bytes) that may be pinned: {} bytes are already; "
      "unpin other entries or raise the limit",
      bytes, cap, options_.pin_percent, pool.limit_name, limit, pool.usage.pinned));
}

Status LedgerBook::set_pinned(AccountId account, const CacheId& id, bool pinned) {
  FINCHKV_ASSIGN_OR_RETURN(const SlotIndex slot, live_or_not_found(account, id));
  EntryRecord& record = slots_[slot].record;
  if (record.pinned == pinned) return Status::ok();
  if (pinned) {
    FINCHKV_RETURN_IF_ERROR(about_entry(id, may_pin(pool(account), record.bytes)));
    FINCHKV_RETURN_IF_ERROR(about_entry(id, may_pin(store_, record.bytes)));
  }
  leave(slot);
  record.pinned = pinned;
  enter(slot);
  mark_dirty(slot);
  return Status::ok();
}

Status LedgerBook::set_expiry(AccountId account, const CacheId& id, std::uint64_t expires_unix_ms) {
  FINCHKV_ASSIGN_OR_RETURN(const SlotIndex slot, live_or_not_found(account, id));
  leave(slot);
  slots_[slot].record.expires_unix_ms = expires_unix_ms;
  enter(slot);
  mark_dirty(slot);
  return Status::ok();
}

std::vector<EntryRecord> LedgerBook::expired(std::uint64_t now_ms, std::size_t most) const {
  std::vector<EntryRecord> records;
  for (const auto& [when, slot] : expiries_) {
    if (when > now_ms || records.size() == most) break;
    records.push_back(slots_[slot].record);
  }
  return records;
}

void LedgerBook::mark_dirty(SlotIndex slot) {
  Slot& s = slots_[slot];
  s.dirty = true;
  if (!s.in_dirty_queue) dirty_.push_back(slot);
  s.in_dirty_queue = true;
}

std::vector<EntryRecord> LedgerBook::take_dirty(std::size_t most) {
  std::vector<EntryRecord> records;
  while (!dirty_.empty() && records.size() < most) {
    Slot& slot = slots_[dirty_.front()];
    dirty_.pop_front();
    slot.in_dirty_queue = false;
    if (!slot.dirty) continue;  // its entry has gone
    slot.dirty = false;
    records.push_back(slot.record);
  }
  return records;
}

Result<EntryRecord> LedgerBook::commit(std::uint64_t reserved, const EntryRecord& record) {
  if (record.bytes > reserved) {
    return about_entry(record.id, Status::invalid_argument(fmt::format("it has {} bytes and only {} were reserved",
                                                                       record.bytes, reserved)));
  }
  bool pinned = record.pinned;
  if (const SlotIndex old = indexed(record.account, record.id); old != kNone) {
    const EntryRecord& was = slots_[old].record;
    const bool past = was.expires_unix_ms != 0 && was.expires_unix_ms <= expired_until_;
    pinned = pinned || (was.pinned && !past);
    unindex(old);
    if (slots_[old].state == State::kLive) {
      leave(old);
      retire(old);
    }
  }
  give_back(record.account, reserved);
  const SlotIndex slot = new_slot(record);
  Slot& s = slots_[slot];
  s.state = State::kLive;
  s.record.pinned =
      pinned && may_pin(pool(record.account), record.bytes).is_ok() && may_pin(store_, record.bytes).is_ok();
  rank(s);
  index(slot);
  enter(slot);
  mark_dirty(slot);  // for its ranks
  return s.record;
}

void LedgerBook::give_back(AccountId account, std::uint64_t reserved) {
  pool(account).usage.reserved -= reserved;
  store_.usage.reserved -= reserved;
}

void LedgerBook::abandon(AccountId account, std::uint64_t reserved, const PutId& put_id) {
  give_back(account, reserved);
  retire_put(account, put_id, reserved);
}

void LedgerBook::retire_put(AccountId account, const PutId& put_id, std::uint64_t bytes) {
  EntryRecord record;
  record.account = account;
  record.put_id = put_id;
  record.bytes = bytes;
  retire(new_slot(record));
}

}  // namespace finchkv::cache_store
