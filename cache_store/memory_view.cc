// One tenant's view of a store in memory.
#include <algorithm>
#include <utility>

#include "cache_store/entry_reader.h"
#include "cache_store/entry_stream.h"
#include "cache_store/label.h"
#include "cache_store/layer_stream.h"
#include "cache_store/memory_host.h"
#include "cache_store/store_common.h"
#include "cache_store/tenant_view.h"

namespace finchkv::cache_store {
namespace {

class MemoryView final : public TenantView {
 public:
  MemoryView(std::shared_ptr<MemoryHost> host, TenantStanding as) : TenantView(std::move(as)), host_(std::move(host)) {}

  Result<EntryInfo> find(const CacheId& id) override;
  Result<std::unique_ptr<EntryStream>> stream(const CacheId& id, const StreamOptions& options) override;
  Status remove(const CacheId& id) override;
  Status set_label(const CacheId& id, const std::string& label) override;
  Status set_pinned(const CacheId& id, bool pinned) override;
  Status set_expiry(const CacheId& id, std::uint64_t unix_ms) override;
  Result<std::uint64_t> rewrap_keys() override;

 private:
  Status prepare_to_write() override { return Status::ok(); }
  Result<std::optional<EntryInfo>> existing(const std::string& owner, const CacheId& id) override;
  Result<EntryInfo> store(const PackedEntry& packed, const PutOptions& options) override;
  Status read_blocks(const CacheId& id, Which which, const UseReader& use) override;
  Result<EntryPage> list_under(const std::string& owner, const std::optional<CacheId>& after,
                               std::size_t limit) override;
  Result<std::vector<CacheId>> ids_under(const std::string& owner, const IdPrefix& prefix) override;

  [[nodiscard]] bool may_look_under(const std::string& owner) const;
  Result<EntryInfo> info_of(const FoundInMemory& found) const;
  Status readable(const FoundInMemory& found) const;
  Result<FoundInMemory> look_up_under(const std::string& owner, const CacheId& id);
  Result<FoundInMemory> look_up(const CacheId& id, Which which);
  Status use_found(const FoundInMemory& found, const UseReader& use, bool& leased);
  Result<std::unique_ptr<EntryStream>> start_stream(const CacheId& id, Which which, const StreamOptions& options);
  Result<std::optional<FoundInMemory>> try_store(const PackedEntry& packed, const PutOptions& options,
                                                 const CacheId& id, const std::optional<PutId>& before);
  Result<FoundInMemory> own_to_change(const CacheId& id);

