#include "cache_store/memory_host.h"

#include <utility>

#include "cache_store/memory_store.h"
#include "cache_store/scrub_pace.h"
#include "cache_store/store_common.h"

namespace finchkv::cache_store {

Result<std::shared_ptr<StoreHost>> open_memory_store(const StoreSettings& settings) {
  FINCHKV_ASSIGN_OR_RETURN(auto host, MemoryHost::open(settings));
  return std::shared_ptr<StoreHost>(std::move(host));
}

std::shared_ptr<StoreHost> make_memory_store() {
  auto host = MemoryHost::open({});
  return *std::move(host);  // the settings that everybody starts with are valid
}

Result<std::shared_ptr<MemoryHost>> MemoryHost::open(const StoreSettings& settings) {
  FINCHKV_ASSIGN_OR_RETURN(auto limits, StoreLimits::create(settings));
  return std::shared_ptr<MemoryHost>(new MemoryHost(std::move(limits)));
}

Result<std::unique_ptr<Store>> MemoryHost::view(Tenant tenant, ViewOptions options) {
  FINCHKV_RETURN_IF_ERROR(tenant.validate());
  if (!is_tenant(tenant)) return wrong_tenant_key(tenant);
  return make_memory_view(shared_from_this(), std::move(tenant), std::move(options));
}

Status MemoryHost::set_settings(const StoreSettings& settings) {
  FINCHKV_RETURN_IF_ERROR(limits_->set(settings));
  return ledger().trim(unix_ms_now(), remover());
}

bool MemoryHost::is_tenant(const Tenant& tenant) const {
  const std::lock_guard lock(mutex_);
  const auto it = tenant_keys_.find(tenant.name);
  return it == tenant_keys_.end() || it->second == tenant.key;
}

MemoryEntry* MemoryHost::entry_of(std::string_view owner, const CacheId& id) {
  const auto entries = owners_.find(owner);
  if (entries == owners_.end()) return nullptr;
  const auto it = entries->second.find(id);
  return it == entries->second.end() ? nullptr : &it->second;
}

std::optional<FoundInMemory> MemoryHost::found(std::string_view owner, const CacheId& id, const MemoryEntry& entry,
                                               std::uint64_t now_ms) {
  auto record = ledger().find(account(owner), id);
  if (!record || (record->expires_unix_ms != 0 && record->expires_unix_ms <= now_ms)) return std::nullopt;
  return FoundInMemory{.id = id, .owner = std::string(owner), .entry = entry, .record = *record};
}

std::optional<FoundInMemory> MemoryHost::find(std::string_view owner, const CacheId& id) {
  const std::lock_guard lock(mutex_);
  const MemoryEntry* const entry = entry_of(owner, id);
  if (entry == nullptr) return std::nullopt;
  return found(owner, id, *entry, unix_ms_now());
}

std::vector<FoundInMemory> MemoryHost::find_from(std::string_view owner, const CacheId& from, bool behind,
                                                 std::size_t most) {
  std::vector<FoundInMemory> out;
  const std::uint64_t now = unix_ms_now();
  const std::lock_guard lock(mutex_);
  const auto entries = owners_.find(owner);
  if (entries == owners_.end()) return out;
  const Entries& all = entries->second;
  for (auto it = behind ? all.upper_bound(from) : all.lower_bound(from); it != all.end() && out.size() < most; ++it) {
    if (auto one = found(owner, it->first, it->second, now)) out.push_back(*std::move(one));
  }
  return out;
}

std::optional<PutId> MemoryHost::put_of(std::string_view owner, const CacheId& id) {
  const std::lock_guard lock(mutex_);
  const MemoryEntry* const entry = entry_of(owner, id);
  return entry == nullptr ? std::nullopt : std::optional(entry->head->put_id);
}

Result<Reservation> MemoryHost::reserve(std::string_view owner, std::uint64_t bytes) {
  return ledger().reserve(account(owner), bytes, unix_ms_now(), remover());
}

Result<std::optional<FoundInMemory>> MemoryHost::commit(NewEntry put, Reservation reservation) {
  std::optional<FoundInMemory> out;
  {
    const std::lock_guard lock(mutex_);
    if (put.tenant != nullptr && !put.tenant->name.empty()) {
      const auto [it, first] = tenant_keys_.emplace(put.tenant->name, put.tenant->key);
      if (!first && it->second != put.tenant->key) return wrong_tenant_key(*put.tenant);
    }
    const MemoryEntry* const now = entry_of(put.owner, put.id);
    if (now != nullptr && now->head->put_id != put.before) return out;
    FINCHKV_ASSIGN_OR_RETURN(const EntryRecord record, reservation.commit(put.record));
    if (put.in_front) erase(*put.in_front, put.id);
    blocks_[record.put_id] = std::move(put.blocks);
    owners_[put.owner][put.id] = put.entry;
    put_bytes_ += record.bytes;
    out = FoundInMemory{.id = put.id, .owner = put.owner, .entry = std::move(put.entry), .record = record};
  }
  delete_released();
  return out;
}

Status MemoryHost::change(const FoundInMemory& found, const std::function<Status(MemoryEntry&)>& change) {
  const std::lock_guard lock(mutex_);
  MemoryEntry* const entry = entry_of(found.owner, found.id);
  if (entry == nullptr || entry->head->put_id != found.record.put_id) return no_such_entry(found.id);
  return change(*entry);
}

bool MemoryHost::remove(std::string_view owner, const CacheId& id) {
  {
    const std::lock_guard lock(mutex_);
    if (!erase(owner, id)) return false;
  }
  delete_released();
  return true;
}

bool MemoryHost::erase(std::string_view owner, const CacheId& id) {
  const MemoryEntry* const entry = entry_of(owner, id);
  if (entry == nullptr) return false;
  // Not in the ledger when it was being evicted at this moment.
  (void)ledger().erase(account(owner), id, entry->head->put_id).is_ok();
  owners_.find(owner)->second.erase(id);
  return true;
}

Remove MemoryHost::remover() {
  return [this](std::span<const Removal> removals) {
    delete_puts(removals);
    return Status::ok();
  };
}

void MemoryHost::delete_released() { (void)ledger().delete_released(unix_ms_now(), remover()).is_ok(); }

void MemoryHost::delete_puts(std::span<const Removal> removals) {
  std::vector<decltype(blocks_)::node_type> gone;  // freed behind the lock
  const std::lock_guard lock(mutex_);
  for (const Removal& removal : removals) {
    const std::string owner = limits_->owner_of(removal.account);
    const MemoryEntry* const entry = entry_of(owner, removal.id);
    if (entry != nullptr && entry->head->put_id == removal.put_id) {
      owners_[owner].erase(removal.id);
      ++evictions_;
    }
    gone.push_back(blocks_.extract(removal.put_id));
  }
}

std::uint64_t MemoryHost::remove_expired() {
  constexpr std::size_t kAtOnce = 256;
  std::uint64_t removed = 0;
  for (;;) {
    const auto expired = ledger().expired(unix_ms_now(), kAtOnce);
    for (const EntryRecord& record : expired) {
      const std::lock_guard lock(mutex_);
      // Found under another put id only if a put was faster.
      if (!ledger().erase(record.account, record.id, record.put_id).is_ok()) continue;
      owners_[limits_->owner_of(record.account)].erase(record.id);
      ++removed;
    }
    if (expired.size() < kAtOnce) break;
  }
  delete_released();
  return removed;
}

Result<GcReport> MemoryHost::gc() {
  GcReport report;  // blocks live with their put here: none is ever left behind
  report.expired = remove_expired();
  return report;
}

Result<std::unique_ptr<BlockSource>> MemoryHost::open_source(const FoundInMemory& found) {
  // Gives removed blocks back as soon as nobody reads them.
  struct Guard {
    Guard(Lease given, MemoryHost& of) : lease(std::move(given)), host(of) {}
    ~Guard() {
      { const Lease ended(std::move(lease)); }
      host.delete_released();
    }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
    Lease lease;
    MemoryHost& host;
  };
  std::weak_ptr<const MemoryBlocks> blocks;
  std::shared_ptr<Guard> guard;
  {
    const std::lock_guard lock(mutex_);
    const PutId& put_id = found.record.put_id;
    FINCHKV_ASSIGN_OR_RETURN(Lease lease, ledger().lease(account(found.owner), found.id, put_id, unix_ms_now()));
    blocks = blocks_.at(put_id);
    guard = std::make_shared<Guard>(std::move(lease), *this);
  }
  return make_memory_source(std::move(blocks), [guard] { return guard->lease.progress(unix_ms_now()); });
}

void MemoryHost::note_lookup(bool found) {
  ++lookups_;
  if (!found) ++misses_;
}

void MemoryHost::note_hit(const FoundInMemory& found) {
  // Nothing is written down here, so what has changed is only dropped.
  if (ledger().touch(account(found.owner), found.id, unix_ms_now())) (void)ledger().take_dirty(~std::size_t{0});
}

Result<ScrubReport> MemoryHost::scrub(const ScrubOptions& options) {
  ScrubReport report;
  const ScrubPace pace(options);
  if (options.only) {
    for (const CacheId& id : *options.only) {
      auto found = find(options.tenant, id);
      if (!found) found = find(kSharedOwner, id);
      if (found) scrub_one(*found, report);
      if (!pace.keep(report.bytes)) break;
    }
    return report;
  }
  std::vector<std::string> owners;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [owner, entries] : owners_) owners.push_back(owner);
  }
  for (const std::string& owner : owners) {
    bool behind = false;
    for (CacheId at;;) {
      const auto next = find_from(owner, at, behind, 1);
      if (next.empty()) break;
      at = next.front().id;
      behind = true;
      scrub_one(next.front(), report);
      if (!pace.keep(report.bytes)) return report;
    }
  }
  return report;
}

