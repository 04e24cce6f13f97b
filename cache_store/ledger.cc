#include "cache_store/ledger.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>

#include <fmt/format.h>

#include "cache_store/ledger_book.h"
#include "cache_store/store_common.h"

namespace finchkv::cache_store {

class LedgerCore {
 public:
  explicit LedgerCore(const LedgerOptions& options) : book(options) {}

  std::mutex mutex;
  std::condition_variable room;  // bytes became free, or came back
  LedgerBook book;

  // Lets the victims go, outside the lock.
  Status carry_out(std::unique_lock<std::mutex>& lock, const LedgerBook::Eviction& eviction, const Remove& remove) {
    Status status;
    if (!eviction.victims.empty()) {
      const std::vector<Removal> removals = book.removals(eviction);
      lock.unlock();
      status = call(remove, removals);
      lock.lock();
    }
    book.finish(eviction, status.is_ok());
    room.notify_all();
    return status;
  }

 private:
  // Victims must come back whatever happens in there.
  static Status call(const Remove& remove, const std::vector<Removal>& removals) {
    try {
      return remove(removals);
    } catch (const std::exception& e) {
      return Status::internal(fmt::format("deleting evicted entries threw: {}", e.what()));
    }
  }
};

Status LedgerOptions::validate() const {
  if (pin_percent > 100) {
    return Status::invalid_argument(fmt::format("pin_percent is a share of 0 to 100 percent, not {}", pin_percent));
  }
  if (lease_ms == 0) return Status::invalid_argument("lease_ms must be at least 1, or nobody could read anything");
  if (dirty_batch == 0) return Status::invalid_argument("dirty_batch must be at least 1");
  return Status::ok();
}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  if (this == &other) return *this;
  const Reservation dropped(std::move(*this));
  core_ = std::move(other.core_);
  account_ = other.account_;
  bytes_ = other.bytes_;
  return *this;
}

Reservation::~Reservation() {
  if (!core_) return;
  const std::lock_guard lock(core_->mutex);
  core_->book.give_back(account_, bytes_);
  core_->room.notify_all();
}

Result<EntryRecord> Reservation::commit(EntryRecord record) {
  if (!core_) return Status::invalid_argument("this reservation has been used: reserve again");
  const auto core = core_;  // outlives the lock
  const std::lock_guard lock(core->mutex);
  record.account = account_;
  auto stored = core->book.commit(bytes_, record);
  if (!stored.is_ok()) return stored;
  core_.reset();
  core->room.notify_all();
  return stored;
}

void Reservation::abandon(const PutId& put_id) {
  if (!core_) return;
  const auto core = std::move(core_);
  const std::lock_guard lock(core->mutex);
  core->book.abandon(account_, bytes_, put_id);
  core->room.notify_all();
}

Lease& Lease::operator=(Lease&& other) noexcept {
  if (this == &other) return *this;
  const Lease dropped(std::move(*this));
  core_ = std::move(other.core_);
  id_ = other.id_;
  key_ = other.key_;
  return *this;
}

Lease::~Lease() {
  if (!core_) return;
  const std::lock_guard lock(core_->mutex);
  core_->book.end_lease(key_);
  core_->room.notify_all();
}

Status Lease::progress(std::uint64_t now_ms) {
  if (!core_) return Status::invalid_argument("this lease was moved from");
  const std::lock_guard lock(core_->mutex);
  if (core_->book.extend(key_, now_ms)) return Status::ok();
  core_->room.notify_all();
  return Status::deadline_exceeded(
      fmt::format("entry {}: its reader made no progress for {} ms, so it may have been removed; read it again",
                  id_.hex(), core_->book.lease_ms()));
}

Result<std::unique_ptr<Ledger>> Ledger::create(const LedgerOptions& options) {
  FINCHKV_RETURN_IF_ERROR(options.validate());
  return std::unique_ptr<Ledger>(new Ledger(std::make_shared<LedgerCore>(options)));
}

Ledger::~Ledger() = default;

AccountId Ledger::account(std::string_view tenant) {
  const std::lock_guard lock(core_->mutex);
  return core_->book.account(tenant);
}

void Ledger::set_quota(AccountId account, std::optional<std::uint64_t> bytes) {
  const std::lock_guard lock(core_->mutex);
  core_->book.set_quota(account, bytes);
  core_->room.notify_all();
}

void Ledger::set_limit(std::optional<std::uint64_t> bytes) {
  const std::lock_guard lock(core_->mutex);
  core_->book.set_limit(bytes);
  core_->room.notify_all();
}

