// Store: where KvSets live under their cache ids. The interface that every implementation (memory, RocksDB, and those
// to come) passes one conformance suite for.
//
// A StoreHost is an opened storage; a Store is one tenant's view of it, and nothing in a Store can name, list or probe
// another tenant's private entries. Views keep their host open. All calls may come from many threads at once.
// An entry is immutable and whole or absent: it exists from the moment put() returns (and, in the default durability,
// survives kill -9 and power loss from then on) until it is removed, replaced, expires or is evicted. What readers get
// is verified memory that they own and that outlives the store. Errors carry the entry's id. Left out: where entries
// are computed (engine/), the network (service/).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/host_memory.h"
#include "base/kvset.h"
#include "base/status.h"
#include "cache_store/identity.h"

namespace finchkv::cache_store {

class KeyRing;
struct PackedEntry;

/// Who computed an entry. Stored in files: values never change.
enum class Provenance : std::uint16_t { kComputed = 0, kClient = 1, kImported = 2 };
[[nodiscard]] std::string_view provenance_name(Provenance provenance);  // "computed", "client", "imported"

/// Who finds an entry: its tenant, or everybody who knows its content. A shared entry's id is made without a key, so
/// its identity's token hashes are too.
enum class Sharing : std::uint8_t { kPrivate, kShared };

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
  bool sealed = false;  ///< encrypted at rest
  Sharing sharing = Sharing::kPrivate;

  std::uint64_t stored_bytes = 0;  ///< all blocks as stored
  std::uint64_t raw_bytes = 0;     ///< keys and values as get() returns them

  std::uint64_t hits = 0;               ///< successful get()s and stream()s
  std::uint64_t last_used_unix_ms = 0;  ///< the later of creation and last hit
  std::uint64_t expires_unix_ms = 0;    ///< 0: never
  bool pinned = false;                  ///< never evicted
};

enum class IfExists : std::uint8_t {
  kKeep,  ///< an entry with this id stays as it is, and its info is returned
  /// The new one takes its place in one step. A shared one also takes that of the tenant's own entry under the same id
  /// (of which only the default tenant can have one), which would be found before it.
  kReplace,
};

/// How an entry is to be kept, whatever is in it.
struct PutOptions {
  Provenance provenance = Provenance::kComputed;
  std::string label;         ///< at most 256 bytes
  std::uint64_t ttl_ms = 0;  ///< time to live; 0: the store's setting
  bool pinned = false;
  Sharing sharing = Sharing::kPrivate;  ///< kShared needs the right to publish
  IfExists if_exists = IfExists::kKeep;
};

struct PutRequest : PutOptions {
  CacheIdentity identity;  ///< names the entry; identity.storage says how it is stored
  KvSet set;               ///< any floating dtype; agrees with the identity's doc_tokens
  /// The document's ids, so that its text can be shown; they must hash to identity.document_hash.
  std::optional<std::vector<std::int32_t>> document_tokens;
  std::uint64_t compress_ms = 0;
  bool zstd_tensors = false;  ///< smaller on disk where that helps, several times slower to read
};

struct EntryPage {
  std::vector<EntryInfo> entries;   ///< in the order of their ids
  std::optional<CacheId> next;      ///< pass as `after` for the next page; nullopt at the end
  std::vector<CacheId> unreadable;  ///< damaged head, or in quarantine: verify() says what is wrong, remove() works
};

struct StoreStats {
  std::uint64_t entries = 0;
  std::uint64_t stored_bytes = 0;  ///< blocks of all entries
  std::uint64_t raw_bytes = 0;
  std::uint64_t hits = 0;
  std::uint64_t unreadable = 0;  ///< entries with a damaged head or in quarantine, not in the sums
  std::uint64_t disk_bytes = 0;  ///< of the whole storage, all tenants; 0 for a store in memory

  void add(const EntryInfo& entry) {
    ++entries;
    stored_bytes += entry.stored_bytes;
    raw_bytes += entry.raw_bytes;
    hits += entry.hits;
  }
};

