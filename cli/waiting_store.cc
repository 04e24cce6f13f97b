#include "cli/waiting_store.h"

#include <utility>

namespace finchkv::cli {

using cache_store::CacheId;
using cache_store::EntryInfo;
using cache_store::EntryPage;
using cache_store::PutRequest;
using cache_store::Store;
using cache_store::StoreStats;
using cache_store::Tenant;

Result<std::unique_ptr<Store>> WaitingStore::open(const StoreOptions& options, const Tenant& tenant,
                                                  std::function<void(const std::string&)> on_wait) {
  StoreOptions at_once = options;
  at_once.timeout_s = 0;
  auto writer = open_for_writing(at_once, tenant, /*create=*/true);
  if (writer.is_ok()) return std::move(writer->store);
  const StatusCode code = writer.status().code();
  // Who may not write, or has no room to, can still be answered from what is there.
  const bool cannot_write = code == StatusCode::kPermissionDenied || code == StatusCode::kResourceExhausted;
  if (code != StatusCode::kUnavailable && !cannot_write) return writer.status();
  auto reader = open_for_reading(options, tenant);
  if (reader.is_ok()) {
    if (cannot_write) on_wait = nullptr;  // nobody is waited for
    return std::unique_ptr<Store>(
        new WaitingStore(options, std::move(reader->store), writer.status().message(), std::move(on_wait)));
  }
  if (cannot_write) return writer.status();
  // Nothing to read beside the writer, perhaps because it is only now making the store.
  on_wait(writer.status().message());
  FINCHKV_ASSIGN_OR_RETURN(OpenStore waited, open_for_writing(options, tenant, /*create=*/true));
  return std::move(waited.store);
}

Status WaitingStore::become_writer() {
  if (writing_) return Status::ok();
  if (on_wait_) on_wait_(taken_);
  FINCHKV_ASSIGN_OR_RETURN(OpenStore writer, open_for_writing(options_, current_->tenant(), /*create=*/true));
  current_ = std::move(writer.store);
  writing_ = true;
  return Status::ok();
}

template <typename T>
Result<T> WaitingStore::read(const std::function<Result<T>(Store&)>& call) {
  Result<T> result = call(*current_);
  if (result.is_ok() || writing_) return result;
  const StatusCode code = result.status().code();
  if (code != StatusCode::kNotFound && code != StatusCode::kCorrupt) return result;
  FINCHKV_RETURN_IF_ERROR(become_writer());
  return call(*current_);
}

Result<EntryInfo> WaitingStore::put(const PutRequest& request) {
  FINCHKV_RETURN_IF_ERROR(become_writer());
  return current_->put(request);
}

Result<EntryInfo> WaitingStore::find(const CacheId& id) {
  return read<EntryInfo>([&](Store& store) { return store.find(id); });
}

Result<KvSet> WaitingStore::get(const CacheId& id) {
  return read<KvSet>([&](Store& store) { return store.get(id); });
}

Result<std::vector<std::vector<std::uint32_t>>> WaitingStore::read_origins(const CacheId& id) {
  return current_->read_origins(id);
}

Result<std::vector<std::int32_t>> WaitingStore::read_document_tokens(const CacheId& id) {
  return current_->read_document_tokens(id);
}

Status WaitingStore::verify(const CacheId& id) { return current_->verify(id); }

Status WaitingStore::remove(const CacheId& id) {
  FINCHKV_RETURN_IF_ERROR(become_writer());
  return current_->remove(id);
}

Result<EntryPage> WaitingStore::list(const std::optional<CacheId>& after, std::size_t limit) {
  return current_->list(after, limit);
}

Result<CacheId> WaitingStore::resolve_prefix(std::string_view hex_prefix) {
  return current_->resolve_prefix(hex_prefix);
}

Result<StoreStats> WaitingStore::stats() { return current_->stats(); }

}  // namespace finchkv::cli