  std::shared_ptr<MemoryHost> host_;
};

// Another's name gives no way to what stands under it.
bool MemoryView::may_look_under(const std::string& owner) const {
  return owner == kSharedOwner || host_->is_tenant(tenant());
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

Result<FoundInMemory> MemoryView::look_up_under(const std::string& owner, const CacheId& id) {
  auto found = may_look_under(owner) ? host_->find(owner, id) : std::nullopt;
  if (!found) return no_such_entry(id);
  FINCHKV_RETURN_IF_ERROR(readable(*found));
  return *std::move(found);
}

Result<FoundInMemory> MemoryView::look_up(const CacheId& id, Which which) {
  return choose<FoundInMemory>(
      which, [&] { return look_up_under(tenant().name, id); },
      [&] { return look_up_under(std::string(kSharedOwner), id); });
}

Status MemoryView::use_found(const FoundInMemory& found, const UseReader& use, bool& leased) {
  FINCHKV_ASSIGN_OR_RETURN(const auto source, host_->open_source(found));
  leased = true;
  FINCHKV_ASSIGN_OR_RETURN(const EntryReader reader, EntryReader::open(*found.entry.head, as_.ids_of(found.owner).name,
                                                                       as_.keys_of(found.owner), *source));
  return use(found.owner, reader, *source);
}

// Between look-up and lease the entry may have been replaced or removed: then what is there now counts.
Status MemoryView::read_blocks(const CacheId& id, Which which, const UseReader& use) {
  for (;;) {
    FINCHKV_ASSIGN_OR_RETURN(const FoundInMemory found, look_up(id, which));
    bool leased = false;
    const Status status = use_found(found, use, leased);
    if (status.is_ok()) return status;
    const bool changed = !leased || host_->put_of(found.owner, id) != found.record.put_id;
    if (status.code() == StatusCode::kNotFound && changed) continue;
    const bool own_damaged = status.code() == StatusCode::kCorrupt && found.owner != kSharedOwner;
    // Only the blocks showed it.
    if (own_damaged && which == Which::kSound && read_blocks(id, Which::kShared, use).is_ok()) return Status::ok();
    return about_entry(id, status);
  }
}

Result<EntryInfo> MemoryView::find(const CacheId& id) {
  const auto found = look_up(id, Which::kSound);
  host_->note_lookup(found.status().code() != StatusCode::kNotFound);
  if (!found.is_ok()) return found.status();
  return info_of(*found);
}

Result<std::unique_ptr<EntryStream>> MemoryView::stream(const CacheId& id, const StreamOptions& options) {
  auto layers = start_stream(id, Which::kSound, options);
  host_->note_lookup(layers.status().code() != StatusCode::kNotFound);
  if (!layers.is_ok()) return layers.status();
  // A lease keeps blocks from going, so there is nothing to begin again for but damage. A view of its own, which may
  // outlive this one.
  RestartStream again = [view = std::make_shared<MemoryView>(host_, as_), id, options,
                         own = (*layers)->info().sharing == Sharing::kPrivate](const Status& why) {
    auto shared = own ? view->start_stream(id, Which::kShared, options) : no_such_entry(id);
    return shared.is_ok() ? std::move(shared) : about_entry(id, why);
  };
  return make_entry_stream(host_, *std::move(layers), std::move(again));
}

Result<std::unique_ptr<EntryStream>> MemoryView::start_stream(const CacheId& id, Which which,
                                                              const StreamOptions& options) {
  std::unique_ptr<EntryStream> stream;
  FINCHKV_RETURN_IF_ERROR(
      read_blocks(id, which, [&](std::string_view owner, const EntryReader& reader, BlockSource&) -> Status {
        FINCHKV_ASSIGN_OR_RETURN(const FoundInMemory found, look_up_under(std::string(owner), id));
        if (found.record.put_id != reader.head().put_id) return no_such_entry(id);
        FINCHKV_ASSIGN_OR_RETURN(auto source, host_->open_source(found));
        FINCHKV_ASSIGN_OR_RETURN(EntryInfo info, info_of(found));
        host_->note_hit(found);
        auto more = [host = host_.get(), found] { return host->open_source(found); };
        stream = make_layer_stream(std::move(info), reader, std::move(source), more, &host_->pool(), options);
        return Status::ok();
      }));
  return stream;
}

Result<std::optional<EntryInfo>> MemoryView::existing(const std::string& owner, const CacheId& id) {
  if (!may_look_under(owner)) return wrong_tenant_key(tenant());
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
  // The default tenant's own entry would hide the shared one that is to take its place.
  if (owner == kSharedOwner && options.if_exists == IfExists::kReplace && may_look_under(tenant().name)) {
    put.in_front = tenant().name;
  }
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
  for (const std::string& owner : {tenant().name, std::string(kSharedOwner)}) {
    if (!may_look_under(owner) || !host_->put_of(owner, id)) continue;
    FINCHKV_RETURN_IF_ERROR(about_entry(id, as_.may_change(owner)));
    if (host_->remove(owner, id)) return Status::ok();
  }
  return no_such_entry(id);
}

Result<FoundInMemory> MemoryView::own_to_change(const CacheId& id) {
  FINCHKV_ASSIGN_OR_RETURN(FoundInMemory found, look_up(id, Which::kFirst));
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

Result<EntryPage> MemoryView::list_under(const std::string& owner, const std::optional<CacheId>& after,
                                         std::size_t limit) {
  EntryPage page;
  if (!may_look_under(owner)) return page;
  auto found = host_->find_from(owner, after.value_or(CacheId{}), after.has_value(), limit + 1);
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

Result<std::vector<CacheId>> MemoryView::ids_under(const std::string& owner, const IdPrefix& prefix) {
  std::vector<CacheId> matches;
  if (!may_look_under(owner)) return matches;
  for (const FoundInMemory& one : host_->find_from(owner, prefix.lowest(), false, IdPrefix::kEnough + 1)) {
    if (prefix.matches(one.id)) matches.push_back(one.id);
  }
  return matches;
}

}  // namespace

std::unique_ptr<Store> make_memory_view(std::shared_ptr<MemoryHost> host, Tenant tenant, ViewOptions options) {
  return std::make_unique<MemoryView>(std::move(host), TenantStanding(std::move(tenant), std::move(options)));
}

}  // namespace finchkv::cache_store