/// In what form a stream hands out keys and values.
enum class LayerForm : std::uint8_t {
  kDecoded,  ///< elements of info().decoded
  kStored,   ///< as info().identity.storage lays them out, q8 and q4 too: without seals and zstd, and checked to decode
};

struct StreamOptions {
  LayerForm form = LayerForm::kDecoded;
  /// What keys and values are read into; null: the process's own pool. Held while the stream reads.
  std::shared_ptr<HostMemory> memory = nullptr;
};

/// One entry on its way to an engine: layer l is usable while later ones are read. Holds a lease on the entry, so that
/// neither removal nor eviction takes its blocks away meanwhile. Used from one thread at a time.
class EntryStream {
 public:
  virtual ~EntryStream() = default;
  [[nodiscard]] virtual const EntryInfo& info() const = 0;
  /// Waits until this layer has been read and verified. Its views live as long as the stream or the finished set.
  /// corrupt, deadline_exceeded (the lease ran out without progress), invalid_argument for a layer that is not there,
  /// or not any more.
  [[nodiscard]] virtual Result<KvLayer> layer(std::uint32_t layer) = 0;
  /// The same with what keeps the views alive, and that alone: they outlive the stream, and hold neither the storage
  /// open nor other layers in memory.
  [[nodiscard]] virtual Result<OwnedLayer> hold(std::uint32_t layer) = 0;
  /// The same for whoever needs each layer once: the stream lets go of it, so that its memory can be used again while
  /// later layers are read.
  [[nodiscard]] virtual Result<OwnedLayer> take(std::uint32_t layer) = 0;
  /// Waits for all layers. invalid_argument when one was taken, or when they come in a layout that no set holds.
  [[nodiscard]] virtual Result<KvSet> finish() = 0;
};

class Store {
 public:
  virtual ~Store() = default;

  /// Stores one entry, all or nothing. invalid_argument for a set or identity that does not hold together or has
  /// non-finite numbers under a quantised dtype; resource_exhausted for a full disk or a limit that eviction cannot
  /// make room under; permission_denied when the storage was opened for reading, or to share without the right to.
  [[nodiscard]] virtual Result<EntryInfo> put(const PutRequest& request) = 0;

  // Reading takes the tenant's own entry, else a shared one. An own entry that is damaged hides no shared one: both
  // were made from the same inputs. What checks or changes an entry (verify() and what follows it) means the own one,
  // damaged or not, where there is one.
  [[nodiscard]] virtual Result<EntryInfo> find(const CacheId& id) = 0;  ///< not_found, corrupt
  /// The entry layer by layer, every block's digest checked on the way. not_found, corrupt. Counts as a hit.
  [[nodiscard]] virtual Result<std::unique_ptr<EntryStream>> stream(const CacheId& id,
                                                                    const StreamOptions& options) = 0;
  [[nodiscard]] Result<std::unique_ptr<EntryStream>> stream(const CacheId& id) { return stream(id, {}); }
  /// The whole set at once.
  [[nodiscard]] Result<KvSet> get(const CacheId& id) {
    FINCHKV_ASSIGN_OR_RETURN(const std::unique_ptr<EntryStream> entry, stream(id));
    return entry->finish();
  }
  /// Where each layer's entries came from, without reading keys and values: [n_layers][origin_rows * n_kept].
  [[nodiscard]] virtual Result<std::vector<std::vector<std::uint32_t>>> read_origins(const CacheId& id) = 0;
  /// not_found also when the entry was stored without its document.
  [[nodiscard]] virtual Result<std::vector<std::int32_t>> read_document_tokens(const CacheId& id) = 0;
  /// Reads everything of one entry and checks it: ok, not_found, or corrupt with what is wrong.
  [[nodiscard]] virtual Status verify(const CacheId& id) = 0;

