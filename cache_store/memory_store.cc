#include "cache_store/memory_store.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "cache_store/codec.h"
#include "cache_store/store_common.h"

namespace finchkv::cache_store {
namespace {

using Blocks = std::vector<std::vector<std::byte>>;

struct Record {
  std::vector<std::byte> head;
  std::shared_ptr<const Blocks> blocks;  // shared with readers, so that a removal does not pull them away
  std::string label;
  std::uint64_t hits = 0;
  std::uint64_t last_used_unix_ms = 0;
};

struct TenantRecords {
  std::vector<std::byte> key;
  std::map<CacheId, Record> entries;
};

// An entry's parts, taken under the lock and read outside it.
struct Snapshot {
  EntryHead head;
  EntryInfo info;
  std::shared_ptr<const Blocks> blocks;

  [[nodiscard]] BlockReader reader() const {
    return [this](std::uint32_t ordinal, const std::function<Status(std::span<const std::byte>)>& use) {
      if (ordinal >= blocks->size()) return Status::not_found("the block is missing");
      return use((*blocks)[ordinal]);
    };
  }
};

class MemoryHost : public StoreHost, public std::enable_shared_from_this<MemoryHost> {
 public:
  Result<std::unique_ptr<Store>> view(Tenant tenant) override;
  // Blocks live with their head here: there is never anything to collect.
  Result<GcReport> gc() override { return GcReport{}; }

  std::mutex mutex;
  std::map<std::string, TenantRecords> tenants;
};

class MemoryStore : public Store {
 public:
  MemoryStore(std::shared_ptr<MemoryHost> host, Tenant tenant) : host_(std::move(host)), tenant_(std::move(tenant)) {}

  Result<EntryInfo> put(const PutRequest& request) override {
    FINCHKV_RETURN_IF_ERROR(check_put(request, tenant_));
    const CacheId id = cache_id(request.identity, tenant_);
    if (request.if_exists == IfExists::kKeep) {
      if (auto existing = find(id); existing.is_ok()) return existing;
    }
    auto encoded = encode_entry(request, PutId::random(), unix_ms_now());
    if (!encoded.is_ok()) return about_entry(id, encoded.status());
    auto blocks = std::make_shared<Blocks>();
    for (const Block& block : encoded->blocks) blocks->emplace_back(block.bytes.begin(), block.bytes.end());
    {
      const std::lock_guard lock(host_->mutex);
      TenantRecords& mine = host_->tenants[tenant_.name];
      if (mine.key.empty()) mine.key = tenant_.key;
      if (mine.key != tenant_.key) return wrong_tenant_key(tenant_);
      mine.entries[id] = {.head = encoded->head_record,
                          .blocks = std::move(blocks),
                          .label = request.label,
                          .hits = 0,
                          .last_used_unix_ms = encoded->head.created_unix_ms};
    }
    return find(id);
  }

  Result<EntryInfo> find(const CacheId& id) override {
    FINCHKV_ASSIGN_OR_RETURN(Snapshot entry, snapshot(id));
    return std::move(entry.info);
  }

  Result<KvSet> get(const CacheId& id) override {
    FINCHKV_ASSIGN_OR_RETURN(const Snapshot entry, snapshot(id));
    auto set = cache_store::read_kvset(entry.head, entry.reader());
    if (!set.is_ok()) return about_entry(id, set.status());
    const std::lock_guard lock(host_->mutex);
    TenantRecords* mine = records();
    if (mine == nullptr) return set;
    if (const auto it = mine->entries.find(id); it != mine->entries.end()) {
      ++it->second.hits;
      it->second.last_used_unix_ms = std::max(it->second.last_used_unix_ms, unix_ms_now());
    }
    return set;
  }

  Result<std::vector<std::vector<std::uint32_t>>> read_origins(const CacheId& id) override {
    FINCHKV_ASSIGN_OR_RETURN(const Snapshot entry, snapshot(id));
    auto origins = cache_store::read_origins(entry.head, entry.reader());
    if (!origins.is_ok()) return about_entry(id, origins.status());
    return origins;
  }

  Result<std::vector<std::int32_t>> read_document_tokens(const CacheId& id) override {
    FINCHKV_ASSIGN_OR_RETURN(const Snapshot entry, snapshot(id));
    auto tokens = cache_store::read_document_tokens(entry.head, tenant_, entry.reader());
    if (!tokens.is_ok()) return about_entry(id, tokens.status());
    return tokens;
  }

