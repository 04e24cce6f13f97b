// Store: where KvSets live under their cache ids. The interface that every implementation (memory, RocksDB, and those
// to come) passes one conformance suite for.
//
// A StoreHost is an opened storage; a Store is one tenant's view of it, and nothing in a Store can name, list or probe
// another tenant's entries. Views keep their host open. All calls may come from many threads at once.
// An entry is immutable and whole or absent: it exists from the moment put() returns (and survives kill -9 and power
// loss from then on) until remove() or a replacing put. What readers get is verified memory that they own and that
// outlives the store. Errors carry the entry's id.
// Left out for now, with room kept: layer-by-layer reading, limits and eviction, pins, labels after the fact.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/kvset.h"
#include "base/status.h"
#include "cache_store/identity.h"

namespace finchkv::cache_store {

/// Who computed an entry. Stored in files: values never change.
enum class Provenance : std::uint16_t { kComputed = 0, kClient = 1, kImported = 2 };
[[nodiscard]] std::string_view provenance_name(Provenance provenance);  // "computed", "client", "imported"

/// What is known of an entry without reading its tensors.
struct EntryInfo {
  CacheId id;
  CacheIdentity identity;  ///< policy, keep, chunk, reader, token counts, fingerprints, storage dtype
  std::string label;

  KvShape shape;
  std::vector<std::uint32_t> n_kept;  ///< [n_layers]
  DType decoded = DType::kF32;        ///< dtype of the KvSet that get() returns
  KeyForm key_form = KeyForm::kPreRope;
  std::uint64_t next_position = 0;
  RopeRecord rope;

  Provenance provenance = Provenance::kComputed;
  std::uint64_t compress_ms = 0;  ///< what it cost to compute
  std::uint64_t created_unix_ms = 0;
  bool has_document_tokens = false;

  std::uint64_t stored_bytes = 0;  ///< all blocks as stored
  std::uint64_t raw_bytes = 0;     ///< keys and values as get() returns them

  std::uint64_t hits = 0;               ///< successful get()s by writers of the store; readers beside one do not count
  std::uint64_t last_used_unix_ms = 0;  ///< the later of creation and last hit
};

enum class IfExists : std::uint8_t {
  kKeep,     ///< an entry with this id stays as it is, and its info is returned
  kReplace,  ///< the new one takes its place in one step
};

struct PutRequest {
  CacheIdentity identity;  ///< names the entry; identity.storage says how it is stored
  KvSet set;               ///< any floating dtype; agrees with the identity's doc_tokens
  /// The document's ids, so that its text can be shown; they must hash to identity.document_hash.
  std::optional<std::vector<std::int32_t>> document_tokens;
  Provenance provenance = Provenance::kComputed;
  std::uint64_t compress_ms = 0;
  std::string label;  ///< at most 256 bytes
  IfExists if_exists = IfExists::kKeep;
};

struct EntryPage {
  std::vector<EntryInfo> entries;   ///< in the order of their ids
  std::optional<CacheId> next;      ///< pass as `after` for the next page; nullopt at the end
  std::vector<CacheId> unreadable;  ///< entries whose head is damaged: verify() says what is wrong, remove() works
};

struct StoreStats {
  std::uint64_t entries = 0;
  std::uint64_t stored_bytes = 0;  ///< blocks of all entries
  std::uint64_t raw_bytes = 0;
  std::uint64_t hits = 0;
  std::uint64_t unreadable = 0;  ///< entries with a damaged head, not in the sums
  std::uint64_t disk_bytes = 0;  ///< of the whole storage, all tenants; 0 for a store in memory

  void add(const EntryInfo& entry) {
    ++entries;
    stored_bytes += entry.stored_bytes;
    raw_bytes += entry.raw_bytes;
    hits += entry.hits;
  }
};

struct GcReport {
  std::uint64_t puts = 0;    ///< abandoned puts whose blocks were removed
  std::uint64_t blocks = 0;  ///< blocks removed
  std::uint64_t bytes = 0;
};

class Store {
 public:
  virtual ~Store() = default;

  /// Stores one entry, all or nothing. invalid_argument for a set or identity that does not hold together or has
  /// non-finite numbers under a quantised dtype; resource_exhausted for a full disk; permission_denied when the
  /// storage was opened for reading.
  [[nodiscard]] virtual Result<EntryInfo> put(const PutRequest& request) = 0;

  [[nodiscard]] virtual Result<EntryInfo> find(const CacheId& id) = 0;  ///< not_found, corrupt
  /// The whole set, every block's digest checked on the way. not_found, corrupt. Counts as a hit.
  [[nodiscard]] virtual Result<KvSet> get(const CacheId& id) = 0;
  /// Where each layer's entries came from, without reading keys and values: [n_layers][origin_rows * n_kept].
  [[nodiscard]] virtual Result<std::vector<std::vector<std::uint32_t>>> read_origins(const CacheId& id) = 0;
  /// not_found also when the entry was stored without its document.
  [[nodiscard]] virtual Result<std::vector<std::int32_t>> read_document_tokens(const CacheId& id) = 0;
  /// Reads everything of one entry and checks it: ok, not_found, or corrupt with what is wrong.
  [[nodiscard]] virtual Status verify(const CacheId& id) = 0;

  [[nodiscard]] virtual Status remove(const CacheId& id) = 0;  ///< not_found
  /// Up to `limit` (1 to 10000) entries after `after` in the order of ids.
  [[nodiscard]] virtual Result<EntryPage> list(const std::optional<CacheId>& after, std::size_t limit) = 0;
  /// The one id that starts with these hex digits (1 to 64). not_found; invalid_argument when several do, naming them.
  [[nodiscard]] virtual Result<CacheId> resolve_prefix(std::string_view hex_prefix) = 0;

  [[nodiscard]] virtual Result<StoreStats> stats() = 0;  ///< this tenant's

  [[nodiscard]] virtual const Tenant& tenant() const = 0;
};

class StoreHost {
 public:
  virtual ~StoreHost() = default;

  /// One tenant's view; it keeps the host open. permission_denied when the tenant has used the storage with another
  /// key.
  [[nodiscard]] virtual Result<std::unique_ptr<Store>> view(Tenant tenant) = 0;
  /// Removes blocks that no entry of any tenant names and no open put claims.
  [[nodiscard]] virtual Result<GcReport> gc() = 0;
};

}  // namespace finchkv::cache_store