  [[nodiscard]] virtual Status remove(const CacheId& id) = 0;  ///< not_found
  [[nodiscard]] virtual Status set_label(const CacheId& id, const std::string& label) = 0;
  /// resource_exhausted when more would be pinned than the store's settings allow.
  [[nodiscard]] virtual Status set_pinned(const CacheId& id, bool pinned) = 0;
  [[nodiscard]] virtual Status set_expiry(const CacheId& id, std::uint64_t unix_ms) = 0;  ///< 0: never

  /// Wraps the data keys of all own sealed entries under the current key of this view; blocks stay as they are. Returns
  /// how many changed.
  [[nodiscard]] virtual Result<std::uint64_t> rewrap_keys() = 0;

  /// Up to `limit` (1 to 10000) of this tenant's own entries after `after` in the order of ids.
  [[nodiscard]] virtual Result<EntryPage> list(const std::optional<CacheId>& after, std::size_t limit) = 0;
  /// The same of what is shared with all tenants: everybody may list it. unsupported where a storage cannot.
  [[nodiscard]] virtual Result<EntryPage> list_shared(const std::optional<CacheId>& /*after*/, std::size_t /*limit*/) {
    return Status::unsupported("this kind of storage does not list shared entries");
  }
  /// The one own or shared entry whose id starts with these hex digits (1 to 64). not_found; invalid_argument when
  /// several do, naming them.
  [[nodiscard]] virtual Result<CacheId> resolve_prefix(std::string_view hex_prefix) = 0;

  /// An entry as it is stored, without decoding it, and back: for copies, archives and replicas. Sealed blocks come
  /// out open and are sealed again by the store that takes them (codec.h).
  [[nodiscard]] virtual Result<PackedEntry> read_packed(const CacheId& id) = 0;
  [[nodiscard]] virtual Result<EntryInfo> put_packed(const PackedEntry& entry, const PutOptions& options) = 0;

  [[nodiscard]] virtual Result<StoreStats> stats() = 0;  ///< this tenant's

  [[nodiscard]] virtual const Tenant& tenant() const = 0;
};

/// When an acknowledged put is on the disk.
enum class Durability : std::uint8_t {
  kSync,      ///< before put() returns: survives kill -9 and power loss
  kInterval,  ///< at most sync_interval_ms later: survives kill -9; power loss may take the last puts
  kNone,      ///< when the operating system writes it: survives kill -9; power loss may take the last puts
};

/// What an operator sets for a store; kept in it.
struct StoreSettings {
  std::uint64_t max_bytes = 0;         ///< of all entries as stored, with what is being written; 0: no limit
  std::uint64_t tenant_max_bytes = 0;  ///< the quota of a tenant that is not named below; 0: none
  std::map<std::string, std::uint64_t> tenant_quotas;  ///< by tenant; "" is the default tenant
  std::uint64_t shared_max_bytes = 0;                  ///< of the shared entries
  std::uint32_t pinned_percent = 50;                   ///< of each limit that may be pinned
  std::uint64_t default_ttl_ms = 0;                    ///< 0: entries do not expire
  Durability durability = Durability::kSync;
  std::uint64_t sync_interval_ms = 100;
  std::uint64_t lease_ms = 60'000;      ///< a reader without progress for this long loses its entry's protection
  std::uint64_t scrub_bytes_per_s = 0;  ///< how fast a long-running writer verifies what is stored; 0: not at all

  [[nodiscard]] Status validate() const;  ///< invalid_argument naming the setting
  bool operator==(const StoreSettings&) const = default;
};

struct GcReport {
  std::uint64_t puts = 0;    ///< abandoned puts whose blocks were removed
  std::uint64_t blocks = 0;  ///< blocks removed
  std::uint64_t bytes = 0;
  std::uint64_t expired = 0;  ///< entries past their time that were removed
};

struct ScrubOptions {
  std::uint64_t bytes_per_s = 0;         ///< 0: as fast as it goes
  std::function<bool()> stop = nullptr;  ///< asked between entries
  /// These alone: of each id `tenant`'s own entry, else the shared one. None: everything.
  std::optional<std::vector<CacheId>> only = std::nullopt;
  std::string tenant = {};  ///< for `only`; "" is the default tenant
};

