// One tenant's view of a store in memory.
#include <algorithm>
#include <utility>

#include "cache_store/entry_reader.h"
#include "cache_store/entry_stream.h"
#include "cache_store/label.h"
#include "cache_store/layer_stream.h"
#include "cache_store/memory_host.h"
#include "cache_store/packed_entry.h"
#include "cache_store/store_common.h"
#include "cache_store/tenant_standing.h"

namespace finchkv::cache_store {
namespace {

class MemoryView final : public Store {
 public:
  MemoryView(std::shared_ptr<MemoryHost> host, Tenant tenant, ViewOptions options)
      : host_(std::move(host)), as_(std::move(tenant), std::move(options)) {}

  Result<EntryInfo> put(const PutRequest& request) override;
  Result<EntryInfo> put_packed(const PackedEntry& entry, const PutOptions& options) override;
  Result<EntryInfo> find(const CacheId& id) override;
  Result<std::unique_ptr<EntryStream>> stream(const CacheId& id) override;
  Result<std::vector<std::vector<std::uint32_t>>> read_origins(const CacheId& id) override;
  Result<std::vector<std::int32_t>> read_document_tokens(const CacheId& id) override;
  Result<PackedEntry> read_packed(const CacheId& id) override;
  Status verify(const CacheId& id) override;
  Status remove(const CacheId& id) override;
  Status set_label(const CacheId& id, const std::string& label) override;
  Status set_pinned(const CacheId& id, bool pinned) override;
  Status set_expiry(const CacheId& id, std::uint64_t unix_ms) override;
  Result<std::uint64_t> rewrap_keys() override;
  Result<EntryPage> list(const std::optional<CacheId>& after, std::size_t limit) override;
  Result<CacheId> resolve_prefix(std::string_view hex_prefix) override;
  Result<StoreStats> stats() override { return sum_of_list(*this); }
  const Tenant& tenant() const override { return as_.tenant(); }

 private:
  [[nodiscard]] std::vector<std::string> owners() const;
  Result<EntryInfo> info_of(const FoundInMemory& found) const;
  Status readable(const FoundInMemory& found) const;
  Result<FoundInMemory> look_up(const CacheId& id);
  Result<std::optional<EntryInfo>> existing(std::string_view owner, const CacheId& id);
  Result<EntryReader> open(const FoundInMemory& found, BlockSource& source) const;
  template <typename Read>
  auto read_entry(const CacheId& id, const Read& read)
      -> decltype(read(std::declval<const EntryReader&>(), std::declval<BlockSource&>()));
  Result<EntryInfo> store(const PackedEntry& packed, const PutOptions& options);
  Result<std::optional<FoundInMemory>> try_store(const PackedEntry& packed, const PutOptions& options,
                                                 const CacheId& id, const std::optional<PutId>& before);
  Result<FoundInMemory> own_to_change(const CacheId& id);