void MemoryHost::scrub_one(const FoundInMemory& found, ScrubReport& report) {
  auto source = open_source(found);
  if (!source.is_ok()) return;  // it went away
  ++report.entries;
  report.bytes += found.record.bytes;
  const auto reader = EntryReader::open_sealed(*found.entry.head, **source);
  const Status status = reader.is_ok() ? reader->verify_digests(**source) : reader.status();
  if (status.code() != StatusCode::kCorrupt) return;
  const Status marked = change(found, [&](MemoryEntry& entry) {
    if (!std::exchange(entry.quarantined, true)) report.quarantined.push_back(found.id);
    return Status::ok();
  });
  (void)marked.is_ok();  // replaced meanwhile: then it is another's
}

Result<StoreReport> MemoryHost::report() {
  StoreReport out;
  const std::uint64_t now = unix_ms_now();
  const std::lock_guard lock(mutex_);
  for (const auto& [owner, entries] : owners_) {
    const AccountId of_owner = account(owner);
    for (const auto& [id, entry] : entries) {
      const auto record = ledger().find(of_owner, id);
      if (!record) continue;  // being evicted
      if (entry.quarantined) {
        ++out.total.unreadable;
        continue;
      }
      EntryInfo info = make_entry_info(id, *entry.head);
      info.hits = record->hits;
      add_to_report(out, owner, info, now);
    }
  }
  const Usage usage = ledger().usage();
  out.reserved_bytes = usage.reserved;
  out.held_bytes = usage.held;
  out.pinned_bytes = usage.pinned;
  out.lookups = lookups_.load();
  out.misses = misses_.load();
  out.evictions = evictions_.load();
  out.put_bytes = put_bytes_.load();
  out.settings = settings();
  return out;
}

}  // namespace finchkv::cache_store
