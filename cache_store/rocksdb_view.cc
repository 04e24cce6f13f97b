#include "cache_store/rocksdb_view.h"

#include <algorithm>

#include <fmt/format.h>

#include "cache_store/entry_stream.h"
#include "cache_store/label.h"
#include "cache_store/layer_stream.h"
#include "cache_store/rocksdb_status.h"

namespace finchkv::cache_store {

Result<EntryHead> RocksDbView::decode(std::string_view owner, const CacheId& id, std::string_view record) const {
  auto head = decode_head(as_byte_span(record), id, as_.ids_of(owner));
  if (!head.is_ok()) return about_entry(id, head.status());
  if (const Status sealed = as_.may_serve(owner, head->sealed); !sealed.is_ok()) return about_entry(id, sealed);
  return head;
}

Result<EntryInfo> RocksDbView::info_of(std::string_view owner, const CacheId& id, const EntryHead& head,
                                       const std::optional<AccessRecord>& access) const {
  EntryInfo info = make_entry_info(id, head);
  info.sharing = owner == kSharedOwner ? Sharing::kShared : Sharing::kPrivate;
  if (!access) return info;
  info.hits = access->hits;
  info.last_used_unix_ms = std::max(info.last_used_unix_ms, access->last_used_unix_ms);
  info.expires_unix_ms = access->expires_unix_ms;
  info.pinned = access->pinned;
  if (access->sealed_label) {
    FINCHKV_ASSIGN_OR_RETURN(info.label, open_label(access->label, head, as_.tenant().name, as_.keys_of(owner)));
  } else {
    info.label = access->label;
  }
  if (!host_->is_reader()) {
    if (const auto live = host_->ledger().find(host_->account(owner), id)) {
      info.hits = live->hits;
      info.last_used_unix_ms = std::max(info.last_used_unix_ms, live->last_used_unix_ms);
    }
  }
  return info;
}

Result<Found> RocksDbView::look_up_under(std::string_view owner, const CacheId& id) {
  FINCHKV_ASSIGN_OR_RETURN(auto records, host_->read_records(owner, id));
  if (!records.head) return no_such_entry(id);
  const auto& access = records.access;
  if (access && access->expires_unix_ms != 0 && access->expires_unix_ms <= unix_ms_now()) return no_such_entry(id);
  if (access && access->quarantined) return about_entry(id, in_quarantine());
  Found found;
  FINCHKV_ASSIGN_OR_RETURN(found.head, decode(owner, id, *records.head));
  auto info = info_of(owner, id, found.head, access);
  if (!info.is_ok()) return about_entry(id, info.status());
  found.info = *std::move(info);
  found.owner = owner;
  found.record = std::move(records.head);
  return found;
}

// A view may be older than its tenant's first entry: if that came under another key, the name is another's, and what
// stands under it is out of reach.
Result<bool> RocksDbView::may_look_under(std::string_view owner) {
  if (owner == kSharedOwner || as_.tenant().name.empty()) return true;
  FINCHKV_ASSIGN_OR_RETURN(const Record check, host_->read_record(tenant_key(as_.tenant())));
  return !check || *check == tenant_check(as_.tenant());
}

Result<Found> RocksDbView::look_up(const CacheId& id, Which which) {
  return choose<Found>(
      which,
      [&]() -> Result<Found> {
        FINCHKV_ASSIGN_OR_RETURN(const bool may_own, may_look_under(as_.tenant().name));
        if (!may_own) return no_such_entry(id);
        return look_up_under(as_.tenant().name, id);
      },
      [&] { return look_up_under(kSharedOwner, id); });
}

// `opened` says whether its blocks could be protected.
Status RocksDbView::use_found(const CacheId& id, const Found& found, const UseReader& use, bool& opened) {
  auto source = host_->open_source(found.owner, id, found.head);
  opened = source.is_ok();
  FINCHKV_RETURN_IF_ERROR(source.status());
  FINCHKV_ASSIGN_OR_RETURN(const EntryReader reader, EntryReader::open(found.head, as_.ids_of(found.owner).name,
                                                                       as_.keys_of(found.owner), **source));
  return use(found.owner, reader, **source);
}

// Reads an entry's blocks under its head. A replacing put or a removal may take the blocks away meanwhile: then the
// head has changed, and the new one counts.
Status RocksDbView::read_blocks(const CacheId& id, Which which, const UseReader& use) {
  FINCHKV_RETURN_IF_ERROR(host_->catch_up().status());
  auto found = look_up(id, which);
  for (;;) {
    if (!found.is_ok()) return found.status();
    bool opened = false;
    Status status = use_found(id, *found, use, opened);
    if (status.is_ok()) return status;
    if (status.code() == StatusCode::kNotFound) {
      // A reader's block may also have moved to another file under the same head.
      FINCHKV_ASSIGN_OR_RETURN(const bool reopened, host_->catch_up());
      // A put books its entry right after it has written the head, under this lock: only then can it be leased.
      { const std::lock_guard booked(host_->entry_mutex(id)); }
      auto now = look_up(id, which);
      if (!now.is_ok() || now->record != found->record || reopened) {
        found = std::move(now);
        continue;
      }
      // What is missing while nothing may take it is damage; what may not be protected any more is on its way out.
      const bool stays = host_->open_source(now->owner, id, now->head).is_ok();
      if (!stays) return no_such_entry(id);
      if (!opened) continue;
      status = Status::corrupt(status.message());
    }
    if (status.code() != StatusCode::kCorrupt || which != Which::kSound || found->owner == kSharedOwner) {
      return about_entry(id, status);
    }
    // Only the blocks showed that the own one is damaged.
    return read_blocks(id, Which::kShared, use).is_ok() ? Status::ok() : about_entry(id, status);
  }
}

Result<EntryInfo> RocksDbView::find(const CacheId& id) {
  FINCHKV_RETURN_IF_ERROR(host_->catch_up().status());
  auto found = look_up(id, Which::kSound);
  host_->note_lookup(found.status().code() != StatusCode::kNotFound);
  if (!found.is_ok()) return found.status();
  return std::move(found->info);
}

Result<std::unique_ptr<EntryStream>> RocksDbView::stream(const CacheId& id, const StreamOptions& options) {
  PutId put_id;
  auto layers = start_stream(id, Which::kSound, options, put_id);
  if (!layers.is_ok()) {
    if (layers.status().code() == StatusCode::kNotFound) host_->note_use(as_.tenant().name, id, false);
    return layers.status();
  }
  const std::string_view owner =
      (*layers)->info().sharing == Sharing::kShared ? kSharedOwner : std::string_view(as_.tenant().name);
  host_->note_use(owner, id, true);
  // A view of its own, which may outlive this one.
  RestartStream again = [view = std::make_shared<RocksDbView>(host_, as_), id, options,
                         put_id](const Status& why) mutable { return view->restart_stream(id, why, options, put_id); };
  return make_entry_stream(host_, *std::move(layers), std::move(again));
}

// `put_id` is the put that was read, and is set to the one that is read now.
Result<std::unique_ptr<EntryStream>> RocksDbView::restart_stream(const CacheId& id, const Status& why,
                                                                 const StreamOptions& options, PutId& put_id) {
  const PutId before = put_id;
  const bool damaged = why.code() == StatusCode::kCorrupt;
  FINCHKV_ASSIGN_OR_RETURN(const bool reopened, host_->catch_up());
  auto restarted = start_stream(id, damaged ? Which::kShared : Which::kSound, options, put_id);
  if (damaged) return restarted.is_ok() && put_id != before ? std::move(restarted) : about_entry(id, why);
  if (restarted.is_ok() && put_id == before && !reopened) {
    return about_entry(id, Status::corrupt("a block of it is missing, although nobody removed it"));
  }
  return restarted;
}

// `put_id` is set to the put that is read.
Result<std::unique_ptr<EntryStream>> RocksDbView::start_stream(const CacheId& id, Which which,
                                                               const StreamOptions& options, PutId& put_id) {
  std::unique_ptr<EntryStream> stream;
  FINCHKV_RETURN_IF_ERROR(
      read_blocks(id, which, [&](std::string_view owner, const EntryReader& reader, BlockSource&) -> Status {
        FINCHKV_ASSIGN_OR_RETURN(Found found, look_up_under(owner, id));
        if (found.head.put_id != reader.head().put_id) return no_such_entry(id);
        FINCHKV_ASSIGN_OR_RETURN(auto source, host_->open_source(owner, id, reader.head()));
        put_id = found.head.put_id;
        // Only called while the host is there: its pool ends first.
        auto more = [host = host_.get(), whose = found.owner, id, head = reader.head()] {
          return host->open_source(whose, id, head);
        };
        stream = make_layer_stream(std::move(found.info), reader, std::move(source), std::move(more), &host_->pool(),
                                   options);
        return Status::ok();
      }));
  return stream;
}

Result<EntryPage> RocksDbView::list_under(const std::string& owner, const std::optional<CacheId>& after,
                                          std::size_t limit) {
  FINCHKV_RETURN_IF_ERROR(host_->catch_up().status());
  const std::string prefix = head_prefix(owner);
  const std::string from = after ? head_key(owner, *after) + '\0' : prefix;
  const std::uint64_t now = unix_ms_now();
  EntryPage page;
  FINCHKV_ASSIGN_OR_RETURN(const bool may_look, may_look_under(owner));
  if (!may_look) return page;
  std::optional<CacheId> last;
  auto it = host_->iterate(from, prefix_end(prefix));
  for (std::size_t seen = 0; it->Valid(); it->Next()) {
    const auto id = id_of_head_key(it->key().ToStringView(), prefix);
    if (!id) continue;
    if (seen == limit) {
      page.next = last;
      break;
    }
    FINCHKV_ASSIGN_OR_RETURN(const auto access, host_->read_access(owner, *id));
    if (access && access->expires_unix_ms != 0 && access->expires_unix_ms <= now) continue;
    const auto head = decode(owner, *id, it->value().ToStringView());
    auto info = head.is_ok() && !(access && access->quarantined) ? info_of(owner, *id, *head, access)
                                                                 : Result<EntryInfo>(Status::corrupt("it is damaged"));
    if (head.is_ok() && (!access || access->put_id != head->put_id)) {
      // Replaced or removed since the iterator was made: both records once more, of one moment.
      auto again = look_up_under(owner, *id);
      if (again.status().code() == StatusCode::kNotFound) continue;
      info = again.is_ok() ? Result<EntryInfo>(std::move(again->info)) : again.status();
    }
    ++seen;
    last = id;
    if (info.is_ok()) {
      page.entries.push_back(*std::move(info));
    } else {
      page.unreadable.push_back(*id);
    }
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(it->status(), host_->directory(), "listing its entries"));
  return page;
}

Result<std::vector<CacheId>> RocksDbView::ids_under(const std::string& owner, const IdPrefix& wanted) {
  FINCHKV_RETURN_IF_ERROR(host_->catch_up().status());
  const std::string prefix = head_prefix(owner);
  const std::uint64_t now = unix_ms_now();
  std::vector<CacheId> matches;
  FINCHKV_ASSIGN_OR_RETURN(const bool may_look, may_look_under(owner));
  if (!may_look) return matches;
  auto it = host_->iterate(head_key(owner, wanted.lowest()), prefix_end(prefix));
  for (; it->Valid() && matches.size() <= IdPrefix::kEnough; it->Next()) {
    const auto id = id_of_head_key(it->key().ToStringView(), prefix);
    if (!id) continue;
    if (!wanted.matches(*id)) break;
    FINCHKV_ASSIGN_OR_RETURN(const auto access, host_->read_access(owner, *id));
    if (access && access->expires_unix_ms != 0 && access->expires_unix_ms <= now) continue;
    matches.push_back(*id);
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(it->status(), host_->directory(), "looking for an id"));
  return matches;
}

std::unique_ptr<Store> make_rocksdb_view(std::shared_ptr<RocksDbHost> host, Tenant tenant, ViewOptions options) {
  return std::make_unique<RocksDbView>(std::move(host), TenantStanding(std::move(tenant), std::move(options)));
}

}  // namespace finchkv::cache_store
