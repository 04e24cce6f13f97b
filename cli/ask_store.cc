#include "cli/ask_store.h"

#include <utility>

#include "cache_store/codec.h"

namespace finchkv::cli {

using cache_store::CacheId;
using cache_store::EntryInfo;
using cache_store::EntryPage;
using cache_store::EntryStream;
using cache_store::PackedEntry;
using cache_store::PutOptions;
using cache_store::PutRequest;
using cache_store::StoreStats;

Result<std::unique_ptr<AskStore>> AskStore::open(const StoreOptions& options, const Access& access,
                                                 std::function<void(const std::string&)> on_wait) {
  std::unique_ptr<AskStore> store(new AskStore(options, access, std::move(on_wait)));
  FINCHKV_RETURN_IF_ERROR(store->open_reader());
  return store;
}

Status AskStore::open_reader() {
  auto opened = open_for_reading(options_, access_);
  if (opened.is_ok()) {
    reader_ = std::move(opened->store);
    return Status::ok();
  }
  return opened.status().code() == StatusCode::kNotFound ? Status::ok() : opened.status();
}

Status AskStore::check_next_put() const {
  if (found_) return Status::ok();
  StoreOptions at_once = options_;
  at_once.timeout_s = 0;
  const Status status = open_for_writing(at_once, access_, /*create=*/true).status();
  return status.code() == StatusCode::kUnavailable ? Status::ok() : status;  // somebody else can
}

template <typename T>
Result<T> AskStore::read(const std::function<Result<T>(Store&)>& call) {
  if (!reader_) return Status::not_found("there is no store yet");
  return call(*reader_);
}

template <typename T>
Result<T> AskStore::write(const std::function<Result<T>(Store&)>& call) {
  StoreOptions at_once = options_;
  at_once.timeout_s = 0;
  auto writer = open_for_writing(at_once, access_, /*create=*/true);
  if (writer.status().code() == StatusCode::kUnavailable) {
    if (on_wait_) on_wait_(writer.status().message());
    writer = open_for_writing(options_, access_, /*create=*/true);
  }
  if (!writer.is_ok()) return writer.status();
  return call(*writer->store);
}

Status AskStore::change(const std::function<Status(Store&)>& call) {
  return write<bool>([&](Store& store) -> Result<bool> {
           FINCHKV_RETURN_IF_ERROR(call(store));
           return true;
         })
      .status();
}

Result<EntryInfo> AskStore::put(const PutRequest& request) {
  auto info = write<EntryInfo>([&](Store& store) { return store.put(request); });
  found_ = info.is_ok();
  return info;
}

Result<EntryInfo> AskStore::put_packed(const PackedEntry& entry, const PutOptions& options) {
  auto info = write<EntryInfo>([&](Store& store) { return store.put_packed(entry, options); });
  found_ = info.is_ok();
  return info;
}

Result<EntryInfo> AskStore::find(const CacheId& id) {
  return read<EntryInfo>([&](Store& store) { return store.find(id); });
}

Result<std::unique_ptr<EntryStream>> AskStore::stream(const CacheId& id, const cache_store::StreamOptions& options) {
  auto entry = read<std::unique_ptr<EntryStream>>([&](Store& store) { return store.stream(id, options); });
  found_ = entry.is_ok();
  return entry;
}

Result<std::vector<std::vector<std::uint32_t>>> AskStore::read_origins(const CacheId& id) {
  return read<std::vector<std::vector<std::uint32_t>>>([&](Store& store) { return store.read_origins(id); });
}

Result<std::vector<std::int32_t>> AskStore::read_document_tokens(const CacheId& id) {
  return read<std::vector<std::int32_t>>([&](Store& store) { return store.read_document_tokens(id); });
}

Result<PackedEntry> AskStore::read_packed(const CacheId& id) {
  return read<PackedEntry>([&](Store& store) { return store.read_packed(id); });
}

Status AskStore::verify(const CacheId& id) {
  return read<bool>([&](Store& store) -> Result<bool> {
           FINCHKV_RETURN_IF_ERROR(store.verify(id));
           return true;
         })
      .status();
}

Status AskStore::remove(const CacheId& id) {
  return change([&](Store& store) { return store.remove(id); });
}

Status AskStore::set_label(const CacheId& id, const std::string& label) {
  return change([&](Store& store) { return store.set_label(id, label); });
}

Status AskStore::set_pinned(const CacheId& id, bool pinned) {
  return change([&](Store& store) { return store.set_pinned(id, pinned); });
}

Status AskStore::set_expiry(const CacheId& id, std::uint64_t unix_ms) {
  return change([&](Store& store) { return store.set_expiry(id, unix_ms); });
}

Result<std::uint64_t> AskStore::rewrap_keys() {
  return write<std::uint64_t>([](Store& store) { return store.rewrap_keys(); });
}

Result<EntryPage> AskStore::list(const std::optional<CacheId>& after, std::size_t limit) {
  return read<EntryPage>([&](Store& store) { return store.list(after, limit); });
}

Result<EntryPage> AskStore::list_shared(const std::optional<CacheId>& after, std::size_t limit) {
  return read<EntryPage>([&](Store& store) { return store.list_shared(after, limit); });
}

Result<CacheId> AskStore::resolve_prefix(std::string_view hex_prefix) {
  return read<CacheId>([&](Store& store) { return store.resolve_prefix(hex_prefix); });
}

Result<StoreStats> AskStore::stats() {
  return read<StoreStats>([](Store& store) { return store.stats(); });
}

}  // namespace finchkv::cli