Status Ledger::set_pin_percent(std::uint32_t percent) {
  LedgerOptions wanted;
  wanted.pin_percent = percent;
  FINCHKV_RETURN_IF_ERROR(wanted.validate());
  const std::lock_guard lock(core_->mutex);
  core_->book.set_pin_percent(percent);
  return Status::ok();
}

Status Ledger::set_lease_ms(std::uint64_t lease_ms) {
  LedgerOptions wanted;
  wanted.lease_ms = lease_ms;
  FINCHKV_RETURN_IF_ERROR(wanted.validate());
  const std::lock_guard lock(core_->mutex);
  core_->book.set_lease_ms(lease_ms);
  return Status::ok();
}

Status Ledger::add(const EntryRecord& record) {
  const std::lock_guard lock(core_->mutex);
  return core_->book.add(record);
}

Status Ledger::add_abandoned(AccountId account, const PutId& put_id, std::uint64_t bytes) {
  const std::lock_guard lock(core_->mutex);
  return core_->book.add_abandoned(account, put_id, bytes);
}

Result<Reservation> Ledger::reserve(AccountId account, std::uint64_t bytes, std::uint64_t now_ms,
                                    const Remove& remove) {
  std::unique_lock lock(core_->mutex);
  core_->book.advance(now_ms);
  for (;;) {
    LedgerBook::Eviction eviction;
    switch (core_->book.make_room(account, bytes, eviction)) {
      case LedgerBook::Room::kReady:
        FINCHKV_RETURN_IF_ERROR(core_->carry_out(lock, eviction, remove));
        return Reservation(core_, account, bytes);
      case LedgerBook::Room::kSoon: core_->room.wait(lock); break;
      case LedgerBook::Room::kNever: return core_->book.why_no_room(account, bytes);
    }
  }
}

Status Ledger::trim(std::uint64_t now_ms, const Remove& remove) {
  std::unique_lock lock(core_->mutex);
  core_->book.advance(now_ms);
  FINCHKV_RETURN_IF_ERROR(core_->carry_out(lock, core_->book.clear(true), remove));
  return core_->book.above_limits();
}

Status Ledger::delete_released(std::uint64_t now_ms, const Remove& remove) {
  std::unique_lock lock(core_->mutex);
  core_->book.advance(now_ms);
  return core_->carry_out(lock, core_->book.clear(false), remove);
}

Status Ledger::erase(AccountId account, const CacheId& id, const PutId& put_id) {
  const std::lock_guard lock(core_->mutex);
  const Status status = core_->book.erase(account, id, put_id);
  core_->room.notify_all();
  return status;
}

std::optional<EntryRecord> Ledger::find(AccountId account, const CacheId& id) const {
  const std::lock_guard lock(core_->mutex);
  return core_->book.find(account, id);
}

bool Ledger::touch(AccountId account, const CacheId& id, std::uint64_t now_ms) {
  const std::lock_guard lock(core_->mutex);
  return core_->book.touch(account, id, now_ms);
}

Status Ledger::set_pinned(AccountId account, const CacheId& id, bool pinned) {
  const std::lock_guard lock(core_->mutex);
  return core_->book.set_pinned(account, id, pinned);
}

Status Ledger::set_expiry(AccountId account, const CacheId& id, std::uint64_t expires_unix_ms) {
  const std::lock_guard lock(core_->mutex);
  return core_->book.set_expiry(account, id, expires_unix_ms);
}

Result<Lease> Ledger::lease(AccountId account, const CacheId& id, const PutId& put_id, std::uint64_t now_ms) {
  const std::lock_guard lock(core_->mutex);
  core_->book.advance(now_ms);
  FINCHKV_ASSIGN_OR_RETURN(const auto key, core_->book.lease(account, id, put_id, now_ms));
  return Lease(core_, id, key);
}

std::vector<EntryRecord> Ledger::expired(std::uint64_t now_ms, std::size_t most) const {
  const std::lock_guard lock(core_->mutex);
  return core_->book.expired(now_ms, most);
}

std::vector<EntryRecord> Ledger::take_dirty(std::size_t most) {
  const std::lock_guard lock(core_->mutex);
  return core_->book.take_dirty(most);
}

Usage Ledger::usage() const {
  const std::lock_guard lock(core_->mutex);
  return core_->book.usage();
}

Usage Ledger::usage(AccountId account) const {
  const std::lock_guard lock(core_->mutex);
  return core_->book.usage(account);
}

}  // namespace finchkv::cache_store