struct ScrubReport {
  std::uint64_t entries = 0;
  std::uint64_t bytes = 0;
  std::vector<CacheId> quarantined;  ///< newly found corrupt
};

/// One backup of a storage.
struct BackupRecord {
  std::uint32_t id = 0;
  std::uint64_t created_unix_ms = 0;  ///< to the second
  std::uint64_t bytes = 0;            ///< of all its files, shared ones too
  std::uint32_t files = 0;
  bool damaged = false;  ///< its list, or a file of it, is not what was written; the other fields may be 0
};

struct BackupReport {
  BackupRecord backup;
  std::uint64_t copied_bytes = 0;  ///< of files that were in no backup before
  std::uint32_t copied_files = 0;
  std::vector<std::uint32_t> removed;  ///< older backups, because only so many were to be kept
};

/// Sums over entries that have something in common.
struct GroupStats {
  std::uint64_t entries = 0;
  std::uint64_t stored_bytes = 0;
  std::uint64_t raw_bytes = 0;
  std::uint64_t hits = 0;
};

/// All of a storage, over its tenants: for who runs it.
struct StoreReport {
  StoreStats total;
  std::map<std::string, GroupStats> by_tenant;  ///< "" is the default tenant, "*" what is shared
  std::map<std::string, GroupStats> by_model;   ///< by model fingerprint, in hex digits
  std::map<std::uint64_t, GroupStats> by_age;   ///< by the upper end of the age in ms; the last is 2^64 - 1
  std::uint64_t lookups = 0;                    ///< find()s and stream()s since the store was made
  std::uint64_t misses = 0;                     ///< of those, not found
  std::uint64_t evictions = 0;                  ///< since the store was made
  std::uint64_t put_bytes = 0;                  ///< stored bytes of all puts since the store was made
  std::uint64_t written_bytes = 0;              ///< bytes written to files since the store was made
  std::uint64_t reserved_bytes = 0;             ///< claimed by puts under way
  std::uint64_t held_bytes = 0;                 ///< of removed entries that are still being read
  std::uint64_t pinned_bytes = 0;
  StoreSettings settings;
};

/// What a view may do beyond its own entries, and the keys that its entries are sealed with.
struct ViewOptions {
  bool publisher = false;                         ///< may put and remove shared entries
  std::shared_ptr<const KeyRing> keys = nullptr;  ///< entries are sealed at rest when there are keys
};

class StoreHost {
 public:
  virtual ~StoreHost() = default;

  /// One tenant's view; it keeps the host open. permission_denied when the tenant has used the storage with another
  /// key.
  [[nodiscard]] virtual Result<std::unique_ptr<Store>> view(Tenant tenant, ViewOptions options = {}) = 0;
  /// Removes expired entries, and blocks that no entry of any tenant names and no open put claims.
  [[nodiscard]] virtual Result<GcReport> gc() = 0;
  /// Verifies the digests of everything stored, which needs no key, and puts what is corrupt into quarantine: it is
  /// not served any more, until it is replaced or removed.
  [[nodiscard]] virtual Result<ScrubReport> scrub(const ScrubOptions& options) = 0;

  /// Adds a verified backup to those in this directory, and keeps the newest `keep` of them (0: all). Puts go on
  /// meanwhile. unsupported where a storage has none (in memory).
  [[nodiscard]] virtual Result<BackupReport> back_up(const std::string& /*directory*/, std::uint32_t /*keep*/) {
    return Status::unsupported("this kind of storage makes no backups: export its entries instead");
  }

  [[nodiscard]] virtual Result<StoreReport> report() = 0;
  [[nodiscard]] virtual StoreSettings settings() const = 0;
  /// Takes effect at once; entries beyond a new limit are evicted before this returns.
  [[nodiscard]] virtual Status set_settings(const StoreSettings& settings) = 0;
};

}  // namespace finchkv::cache_store
