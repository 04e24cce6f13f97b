// WaitingStore: a store for `ask` that takes the writer's place only when there is something to write.
//
// One process at a time may write to a directory. When another has it, hits are still served by a reader beside it; the
// first miss waits for the writer's place (and then looks again: the other process may have just stored the entry).
// Used from one thread, for one request.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cli/store_access.h"

namespace finchkv::cli {

class WaitingStore final : public cache_store::Store {
 public:
  /// `on_wait` is told who has the store, before waiting for it. Where this process may not write, or the disk is
  /// full, hits are served too, and the first miss says so at once.
  static Result<std::unique_ptr<cache_store::Store>> open(const StoreOptions& options,
                                                          const cache_store::Tenant& tenant,
                                                          std::function<void(const std::string&)> on_wait);

  Result<cache_store::EntryInfo> put(const cache_store::PutRequest& request) override;
  Result<cache_store::EntryInfo> find(const cache_store::CacheId& id) override;
  Result<KvSet> get(const cache_store::CacheId& id) override;
  Result<std::vector<std::vector<std::uint32_t>>> read_origins(const cache_store::CacheId& id) override;
  Result<std::vector<std::int32_t>> read_document_tokens(const cache_store::CacheId& id) override;
  Status verify(const cache_store::CacheId& id) override;
  Status remove(const cache_store::CacheId& id) override;
  Result<cache_store::EntryPage> list(const std::optional<cache_store::CacheId>& after, std::size_t limit) override;
  Result<cache_store::CacheId> resolve_prefix(std::string_view hex_prefix) override;
  Result<cache_store::StoreStats> stats() override;
  [[nodiscard]] const cache_store::Tenant& tenant() const override { return current_->tenant(); }

 private:
  WaitingStore(StoreOptions options, std::unique_ptr<cache_store::Store> reader, std::string taken,
               std::function<void(const std::string&)> on_wait)
      : options_(std::move(options)),
        current_(std::move(reader)),
        taken_(std::move(taken)),
        on_wait_(std::move(on_wait)) {}
  Status become_writer();
  /// What a reader did not find, or found damaged, is asked for again as the writer.
  template <typename T>
  Result<T> read(const std::function<Result<T>(cache_store::Store&)>& call);

  StoreOptions options_;
  std::unique_ptr<cache_store::Store> current_;
  std::string taken_;  ///< who has the writer's place, as a sentence
  std::function<void(const std::string&)> on_wait_;
  bool writing_ = false;
};

}  // namespace finchkv::cli
