// MemoryHost: the entries and blocks under the views of a store in memory.
//
// Internal to cache_store. Thread-safe. Knows entries by owner and id; what a tenant may do with them stands in
// memory_view.cc. One mutex makes the map of entries and the ledger change together; copying, hashing and sealing
// happen outside it. Lock order: this mutex, then the ledger's; blocks are freed, and the ledger is asked for room,
// without it.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cache_store/codec.h"
#include "cache_store/entry_reader.h"
#include "cache_store/memory_blocks.h"
#include "cache_store/read_pool.h"
#include "cache_store/store.h"
#include "cache_store/store_limits.h"

namespace finchkv::cache_store {

/// What is kept of an entry beside its blocks and what the ledger knows.
struct MemoryEntry {
  std::shared_ptr<const EntryHead> head;
  std::string label;  ///< sealed where the entry is
  bool quarantined = false;
};

/// An entry as it was at one moment.
struct FoundInMemory {
  CacheId id;
  std::string owner;
  MemoryEntry entry;
  EntryRecord record;  ///< hits, times and pin
};

class MemoryHost final : public StoreHost, public std::enable_shared_from_this<MemoryHost> {
 public:
  [[nodiscard]] static Result<std::shared_ptr<MemoryHost>> open(const StoreSettings& settings);
  MemoryHost(const MemoryHost&) = delete;
  MemoryHost& operator=(const MemoryHost&) = delete;

  Result<std::unique_ptr<Store>> view(Tenant tenant, ViewOptions options) override;
  Result<GcReport> gc() override;
  Result<ScrubReport> scrub(const ScrubOptions& options) override;
  Result<StoreReport> report() override;
  StoreSettings settings() const override { return limits_->settings(); }
  Status set_settings(const StoreSettings& settings) override;

  /// False when the tenant's name is another's: its entries were stored under another key.
  [[nodiscard]] bool is_tenant(const Tenant& tenant) const;

  /// nullopt also for what has expired or is being evicted.
  [[nodiscard]] std::optional<FoundInMemory> find(std::string_view owner, const CacheId& id);
  /// Up to `most`, in the order of ids, from `from` on or behind it.
  [[nodiscard]] std::vector<FoundInMemory> find_from(std::string_view owner, const CacheId& from, bool behind,
                                                     std::size_t most);
  /// The put under this id, whether or not it can be found.
  [[nodiscard]] std::optional<PutId> put_of(std::string_view owner, const CacheId& id);

  [[nodiscard]] Result<Reservation> reserve(std::string_view owner, std::uint64_t bytes);
  struct NewEntry {
    const Tenant* tenant = nullptr;  ///< null for shared entries
    std::string owner;
    CacheId id;
    std::optional<PutId> before;          ///< the put that it may replace
    std::optional<std::string> in_front;  ///< whose entry of the same id goes in the same step, if there is one
    MemoryEntry entry;
    std::shared_ptr<const MemoryBlocks> blocks;
    EntryRecord record;
  };
  /// nullopt, and nothing has changed, when another put was faster. permission_denied for another's name.
  [[nodiscard]] Result<std::optional<FoundInMemory>> commit(NewEntry put, Reservation reservation);
  /// Changes what is there under this put id; not_found when it has gone.
  [[nodiscard]] Status change(const FoundInMemory& found, const std::function<Status(MemoryEntry&)>& change);
  /// Whether or not it can be found. False when there is nothing.
  [[nodiscard]] bool remove(std::string_view owner, const CacheId& id);

  /// A source of one thread, under a lease of its own. not_found when the entry has gone.
  [[nodiscard]] Result<std::unique_ptr<BlockSource>> open_source(const FoundInMemory& found);
  void note_lookup(bool found);
  void note_hit(const FoundInMemory& found);
  /// How many there were.
  std::uint64_t remove_expired();

  [[nodiscard]] AccountId account(std::string_view owner) { return limits_->account(owner); }
  [[nodiscard]] Ledger& ledger() { return limits_->ledger(); }
  [[nodiscard]] ReadPool& pool() { return pool_; }

 private:
  using Entries = std::map<CacheId, MemoryEntry>;

  explicit MemoryHost(std::unique_ptr<StoreLimits> limits) : limits_(std::move(limits)) {}
  [[nodiscard]] Remove remover();
  void delete_released();
  void delete_puts(std::span<const Removal> removals);
  void scrub_one(const FoundInMemory& found, ScrubReport& report);
  // Under the mutex.
  bool erase(std::string_view owner, const CacheId& id);
  [[nodiscard]] MemoryEntry* entry_of(std::string_view owner, const CacheId& id);
  [[nodiscard]] std::optional<FoundInMemory> found(std::string_view owner, const CacheId& id, const MemoryEntry& entry,
                                                   std::uint64_t now_ms);

  const std::unique_ptr<StoreLimits> limits_;
  mutable std::mutex mutex_;
  std::map<std::string, Entries, std::less<>> owners_;
  std::map<PutId, std::shared_ptr<const MemoryBlocks>> blocks_;  // of entries, and of removed ones that are being read
  std::map<std::string, std::vector<std::byte>> tenant_keys_;

  std::atomic<std::uint64_t> lookups_{0};
  std::atomic<std::uint64_t> misses_{0};
  std::atomic<std::uint64_t> evictions_{0};
  std::atomic<std::uint64_t> put_bytes_{0};
  ReadPool pool_{ReadPool::usual_threads()};  // last: its threads use what is above
};

/// One tenant's view (memory_view.cc).
[[nodiscard]] std::unique_ptr<Store> make_memory_view(std::shared_ptr<MemoryHost> host, Tenant tenant,
                                                      ViewOptions options);

}  // namespace finchkv::cache_store
