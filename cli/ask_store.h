// AskStore: a store for `ask` that takes the writer's place only while it writes.
//
// One process at a time may write to a directory, and reading a document takes seconds to minutes. So entries are
// looked up beside whoever writes, and the writer's place is waited for when there is something to put. Used from one
// thread, for one request.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cli/store_access.h"

namespace finchkv::cli {

class AskStore final : public cache_store::Store {
 public:
  /// `on_wait` is told who has the store, before waiting for it. A directory that cannot be a store, or a store that
  /// cannot be read, is an error here; one that is not there yet is made by the first put.
  static Result<std::unique_ptr<AskStore>> open(const StoreOptions& options, const Access& access,
                                                std::function<void(const std::string&)> on_wait);

  /// Whether a put will be possible, where the last entry looked up was not there: for the caller to know before it
  /// reads a document. permission_denied, resource_exhausted. Ok while another process has the writer's place.
  [[nodiscard]] Status check_next_put() const;

  Result<cache_store::EntryInfo> put(const cache_store::PutRequest& request) override;
  Result<cache_store::EntryInfo> put_packed(const cache_store::PackedEntry& entry,
                                            const cache_store::PutOptions& options) override;
  Result<cache_store::EntryInfo> find(const cache_store::CacheId& id) override;
  Result<std::unique_ptr<cache_store::EntryStream>> stream(const cache_store::CacheId& id,
                                                           const cache_store::StreamOptions& options) override;
  Result<std::vector<std::vector<std::uint32_t>>> read_origins(const cache_store::CacheId& id) override;
  Result<std::vector<std::int32_t>> read_document_tokens(const cache_store::CacheId& id) override;
  Result<cache_store::PackedEntry> read_packed(const cache_store::CacheId& id) override;
  Status verify(const cache_store::CacheId& id) override;
  Status remove(const cache_store::CacheId& id) override;
  Status set_label(const cache_store::CacheId& id, const std::string& label) override;
  Status set_pinned(const cache_store::CacheId& id, bool pinned) override;
  Status set_expiry(const cache_store::CacheId& id, std::uint64_t unix_ms) override;
  Result<std::uint64_t> rewrap_keys() override;
  Result<cache_store::EntryPage> list(const std::optional<cache_store::CacheId>& after, std::size_t limit) override;
  Result<cache_store::EntryPage> list_shared(const std::optional<cache_store::CacheId>& after,
                                             std::size_t limit) override;
  Result<cache_store::CacheId> resolve_prefix(std::string_view hex_prefix) override;
  Result<cache_store::StoreStats> stats() override;
  [[nodiscard]] const cache_store::Tenant& tenant() const override { return access_.tenant; }

 private:
  AskStore(StoreOptions options, Access access, std::function<void(const std::string&)> on_wait)
      : options_(std::move(options)), access_(std::move(access)), on_wait_(std::move(on_wait)) {}
  Status open_reader();
  /// As a reader; not_found where there is no store yet.
  template <typename T>
  Result<T> read(const std::function<Result<T>(cache_store::Store&)>& call);
  /// As the writer, whose place is given back at once.
  template <typename T>
  Result<T> write(const std::function<Result<T>(cache_store::Store&)>& call);
  Status change(const std::function<Status(cache_store::Store&)>& call);

  StoreOptions options_;
  Access access_;
  std::function<void(const std::string&)> on_wait_;
  bool found_ = false;                          // the last entry looked up, or put
  std::unique_ptr<cache_store::Store> reader_;  // null where there is no store yet
};

}  // namespace finchkv::cli