  std::shared_ptr<MemoryHost> host_;
  TenantStanding as_;
};

// Where this tenant finds entries, its own first. Another's name gives no way to what stands under it.
std::vector<std::string> MemoryView::owners() const {
  if (!host_->is_tenant(as_.tenant())) return {std::string(kSharedOwner)};
  return {as_.tenant().name, std::string(kSharedOwner)};
}

Result<EntryInfo> MemoryView::info_of(const FoundInMemory& found) const {
  const EntryHead& head = *found.entry.head;
  EntryInfo info = make_entry_info(found.id, head);
  info.sharing = found.owner == kSharedOwner ? Sharing::kShared : Sharing::kPrivate;
  info.hits = found.record.hits;
  info.last_used_unix_ms = std::max(info.last_used_unix_ms, found.record.last_used_unix_ms);
  info.expires_unix_ms = found.record.expires_unix_ms;
  info.pinned = found.record.pinned;
  info.label = found.entry.label;
  if (head.sealed) {
    auto label = open_label(found.entry.label, head, as_.tenant().name, as_.keys_of(found.owner));
    if (!label.is_ok()) return about_entry(found.id, label.status());
    info.label = *std::move(label);
  }
  return info;
}

Status MemoryView::readable(const FoundInMemory& found) const {
  if (found.entry.quarantined) return about_entry(found.id, in_quarantine());
  return about_entry(found.id, as_.may_serve(found.owner, found.entry.head->sealed));
}

Result<FoundInMemory> MemoryView::look_up(const CacheId& id) {
  for (const std::string& owner : owners()) {
    auto found = host_->find(owner, id);
    if (!found) continue;
    FINCHKV_RETURN_IF_ERROR(readable(*found));
    return *std::move(found);
  }
  return no_such_entry(id);
}

Result<EntryReader> MemoryView::open(const FoundInMemory& found, BlockSource& source) const {
  return EntryReader::open(*found.entry.head, as_.ids_of(found.owner).name, as_.keys_of(found.owner), source);
}

// Between look-up and lease the entry may have been replaced or removed: then what is there now counts.
template <typename Read>
auto MemoryView::read_entry(const CacheId& id, const Read& read)
    -> decltype(read(std::declval<const EntryReader&>(), std::declval<BlockSource&>())) {
  for (;;) {
    FINCHKV_ASSIGN_OR_RETURN(const FoundInMemory found, look_up(id));
    auto source = host_->open_source(found);
    if (source.status().code() == StatusCode::kNotFound) continue;
    if (!source.is_ok()) return about_entry(id, source.status());
    const auto reader = open(found, **source);
    if (!reader.is_ok()) return about_entry(id, reader.status());
    auto result = read(*reader, **source);
    if (!result.is_ok()) return about_entry(id, result.status());
    return result;
  }
}

Result<EntryInfo> MemoryView::find(const CacheId& id) {
  const auto found = look_up(id);
  host_->note_lookup(found.status().code() != StatusCode::kNotFound);
  if (!found.is_ok()) return found.status();
  return info_of(*found);
}

Result<std::unique_ptr<EntryStream>> MemoryView::stream(const CacheId& id) {
  for (;;) {
    const auto found = look_up(id);
    auto source = found.is_ok() ? host_->open_source(*found) : found.status();
    if (found.is_ok() && source.status().code() == StatusCode::kNotFound) continue;  // replaced at this moment
    host_->note_lookup(found.status().code() != StatusCode::kNotFound);
    if (!source.is_ok()) return about_entry(id, source.status());
    auto reader = open(*found, **source);
    if (!reader.is_ok()) return about_entry(id, reader.status());
    FINCHKV_ASSIGN_OR_RETURN(EntryInfo info, info_of(*found));
    host_->note_hit(*found);
    auto more = [host = host_.get(), found = *found] { return host->open_source(found); };
    auto layers = make_layer_stream(std::move(info), *std::move(reader), *std::move(source), more, &host_->pool());
    // A lease keeps blocks from going, so there is nothing to begin again for.
    return make_entry_stream(host_, std::move(layers), [id] { return no_such_entry(id); });
  }
}

Result<std::vector<std::vector<std::uint32_t>>> MemoryView::read_origins(const CacheId& id) {
  return read_entry(id, [](const EntryReader& reader, BlockSource& blocks) { return reader.read_origins(blocks); });
}

Result<std::vector<std::int32_t>> MemoryView::read_document_tokens(const CacheId& id) {
  FINCHKV_ASSIGN_OR_RETURN(const FoundInMemory found, look_up(id));
  if (!found.entry.head->has_document_tokens) {
    return about_entry(id, Status::not_found("it was stored without its document"));
  }
  return read_entry(id, [&](const EntryReader& reader, BlockSource& blocks) {
    return reader.read_document_tokens(as_.ids_of(found.owner), blocks);
  });
}

Result<PackedEntry> MemoryView::read_packed(const CacheId& id) {
  return read_entry(id, [](const EntryReader& reader, BlockSource& blocks) { return reader.read_packed(blocks); });
}

Status MemoryView::verify(const CacheId& id) {
  return read_entry(id,
                    [&](const EntryReader& reader, BlockSource& blocks) -> Result<bool> {
                      const bool own = cache_id(reader.head().identity, tenant()) == id;
                      FINCHKV_RETURN_IF_ERROR(reader.verify(as_.ids_of(own ? tenant().name : kSharedOwner), blocks));
                      return true;
                    })
      .status();
}

Result<EntryInfo> MemoryView::put(const PutRequest& request) {
  const std::string owner = as_.owner_for(request.sharing);
  FINCHKV_RETURN_IF_ERROR(check_put(request, as_.ids_of(owner)));
  FINCHKV_RETURN_IF_ERROR(as_.may_change(owner));
  const CacheId id = cache_id(request.identity, as_.ids_of(owner));
  if (request.if_exists == IfExists::kKeep) {  // before it is packed for nothing
    FINCHKV_ASSIGN_OR_RETURN(auto there, existing(owner, id));
    if (there) return *std::move(there);
  }
  const auto packed = pack_entry(request);
  if (!packed.is_ok()) return about_entry(id, packed.status());
  return store(*packed, request);
}

Result<EntryInfo> MemoryView::put_packed(const PackedEntry& entry, const PutOptions& options) {
  FINCHKV_RETURN_IF_ERROR(check_label(options.label));
  if (const Status sound = check_packed(entry, as_.ids_of(as_.owner_for(options.sharing))); !sound.is_ok()) {
    return Status::invalid_argument("the packed entry cannot be stored: " + sound.message());
  }
  FINCHKV_RETURN_IF_ERROR(as_.may_change(as_.owner_for(options.sharing)));
  return store(entry, options);
}

// What is there already and is to stay: nullopt for nothing, or for what is damaged or in quarantine.
Result<std::optional<EntryInfo>> MemoryView::existing(std::string_view owner, const CacheId& id) {
  if (owner != kSharedOwner && !host_->is_tenant(tenant())) return wrong_tenant_key(tenant());
  const auto found = host_->find(owner, id);
  if (!found || !readable(*found).is_ok()) return std::optional<EntryInfo>();
  auto info = info_of(*found);
  if (info.status().code() == StatusCode::kCorrupt) return std::optional<EntryInfo>();
  if (!info.is_ok()) return info.status();
  return std::optional(*std::move(info));
}

Result<EntryInfo> MemoryView::store(const PackedEntry& packed, const PutOptions& options) {
  const std::string owner = as_.owner_for(options.sharing);
  const CacheId id = cache_id(packed.head.identity, as_.ids_of(owner));
  host_->remove_expired();
  for (;;) {
    const std::optional<PutId> before = host_->put_of(owner, id);
    if (options.if_exists == IfExists::kKeep) {
      FINCHKV_ASSIGN_OR_RETURN(auto there, existing(owner, id));
      if (there) return *std::move(there);
    }
    auto stored = try_store(packed, options, id, before);
    if (!stored.is_ok()) return about_entry(id, stored.status());
    if (*stored) return info_of(**stored);
    // Another put of the same id was faster: the same inputs, so as good.
    if (const auto theirs = host_->find(owner, id)) return info_of(*theirs);
  }
}

// nullopt when another put was faster.
Result<std::optional<FoundInMemory>> MemoryView::try_store(const PackedEntry& packed, const PutOptions& options,
                                                           const CacheId& id, const std::optional<PutId>& before) {
  const std::string owner = as_.owner_for(options.sharing);
  const KeyRing* const keys = as_.keys_of(owner);
  FINCHKV_ASSIGN_OR_RETURN(Reservation reservation, host_->reserve(owner, finished_bytes(packed, keys != nullptr)));
  const std::uint64_t now = unix_ms_now();
  const FinishOptions how{.put_id = PutId::random(),
                          .now_unix_ms = now,
                          .provenance = options.provenance,
                          .tenant = tenant().name,
                          .keys = keys};
  FINCHKV_ASSIGN_OR_RETURN(EncodedEntry encoded, finish_entry(packed, how));
  MemoryHost::NewEntry put;
  put.tenant = owner == kSharedOwner ? nullptr : &tenant();
  put.owner = owner;
  put.id = id;
  put.before = before;
  FINCHKV_ASSIGN_OR_RETURN(put.blocks, MemoryBlocks::copy_of(encoded));
  put.entry.label = options.label;
  if (keys != nullptr) {
    FINCHKV_ASSIGN_OR_RETURN(put.entry.label, seal_label(options.label, encoded.head, tenant().name, keys));
  }
  put.record.id = id;
  put.record.put_id = how.put_id;
  put.record.bytes = encoded.block_bytes;
  put.record.cost_ms = encoded.head.compress_ms;
  put.record.created_unix_ms = encoded.head.created_unix_ms;
  put.record.last_used_unix_ms = now;
  put.record.expires_unix_ms = expiry_of(options, host_->settings(), now);
  put.record.pinned = options.pinned;
  put.entry.head = std::make_shared<const EntryHead>(std::move(encoded.head));
  return host_->commit(std::move(put), std::move(reservation));
}

Status MemoryView::remove(const CacheId& id) {
  for (const std::string& owner : owners()) {
    if (!host_->put_of(owner, id)) continue;
    FINCHKV_RETURN_IF_ERROR(about_entry(id, as_.may_change(owner)));
    if (host_->remove(owner, id)) return Status::ok();
  }
  return no_such_entry(id);
}

Result<FoundInMemory> MemoryView::own_to_change(const CacheId& id) {
  FINCHKV_ASSIGN_OR_RETURN(FoundInMemory found, look_up(id));
  FINCHKV_RETURN_IF_ERROR(about_entry(id, as_.may_change(found.owner)));
  return found;
}

Status MemoryView::set_label(const CacheId& id, const std::string& label) {
  FINCHKV_RETURN_IF_ERROR(check_label(label));
  FINCHKV_ASSIGN_OR_RETURN(const FoundInMemory found, own_to_change(id));
  return about_entry(id, host_->change(found, [&](MemoryEntry& entry) {
    if (!entry.head->sealed) {
      entry.label = label;
      return Status::ok();
    }
    FINCHKV_ASSIGN_OR_RETURN(entry.label, seal_label(label, *entry.head, tenant().name, as_.keys_of(found.owner)));
    return Status::ok();
  }));
}

Status MemoryView::set_pinned(const CacheId& id, bool pinned) {
  FINCHKV_ASSIGN_OR_RETURN(const FoundInMemory found, own_to_change(id));
  return host_->ledger().set_pinned(host_->account(found.owner), id, pinned);
}

Status MemoryView::set_expiry(const CacheId& id, std::uint64_t unix_ms) {
  FINCHKV_ASSIGN_OR_RETURN(const FoundInMemory found, own_to_change(id));
  return host_->ledger().set_expiry(host_->account(found.owner), id, unix_ms);
}

Result<std::uint64_t> MemoryView::rewrap_keys() {
  if (!as_.options().keys) {
    return Status::invalid_argument("there is no key to wrap with: give the tenant's encryption keys");
  }
  if (!host_->is_tenant(tenant())) return wrong_tenant_key(tenant());
  std::uint64_t changed = 0;
  bool behind = false;
  for (CacheId at;;) {
    const auto next = host_->find_from(tenant().name, at, behind, 1);
    if (next.empty()) return changed;
    at = next.front().id;
    behind = true;
    const Status status = host_->change(next.front(), [&](MemoryEntry& entry) {
      FINCHKV_ASSIGN_OR_RETURN(auto head, rewrapped(*entry.head, tenant().name, *as_.options().keys));
      if (!head) return Status::ok();
      entry.head = std::make_shared<const EntryHead>(*std::move(head));
      ++changed;
      return Status::ok();
    });
    if (!status.is_ok() && status.code() != StatusCode::kNotFound) return about_entry(at, status);
  }
}

Result<EntryPage> MemoryView::list(const std::optional<CacheId>& after, std::size_t limit) {
  FINCHKV_RETURN_IF_ERROR(check_page_limit(limit));
  EntryPage page;
  if (!host_->is_tenant(tenant())) return page;
  auto found = host_->find_from(tenant().name, after.value_or(CacheId{}), after.has_value(), limit + 1);
  if (found.size() > limit) {
    found.pop_back();
    page.next = found.back().id;
  }
  for (const FoundInMemory& one : found) {
    auto info = info_of(one);
    if (readable(one).is_ok() && info.is_ok()) {
      page.entries.push_back(*std::move(info));
    } else {
      page.unreadable.push_back(one.id);
    }
  }
  return page;
}

Result<CacheId> MemoryView::resolve_prefix(std::string_view hex_prefix) {
  FINCHKV_ASSIGN_OR_RETURN(const IdPrefix prefix, IdPrefix::parse(hex_prefix));
  std::vector<CacheId> matches;
  if (!host_->is_tenant(tenant())) return prefix.choose(matches);
  for (const FoundInMemory& one : host_->find_from(tenant().name, prefix.lowest(), false, IdPrefix::kEnough + 1)) {
    if (prefix.matches(one.id)) matches.push_back(one.id);
  }
  return prefix.choose(matches);
}

}  // namespace

std::unique_ptr<Store> make_memory_view(std::shared_ptr<MemoryHost> host, Tenant tenant, ViewOptions options) {
  return std::make_unique<MemoryView>(std::move(host), std::move(tenant), std::move(options));
}

}  // namespace finchkv::cache_store