  Status verify(const CacheId& id) override {
    FINCHKV_ASSIGN_OR_RETURN(const Snapshot entry, snapshot(id));
    return about_entry(id, verify_entry(entry.head, tenant_, entry.reader()));
  }

  Status remove(const CacheId& id) override {
    const std::lock_guard lock(host_->mutex);
    TenantRecords* mine = records();
    if (mine == nullptr || mine->entries.erase(id) == 0) return no_such_entry(id);
    return Status::ok();
  }

  Result<EntryPage> list(const std::optional<CacheId>& after, std::size_t limit) override {
    FINCHKV_RETURN_IF_ERROR(check_page_limit(limit));
    EntryPage page;
    std::vector<CacheId> ids;
    {
      const std::lock_guard lock(host_->mutex);
      if (const TenantRecords* mine = records()) {
        auto it = after ? mine->entries.upper_bound(*after) : mine->entries.begin();
        for (; it != mine->entries.end() && ids.size() < limit; ++it) ids.push_back(it->first);
        if (it != mine->entries.end()) page.next = ids.back();
      }
    }
    for (const CacheId& id : ids) {
      auto info = find(id);
      if (info.is_ok()) {
        page.entries.push_back(*std::move(info));
      } else if (info.status().code() != StatusCode::kNotFound) {
        page.unreadable.push_back(id);
      }
    }
    return page;
  }

  Result<CacheId> resolve_prefix(std::string_view hex_prefix) override {
    FINCHKV_ASSIGN_OR_RETURN(const IdPrefix prefix, IdPrefix::parse(hex_prefix));
    std::vector<CacheId> matches;
    const std::lock_guard lock(host_->mutex);
    if (const TenantRecords* mine = records()) {
      for (auto it = mine->entries.lower_bound(prefix.lowest());
           it != mine->entries.end() && prefix.matches(it->first) && matches.size() <= IdPrefix::kEnough; ++it) {
        matches.push_back(it->first);
      }
    }
    return prefix.choose(matches);
  }

  Result<StoreStats> stats() override {
    StoreStats total;
    std::optional<CacheId> after;
    do {
      FINCHKV_ASSIGN_OR_RETURN(const EntryPage page, list(after, kMaxPage));
      for (const EntryInfo& entry : page.entries) total.add(entry);
      total.unreadable += page.unreadable.size();
      after = page.next;
    } while (after);
    return total;
  }

  const Tenant& tenant() const override { return tenant_; }

 private:
  // Under the lock. A tenant's entries are out of reach under another key.
  TenantRecords* records() {
    const auto it = host_->tenants.find(tenant_.name);
    return it == host_->tenants.end() || it->second.key != tenant_.key ? nullptr : &it->second;
  }

  Result<Snapshot> snapshot(const CacheId& id) {
    Record record;
    {
      const std::lock_guard lock(host_->mutex);
      const TenantRecords* mine = records();
      if (mine == nullptr) return no_such_entry(id);
      const auto it = mine->entries.find(id);
      if (it == mine->entries.end()) return no_such_entry(id);
      record = it->second;
    }
    auto head = decode_head(record.head, id, tenant_);
    if (!head.is_ok()) return about_entry(id, head.status());
    Snapshot out{.head = *std::move(head), .info = {}, .blocks = std::move(record.blocks)};
    out.info = make_entry_info(id, out.head);
    out.info.label = record.label;
    out.info.hits = record.hits;
    out.info.last_used_unix_ms = record.last_used_unix_ms;
    return out;
  }

  std::shared_ptr<MemoryHost> host_;
  Tenant tenant_;
};

Result<std::unique_ptr<Store>> MemoryHost::view(Tenant tenant) {
  FINCHKV_RETURN_IF_ERROR(tenant.validate());
  {
    const std::lock_guard lock(mutex);
    const auto it = tenants.find(tenant.name);
    if (it != tenants.end() && it->second.key != tenant.key) return wrong_tenant_key(tenant);
  }
  return std::unique_ptr<Store>(std::make_unique<MemoryStore>(shared_from_this(), std::move(tenant)));
}

}  // namespace

std::shared_ptr<StoreHost> make_memory_store() { return std::make_shared<MemoryHost>(); }

}  // namespace finchkv::cache_store
