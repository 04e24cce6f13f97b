/* finchkv: a persistent store for what language models have read. The C ABI.
 *
 * Conventions, which hold for every function here:
 *
 * Results. A function that can fail returns an fkv_code, FKV_OK (0) or what went wrong, and takes `fkv_error** error`
 * last. When it fails and `error` is not NULL, *error is a sentence that belongs to the caller (fkv_error_free). What a
 * failed call would have returned through a pointer is NULL or untouched. No exception, signal or abort crosses this
 * boundary; running out of memory is FKV_RESOURCE_EXHAUSTED.
 *
 * Ownership. Every object that a function returns through a pointer belongs to the caller and has a function ending in
 * _free (or _close) that takes NULL too. Objects hold what they need: they may be freed in any order, also after the
 * store or model that they came from. Views (fkv_str, arrays) inside an object live as long as that object. A store is
 * let go (its directory is free for another process) when it is closed and its fetches and answers are freed; sets and
 * tensors do not hold it.
 *
 * Text. Strings in and out are UTF-8 as pointer and length, not terminated; {NULL, 0} means empty or "not given". Names
 * and paths hold no NUL byte. An fkv_error's message and fkv_version() end in NUL as well.
 *
 * Structs. A struct whose first member is `struct_size` may grow at its end in later versions. The caller sets it to
 * the sizeof of its own header (or uses an _INIT macro) and everything that is not wanted to zero. What an older
 * caller's struct lacks counts as zero; what a newer caller's has and this library does not know must be zero. On the
 * way out no more than struct_size bytes are written, and what this library does not know becomes zero. No struct has
 * padding at its end. fkv_str, fkv_id, fkv_digest, fkv_parameter and fkv_layer_view stay as they are.
 *
 * Threads. Stores, entries, listings, sets, answers and devices may be used from many threads at once; whoever closes
 * or frees one is the last to use it. A model answers one call at a time, others wait; so does a device. A fetch
 * (layers on their way) is used by one thread at a time. A cancel flag is read as an atomic number, which any thread
 * may set. Callbacks run on the calling thread, before the call returns. They may call what is here, but not free what
 * their call was given, nor ask its model (FKV_INVALID_ARGUMENT). The library has threads of its own: it stays loaded
 * until the process ends, and a child of fork() must not use what its parent opened.
 *
 * Files and formats: docs/formats.md. Shared library: libfinchkv.so.0; everything in this file keeps its meaning within
 * one FKV_ABI_VERSION.
 */
#ifndef FINCHKV_H
#define FINCHKV_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define FKV_API __attribute__((visibility("default")))
#else
#define FKV_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define FKV_ABI_VERSION 0

typedef int32_t fkv_code;
enum {
  FKV_OK = 0,
  FKV_INVALID_ARGUMENT = 1,   /* the call could never succeed as it was made */
  FKV_NOT_FOUND = 2,          /* no such entry, store or file */
  FKV_CORRUPT = 3,            /* stored bytes are not what was written */
  FKV_UNAVAILABLE = 4,        /* not now: another process has it, or a callback stopped it */
  FKV_RESOURCE_EXHAUSTED = 5, /* memory, disk, or a limit */
  FKV_DEADLINE_EXCEEDED = 6,  /* a reader took too long over an entry that went meanwhile */
  FKV_PERMISSION_DENIED = 7,  /* a store opened for reading, a tenant's or a key's refusal, a file's mode */
  FKV_UNSUPPORTED = 8,        /* a newer format, or a way that this build does not have */
  FKV_INTERNAL = 9            /* a fault of the library: please tell */
};

typedef struct fkv_error fkv_error;
typedef struct fkv_text fkv_text;
typedef struct fkv_bytes fkv_bytes;
typedef struct fkv_store fkv_store;
typedef struct fkv_model fkv_model;
typedef struct fkv_tokens fkv_tokens;
typedef struct fkv_entry fkv_entry;
typedef struct fkv_listing fkv_listing;
typedef struct fkv_fetch fkv_fetch;
typedef struct fkv_kvset fkv_kvset;
typedef struct fkv_answer fkv_answer;
typedef struct fkv_device fkv_device;
struct DLManagedTensor; /* dlpack.h, https://github.com/dmlc/dlpack, version 0.x */

typedef struct fkv_str {
  const char* data;
  size_t size; /* bytes */
} fkv_str;
#define FKV_STR_NONE \
  { NULL, 0 }

/* The name of an entry. As text: 64 hex digits. */
typedef struct fkv_id {
  uint8_t bytes[32];
} fkv_id;

/* SHA-256. */
typedef struct fkv_digest {
  uint8_t bytes[32];
} fkv_digest;

FKV_API uint32_t fkv_abi_version(void); /* FKV_ABI_VERSION of the library */
FKV_API const char* fkv_version(void);  /* "1.2.3" */

FKV_API fkv_code fkv_error_code(const fkv_error* error);
FKV_API const char* fkv_error_message(const fkv_error* error);
FKV_API void fkv_error_free(fkv_error* error);
FKV_API const char* fkv_code_name(fkv_code code); /* "not_found"; "unknown" for a number that is none */

FKV_API fkv_str fkv_text_view(const fkv_text* text);
FKV_API void fkv_text_free(fkv_text* text);
FKV_API const void* fkv_bytes_data(const fkv_bytes* bytes, size_t* size);
FKV_API void fkv_bytes_free(fkv_bytes* bytes);

FKV_API void fkv_id_hex(const fkv_id* id, char hex[64]); /* not terminated */
FKV_API fkv_code fkv_id_parse(fkv_str hex, fkv_id* id, fkv_error** error);

/* ---- Stores ---- */

enum { FKV_READ = 0, FKV_WRITE = 1 };

typedef struct fkv_store_options {
  size_t struct_size;
  fkv_str url;      /* a directory, rocksdb:DIRECTORY, or memory: ; unix:, tcp:, tls: and rados: are unsupported yet */
  uint32_t mode;    /* FKV_READ: beside a process that writes. FKV_WRITE: one process at a time */
  uint32_t create;  /* 1: a directory that is missing or empty becomes a store (FKV_WRITE) */
  uint32_t wait_ms; /* how long to wait for another process that writes; then FKV_UNAVAILABLE */
  uint32_t publisher;          /* 1: may put and remove shared entries */
  fkv_str tenant;              /* not given: the default tenant */
  fkv_str tenant_key;          /* 16 bytes or more, for a named tenant */
  fkv_str encryption_key_file; /* entries are sealed at rest under it; docs/security.md */
} fkv_store_options;
#define FKV_STORE_OPTIONS_INIT \
  { sizeof(fkv_store_options), FKV_STR_NONE, 0, 0, 0, 0, FKV_STR_NONE, FKV_STR_NONE, FKV_STR_NONE }

FKV_API fkv_code fkv_store_open(const fkv_store_options* options, fkv_store** store, fkv_error** error);
FKV_API void fkv_store_close(fkv_store* store);

/* The one entry whose id begins with these 1 to 64 hex digits. FKV_INVALID_ARGUMENT when several do, naming them. */
FKV_API fkv_code fkv_store_resolve(fkv_store* store, fkv_str hex_prefix, fkv_id* id, fkv_error** error);
FKV_API fkv_code fkv_store_find(fkv_store* store, const fkv_id* id, fkv_entry** entry, fkv_error** error);
FKV_API fkv_code fkv_store_remove(fkv_store* store, const fkv_id* id, fkv_error** error);
/* Reads all of an entry and checks it. */
FKV_API fkv_code fkv_store_verify(fkv_store* store, const fkv_id* id, fkv_error** error);
/* The ids of the document's tokens. FKV_NOT_FOUND also when the entry was stored without them. */
FKV_API fkv_code fkv_store_document_tokens(fkv_store* store, const fkv_id* id, fkv_tokens** tokens, fkv_error** error);
FKV_API fkv_code fkv_store_set_label(fkv_store* store, const fkv_id* id, fkv_str label, fkv_error** error);
FKV_API fkv_code fkv_store_set_pinned(fkv_store* store, const fkv_id* id, uint32_t pinned, fkv_error** error);
FKV_API fkv_code fkv_store_set_expiry(fkv_store* store, const fkv_id* id, uint64_t unix_ms, fkv_error** error);

enum { FKV_REFERENCE = 0, FKV_FAST = 1, FKV_FP8 = 2 }; /* how the entry was computed: f32, bf16, 8 bits */

/* What is known of an entry without reading its tensors. */
enum { FKV_PRE_ROPE = 0, FKV_ROTATED = 1, FKV_NO_ROPE = 2 };
enum { FKV_COMPUTED = 0, FKV_CLIENT = 1, FKV_IMPORTED = 2 }; /* by this engine, put by a client, from a file */
enum { FKV_F32 = 0, FKV_F16 = 1, FKV_BF16 = 2, FKV_Q8 = 3, FKV_Q4 = 4 };

typedef struct fkv_entry_info {
  size_t struct_size;
  fkv_id id;
  fkv_str label;
  fkv_str reader; /* "chunks", "whole" */
  fkv_str policy; /* "finch-span", ... */
  uint64_t doc_tokens;
  uint64_t prompt_tokens; /* 0 for policies that ignore the prompt */
  uint64_t keep;
  uint64_t chunk;
  uint32_t n_layers, n_kv_heads, head_dim;
  uint32_t origin_rows;   /* n_kv_heads, or 1 where the heads of a layer keep the same */
  uint32_t max_kept;      /* the largest of the layers' */
  uint32_t storage_dtype; /* FKV_F32 to FKV_Q4 */
  uint32_t dtype;         /* of the tensors: FKV_F32, FKV_F16 or FKV_BF16 */
  uint32_t key_form;
  uint64_t next_position; /* where the prompt starts behind the set */
  uint64_t stored_bytes, raw_bytes;
  uint64_t compress_ms;
  uint64_t created_unix_ms, last_used_unix_ms, expires_unix_ms; /* 0: never expires */
  uint64_t hits;
  uint32_t pinned, shared, sealed, has_document_tokens;
  fkv_digest model, weights, tokenizer; /* what it was made with: an engine that has others must not use it */
  uint32_t numeric;                     /* FKV_REFERENCE to FKV_FP8 */
  uint32_t provenance;                  /* FKV_COMPUTED to FKV_IMPORTED */
} fkv_entry_info;

FKV_API fkv_code fkv_entry_get_info(const fkv_entry* entry, fkv_entry_info* info, fkv_error** error);
/* How many entries of the document this layer keeps. */
FKV_API fkv_code fkv_entry_layer_kept(const fkv_entry* entry, uint32_t layer, uint32_t* n_kept, fkv_error** error);
FKV_API void fkv_entry_free(fkv_entry* entry);

/* Up to `limit` (1 to 10000) entries behind `after` (NULL: from the first), in the order of ids: the tenant's own, or
 * those that are shared with all tenants. */
FKV_API fkv_code fkv_store_list(fkv_store* store, const fkv_id* after, uint32_t limit, fkv_listing** listing,
                                fkv_error** error);
FKV_API fkv_code fkv_store_list_shared(fkv_store* store, const fkv_id* after, uint32_t limit, fkv_listing** listing,
                                       fkv_error** error);
FKV_API size_t fkv_listing_size(const fkv_listing* listing);
FKV_API fkv_code fkv_listing_get_info(const fkv_listing* listing, size_t index, fkv_entry_info* info,
                                      fkv_error** error);
/* 1 and the id to go on after, or 0 at the end. */
FKV_API uint32_t fkv_listing_next(const fkv_listing* listing, fkv_id* after);
/* Damaged entries of this page, which are not among the others: fkv_store_verify says what is wrong with them,
 * fkv_store_remove removes them. */
FKV_API const fkv_id* fkv_listing_unreadable(const fkv_listing* listing, size_t* count);
FKV_API void fkv_listing_free(fkv_listing* listing);

/* JSON: entries, bytes, hits (this tenant's). */
FKV_API fkv_code fkv_store_stats(fkv_store* store, fkv_text** json, fkv_error** error);

/* ---- Between stores (formats: docs/formats.md) ---- */

/* One entry into a safetensors file, and back. The file appears whole or not at all; an entry that is there already
 * stays as it is. `_rotated` turns keys from before RoPE to base_position and on; where layers keep different numbers,
 * shorter ones end where the longest does. */
FKV_API fkv_code fkv_store_export(fkv_store* store, const fkv_id* id, fkv_str path, fkv_error** error);
FKV_API fkv_code fkv_store_export_rotated(fkv_store* store, const fkv_id* id, fkv_str path, uint64_t base_position,
                                          fkv_error** error);
FKV_API fkv_code fkv_store_import(fkv_store* store, fkv_str path, fkv_id* id, fkv_error** error);

/* Takes `size` bytes, all of them, and returns 1; or 0 to stop the call, which is FKV_UNAVAILABLE then. */
typedef int (*fkv_write)(void* user, const void* data, size_t size);
/* Gives 1 to `size` bytes and returns how many; 0 at the end; a negative number to stop the call (FKV_UNAVAILABLE). */
typedef int64_t (*fkv_read)(void* user, void* data, size_t size);

/* Many entries as one stream of bytes, with their labels, pins and expiry; `ids` NULL: all of the tenant's own. It is
 * not encrypted, even where the store is. Importing checks each entry whole before it is stored, and reads not a byte
 * more than the archive has. What is there already stays; a damaged one is replaced. When it fails, the entries before
 * stay. `imported` may be NULL: how many came, those that were there too. */
FKV_API fkv_code fkv_store_export_archive(fkv_store* store, const fkv_id* ids, size_t count, fkv_write write,
                                          void* user, fkv_error** error);
FKV_API fkv_code fkv_store_import_archive(fkv_store* store, fkv_read read, void* user, uint64_t* imported,
                                          fkv_error** error);
/* One entry as it is, nothing decoded, with label, pin and expiry. Both stores are opened for the same tenant, unless
 * the entry is shared. */
FKV_API fkv_code fkv_store_copy(fkv_store* from, const fkv_id* id, fkv_store* to, fkv_error** error);

/* ---- Running a store: all of its tenants ---- */

/* JSON with every setting: max_bytes, tenant_max_bytes, tenant_quotas {tenant: bytes}, shared_max_bytes,
 * pinned_percent, default_ttl_ms, durability ("sync", "interval", "none"), sync_interval_ms, lease_ms,
 * scrub_bytes_per_s; 0 means no limit. Setting takes an object with those that change (null: the default), and evicts
 * what is past a new limit before it returns. */
FKV_API fkv_code fkv_store_settings(fkv_store* store, fkv_text** json, fkv_error** error);
FKV_API fkv_code fkv_store_set_settings(fkv_store* store, fkv_str json, fkv_error** error);
/* JSON: sums over all tenants, by tenant and by model, lookups, misses, evictions, bytes written. */
FKV_API fkv_code fkv_store_report(fkv_store* store, fkv_text** json, fkv_error** error);

typedef struct fkv_gc_info {
  size_t struct_size;
  uint64_t expired;        /* entries past their time */
  uint64_t abandoned_puts; /* that were interrupted */
  uint64_t blocks, bytes;  /* given back */
} fkv_gc_info;

/* Removes what has expired and what interrupted puts left. `info` may be NULL. */
FKV_API fkv_code fkv_store_gc(fkv_store* store, fkv_gc_info* info, fkv_error** error);

typedef struct fkv_scrub_info {
  size_t struct_size;
  uint64_t entries, bytes; /* read and checked */
  uint64_t quarantined;    /* found damaged now: not served any more until replaced or removed */
} fkv_scrub_info;

/* Checks every stored byte, which needs no key, at bytes_per_s at most (0: as fast as it goes). `cancel` may be NULL,
 * or ends it between two entries. `info` may be NULL. */
FKV_API fkv_code fkv_store_scrub(fkv_store* store, uint64_t bytes_per_s, const volatile int32_t* cancel,
                                 fkv_scrub_info* info, fkv_error** error);

typedef struct fkv_backup_info {
  size_t struct_size;
  uint32_t backup; /* its number in the directory, from 1 on */
  uint32_t files;
  uint64_t created_unix_ms;
  uint64_t bytes;
} fkv_backup_info;

/* Adds a verified backup to those in the directory and keeps the newest `keep` (0: all). `info` may be NULL. */
FKV_API fkv_code fkv_store_backup(fkv_store* store, fkv_str directory, uint32_t keep, fkv_backup_info* info,
                                  fkv_error** error);
/* JSON: an array of id, created_unix_ms, bytes, files, damaged. */
FKV_API fkv_code fkv_backup_list(fkv_str directory, fkv_text** json, fkv_error** error);
/* Reads every byte of one backup, or of all (0). */
FKV_API fkv_code fkv_backup_verify(fkv_str directory, uint32_t backup, fkv_error** error);
/* Makes a store of a backup (0: of the newest), in a directory that is missing or empty. `info` may be NULL. */
FKV_API fkv_code fkv_backup_restore(fkv_str directory, uint32_t backup, fkv_str store_directory, fkv_backup_info* info,
                                    fkv_error** error);

/* A new file with a new key, for encryption_key_file; a new key in front of those of a file, for what is stored from
 * then on; and what is stored under older keys, wrapped under the first one of the file that the store was opened with
 * (`changed`, how many entries, may be NULL). */
FKV_API fkv_code fkv_key_file_create(fkv_str path, fkv_error** error);
FKV_API fkv_code fkv_key_file_rotate(fkv_str path, fkv_error** error);
FKV_API fkv_code fkv_store_rewrap_keys(fkv_store* store, uint64_t* changed, fkv_error** error);

/* ---- Fetching: tensors for an engine ---- */

/* Where sets can be brought, so that tensors go out from there. */
enum { FKV_ON_CPU = 1, FKV_ON_CUDA = 2 }; /* DLPack's kDLCPU and kDLCUDA */

typedef struct fkv_device_options {
  size_t struct_size;
  fkv_str device;   /* "cpu", "cuda", or "auto", which is what not given means: a GPU where there is one */
  uint32_t ordinal; /* which GPU, as CUDA counts them; the device id of its tensors */
  uint32_t threads; /* for copies on the host; 0: all processors */
} fkv_device_options;
#define FKV_DEVICE_OPTIONS_INIT \
  { sizeof(fkv_device_options), {NULL, 0}, 0, 0 }

/* FKV_UNSUPPORTED where the library was built without CUDA, FKV_UNAVAILABLE where there is no usable GPU. A GPU takes
 * some milliseconds to open and 32 MiB of page-locked memory: keep it. It shares its GPU's primary context, and so the
 * memory, with everything else in the process that uses the CUDA runtime. */
FKV_API fkv_code fkv_device_open(const fkv_device_options* options, fkv_device** device, fkv_error** error);
/* Sets and tensors that are there stay valid. */
FKV_API void fkv_device_close(fkv_device* device);

/* Begins to read an entry; layer l is usable while later ones are read. A hit. */
FKV_API fkv_code fkv_store_fetch(fkv_store* store, const fkv_id* id, fkv_fetch** fetch, fkv_error** error);
/* The same straight to a device: layers come over as they are stored (q8 and q4 are expanded there), and the sets that
 * the fetch gives are on the device, as fkv_kvset_to_device has them. There each layer is given once; finish is for who
 * has taken none. */
FKV_API fkv_code fkv_store_fetch_to(fkv_store* store, const fkv_id* id, fkv_device* device, fkv_fetch** fetch,
                                    fkv_error** error);
/* Waits for one layer: a set that has this layer alone, valid like any other. */
FKV_API fkv_code fkv_fetch_layer(fkv_fetch* fetch, uint32_t layer, fkv_kvset** set, fkv_error** error);
/* Waits for all layers. The fetch is of no further use but to be freed, and no longer keeps the entry from removal. */
FKV_API fkv_code fkv_fetch_finish(fkv_fetch* fetch, fkv_kvset** set, fkv_error** error);
FKV_API void fkv_fetch_free(fkv_fetch* fetch);

typedef struct fkv_kvset_info {
  size_t struct_size;
  uint32_t n_layers, n_kv_heads, head_dim, origin_rows;
  uint32_t dtype; /* as the tensors lie in memory */
  uint32_t key_form;
  uint64_t doc_tokens, next_position;
  fkv_str rope_scaling; /* "none", "linear", "llama3", "yarn" */
  float rope_theta, rope_factor, rope_attention_factor;
  uint32_t rotary_dims, rope_interleaved;
  uint32_t rope_original_context;
  const float* rope_inv_freq;      /* [rotary_dims / 2] */
  uint32_t device_type, device_id; /* where its tensors are: FKV_ON_CPU, 0, or FKV_ON_CUDA and which GPU */
} fkv_kvset_info;

FKV_API fkv_code fkv_kvset_get_info(const fkv_kvset* set, fkv_kvset_info* info, fkv_error** error);
FKV_API fkv_code fkv_kvset_layer_kept(const fkv_kvset* set, uint32_t layer, uint32_t* n_kept, fkv_error** error);
/* Where the layer's entries came from: [origin_rows, n_kept] document positions, ascending in each row. */
FKV_API fkv_code fkv_kvset_origins(const fkv_kvset* set, uint32_t layer, const uint32_t** origins, size_t* count,
                                   fkv_error** error);
FKV_API void fkv_kvset_free(fkv_kvset* set);

/* The same set with its tensors on a device, as they are in memory here; copied once, when this returns. On a CPU it
 * shares the memory. Of the first set, and of the device, nothing is needed any more. A set on a GPU gives tensors and
 * what is known of it; what reads numbers on the host (fkv_store_put, fkv_kvset_to_llama_state, this function) refuses
 * it with FKV_INVALID_ARGUMENT. */
FKV_API fkv_code fkv_kvset_to_device(const fkv_kvset* set, fkv_device* device, fkv_kvset** there, fkv_error** error);

enum { FKV_KEYS = 0, FKV_VALUES = 1 };
/* Which dimensions of a key RoPE turns together: as the model has them, (i, i + d/2) or (2i, 2i + 1). */
enum { FKV_ORDER_AS_STORED = 0, FKV_HALF_SPLIT = 1, FKV_INTERLEAVED = 2 };
#define FKV_DTYPE_AS_STORED 0xffffffffu
#define FKV_ALL_HEADS 0xffffffffu

typedef struct fkv_tensor_options {
  size_t struct_size;
  uint32_t layer;
  uint32_t which;         /* FKV_KEYS or FKV_VALUES */
  uint32_t head;          /* one KV head, or FKV_ALL_HEADS */
  uint32_t dtype;         /* FKV_F32, FKV_F16, FKV_BF16, or FKV_DTYPE_AS_STORED */
  uint32_t rotate;        /* keys of an FKV_PRE_ROPE set: 1 to turn entry i to base_position + i */
  uint32_t order;         /* keys: FKV_ORDER_AS_STORED, FKV_HALF_SPLIT (as transformers has them), FKV_INTERLEAVED */
  uint64_t base_position; /* with rotate */
  uint64_t stream;        /* of a set on a GPU: where the tensor is used, see fkv_kvset_tensor; 0: not said */
} fkv_tensor_options;
#define FKV_TENSOR_OPTIONS_INIT \
  { sizeof(fkv_tensor_options), 0, FKV_KEYS, FKV_ALL_HEADS, FKV_DTYPE_AS_STORED, 0, FKV_ORDER_AS_STORED, 0, 0 }

/* A tensor [n_kv_heads, n_kept, head_dim], or [n_kept, head_dim] for one head, row-major, where the set is: in host
 * memory (kDLCPU) or a GPU's (kDLCUDA), read-only. As stored and not rotated it is a view without a copy; else one pass
 * makes it, on the set's device. It holds the memory: free it by its own deleter, from any thread.
 *
 * On a GPU, `stream` says where the tensor is used, numbered as Python's array interchange has it: 1 is the legacy
 * default stream, 2 the calling thread's, other numbers are a cudaStream_t, which must outlive the tensor and must not
 * be recording a graph. Work that is put on that stream after this call finds the bytes, and work that is on it when
 * the deleter is called may still read them: nobody waits on the host. Without a stream this waits until the bytes are
 * there, so that any stream may read them, and the deleter waits for all work on the GPU. Sets on the host take no
 * notice. */
FKV_API fkv_code fkv_kvset_tensor(const fkv_kvset* set, const fkv_tensor_options* options,
                                  struct DLManagedTensor** tensor, fkv_error** error);

/* ---- Putting: sets that another engine made ---- */

typedef struct fkv_parameter {
  fkv_str name;
  int64_t value;
} fkv_parameter;

/* One layer, dense. The caller's memory, read during the call only. */
typedef struct fkv_layer_view {
  uint32_t n_kept;
  const void* keys;        /* [n_kv_heads, n_kept, head_dim] of the set's dtype */
  const void* values;      /* the same */
  const uint32_t* origins; /* [origin_rows, n_kept] document positions, ascending; NULL: 0, 1, ... in every row */
} fkv_layer_view;

typedef struct fkv_put_options {
  size_t struct_size;

  /* What the set is the answer to. Two puts have the same id exactly when all of this agrees, and the tenant. */
  fkv_digest model;     /* of the configuration: sets of another one never meet. Required: not all zero */
  fkv_digest weights;   /* of the weights */
  fkv_digest tokenizer; /* all zero: none */
  const int32_t* document_tokens;
  size_t document_token_count;
  const int32_t* prompt_tokens; /* of what guided the choice; none: the set serves every prompt */
  size_t prompt_token_count;
  fkv_str reader; /* how the document was read; not given: "client" */
  fkv_str policy; /* how entries were chosen: "snapkv", ... */
  uint32_t policy_revision;
  uint32_t numeric; /* FKV_REFERENCE to FKV_FP8 */
  uint64_t keep, chunk, seed;
  const fkv_parameter* parameters; /* whatever else can change a byte, as integers; names once each */
  size_t parameter_count;

  /* The set. */
  uint32_t n_layers, n_kv_heads, head_dim;
  uint32_t origin_rows;   /* n_kv_heads, or 1 where the heads of a layer keep the same */
  uint32_t dtype;         /* FKV_F32, FKV_F16 or FKV_BF16 */
  uint32_t key_form;      /* FKV_ROTATED and FKV_NO_ROPE sets go back as they came */
  uint64_t next_position; /* where the prompt starts behind the set */
  fkv_str rope_scaling;   /* keys before RoPE need the record they are turned by; not given: "none" */
  float rope_theta, rope_factor, rope_attention_factor; /* 0: 10000, 1, 1 */
  uint32_t rope_original_context;
  uint32_t rotary_dims, rope_interleaved;
  const float* rope_inv_freq;   /* [rotary_dims / 2]; NULL: theta^(-2i / rotary_dims) */
  const fkv_layer_view* layers; /* [n_layers] */

  /* How to keep it. */
  uint32_t storage_dtype;
  uint32_t pinned, zstd;
  uint32_t replace;            /* 0: what is there already stays as it is */
  uint32_t no_document_tokens; /* 1: the document's ids are not stored beside the entry */
  uint64_t ttl_ms;             /* 0: the store's setting */
  fkv_str label;

  const fkv_kvset* set; /* not NULL: this set, and the members n_layers to layers are not looked at */
} fkv_put_options;

/* Stores a set; its provenance is "client", and only its own tenant sees it. */
FKV_API fkv_code fkv_store_put(fkv_store* store, const fkv_put_options* options, fkv_id* id, fkv_error** error);
/* The id that fkv_store_put would give it. The set's own members (n_layers to layers) are not looked at. */
FKV_API fkv_code fkv_store_put_id(fkv_store* store, const fkv_put_options* options, fkv_id* id, fkv_error** error);

/* ---- llama.cpp: sets as the state of one sequence (docs/formats.md) ---- */

typedef struct fkv_llama_options {
  size_t struct_size;
  uint32_t dtype;             /* type_k and type_v of the context: FKV_F32, FKV_F16 or FKV_BF16 */
  uint32_t transposed_values; /* 1: the context works without flash attention */
  uint32_t order;             /* of the keys: FKV_ORDER_AS_STORED unless the weights were permuted */
  uint32_t streams;           /* n_seq_max where sequences share no cells (kv_unified off), else 1; 0: 1 */
  uint64_t base_position;     /* entry i of an FKV_PRE_ROPE set goes to base_position + i; 0 for other sets */
  uint32_t file;              /* 0: for llama_state_seq_set_data. 1: a file for llama_state_seq_load_file or a slot */
  const int32_t* tokens;      /* with file: one for each position before the prompt */
  size_t token_count;
  /* With file, instead of tokens: the document's, from which they are made. The document itself where it has as many;
   * else, at base position 0, what layer 0 kept, the last first: no text begins like that, so that a server with the
   * slot uses it only for who sends these tokens before the prompt. */
  const int32_t* document_tokens;
  size_t document_token_count;
} fkv_llama_options;
#define FKV_LLAMA_OPTIONS_INIT \
  { sizeof(fkv_llama_options), FKV_F16, 0, FKV_ORDER_AS_STORED, 1, 0, 0, NULL, 0, NULL, 0 }

/* Layers that keep different numbers of entries are FKV_INVALID_ARGUMENT: the cells of a llama.cpp cache are the same
 * in every layer. `next_position` may be NULL: where decoding goes on behind the state. */
FKV_API fkv_code fkv_kvset_to_llama_state(const fkv_kvset* set, const fkv_llama_options* options, fkv_bytes** state,
                                          uint64_t* next_position, fkv_error** error);

/* A state says nothing of its model but the number of layers and their width. */
typedef struct fkv_llama_source {
  size_t struct_size;
  fkv_model* model; /* whose cache it was; or NULL, and in numbers: */
  uint32_t n_layers, n_kv_heads, head_dim;
  uint32_t rotary_dims, rope_interleaved; /* 0: not known; the keys go back as they came */
  float rope_theta;                       /* 0: 10000 */
  const int32_t* tokens;                  /* what was read, for a state that is no file; or none */
  size_t token_count;
} fkv_llama_source;

/* Reads either form. The set is FKV_ROTATED, in the state's dtype. `tokens` may be NULL: the ids of positions 0 to
 * next_position - 1. FKV_INVALID_ARGUMENT with the difference for a state of another shape. */
FKV_API fkv_code fkv_kvset_from_llama_state(const void* state, size_t size, const fkv_llama_source* source,
                                            fkv_kvset** set, fkv_tokens** tokens, fkv_error** error);

/* ---- Models ---- */

typedef struct fkv_model_options {
  size_t struct_size;
  fkv_str path;              /* a GGUF file; of a split one, the first */
  fkv_str fingerprint_cache; /* a file of remembered weight digests; not given: hash the weights at every opening */
  uint32_t threads;          /* 0: all processors */
  fkv_str compute;           /* "f32" in a fixed order, "bf16", "fp8", or "auto", which not given means: bf16 */
  fkv_str device;            /* "cpu", "cuda", or "auto", which is what not given means: a GPU where there is one */
} fkv_model_options;
#define FKV_MODEL_OPTIONS_INIT \
  { sizeof(fkv_model_options), FKV_STR_NONE, FKV_STR_NONE, 0, FKV_STR_NONE, FKV_STR_NONE }

/* Reads what is cheap; weights are loaded when a document must be read or an answer made. */
FKV_API fkv_code fkv_model_open(const fkv_model_options* options, fkv_model** model, fkv_error** error);
FKV_API void fkv_model_close(fkv_model* model);
/* JSON: architecture, shape, context, tokenizer, template, fingerprints. */
FKV_API fkv_code fkv_model_describe(fkv_model* model, fkv_text** json, fkv_error** error);
/* Token ids of a text, without BOS or EOS. */
FKV_API fkv_code fkv_model_tokenize(fkv_model* model, fkv_str text, uint32_t parse_special, fkv_tokens** tokens,
                                    fkv_error** error);
FKV_API fkv_code fkv_model_detokenize(fkv_model* model, const int32_t* tokens, size_t count, fkv_text** text,
                                      fkv_error** error);
FKV_API const int32_t* fkv_tokens_data(const fkv_tokens* tokens, size_t* count);
FKV_API void fkv_tokens_free(fkv_tokens* tokens);
/* FKV_OK when this model made the entry. FKV_INVALID_ARGUMENT with what differs: the shape, the position encoding, the
 * tokenizer, the rest of the configuration, or the weights. */
FKV_API fkv_code fkv_entry_check_model(const fkv_entry* entry, fkv_model* model, fkv_error** error);

/* ---- Asking: find, or read and store, then answer ---- */

typedef struct fkv_ask_options {
  size_t struct_size;
  /* Document and prompt: texts, which the model's chat template is put around, or token ids of both. */
  fkv_str document, prompt;
  const int32_t* document_tokens;
  size_t document_token_count;
  const int32_t* prompt_tokens;
  size_t prompt_token_count;
  fkv_str instruction;   /* not given: the usual one */
  fkv_str system;        /* not given: the template's own */
  fkv_str chat_template; /* "chatml", "llama3", "mistral", "plain"; not given: the model's */

  /* How to read. */
  fkv_str reader; /* not given: "chunks" */
  fkv_str policy; /* not given: "finch-span" */
  uint64_t keep;  /* entries to keep per head; 0: see ratio */
  double ratio;   /* of the document's tokens to one kept; 0: the default */
  uint64_t chunk; /* 0: the default */
  uint64_t seed;  /* of policies that draw */
  uint32_t storage_dtype;

  /* How to keep it, where this call is the one that stores it. */
  uint32_t pinned;
  uint32_t shared;
  uint32_t refresh;            /* 1: read again and replace the entry */
  uint32_t no_document_tokens; /* 1: the document's ids are not stored beside the entry */
  uint32_t zstd;
  uint64_t ttl_ms; /* 0: the store's setting */
  fkv_str label;

  /* How to answer. */
  uint64_t max_tokens; /* 0: 128 */
  double temperature;  /* 0: greedy */
  double top_p;        /* 0: 1 */
  uint64_t sampling_seed;
  const fkv_str* stop;
  size_t stop_count;

  /* Callbacks return 0 to stop. Stopping the reading is FKV_UNAVAILABLE, stopping the answer just ends it. Texts are
   * whole characters that no stop string can take back any more, so there may be fewer of them than tokens. */
  int (*on_progress)(void* user, uint64_t tokens_read, uint64_t tokens_in_all);
  int (*on_text)(void* user, const char* text, size_t size);
  void* user;
  const volatile int32_t* cancel; /* not NULL: set to something other than 0, from any thread, it stops the call */
  int (*on_token)(void* user, int32_t token); /* each token of the answer, before its text */
} fkv_ask_options;

/* `store` NULL: nothing is looked up or stored. */
FKV_API fkv_code fkv_compress(fkv_model* model, fkv_store* store, const fkv_ask_options* options, fkv_answer** answer,
                              fkv_error** error);
FKV_API fkv_code fkv_ask(fkv_model* model, fkv_store* store, const fkv_ask_options* options, fkv_answer** answer,
                         fkv_error** error);
/* The id of the entry that they look for and would store. Needs no weights. */
FKV_API fkv_code fkv_ask_id(fkv_model* model, fkv_store* store, const fkv_ask_options* options, fkv_id* id,
                            fkv_error** error);

/* Finds or makes the entry as fkv_compress does, then says how likely these tokens are as the answer: the mean of their
 * log-likelihoods, each behind the prompt and those before it. */
FKV_API fkv_code fkv_score(fkv_model* model, fkv_store* store, const fkv_ask_options* options,
                           const int32_t* answer_tokens, size_t count, double* mean_log_likelihood, fkv_error** error);

/* The token ids that fkv_ask makes of document and prompt, the chat template included: another engine that has the
 * set goes on with the prompt's. Needs no weights. Either may be NULL; without `document`, none needs to be given. */
FKV_API fkv_code fkv_ask_tokens(fkv_model* model, const fkv_ask_options* options, fkv_tokens** document,
                                fkv_tokens** prompt, fkv_error** error);

typedef struct fkv_answer_info {
  size_t struct_size;
  fkv_id id;
  uint32_t hit;   /* 1: found, no document was read */
  uint32_t ended; /* 1: by the model or a stop string, not by max_tokens */
  fkv_str text;   /* empty after fkv_compress */
  const int32_t* tokens;
  size_t token_count;
  uint64_t stored_bytes;
  double lookup_ms, reload_ms, compress_ms, store_ms, decode_ms; /* 0 for steps that did not happen */
} fkv_answer_info;

FKV_API fkv_code fkv_answer_get_info(const fkv_answer* answer, fkv_answer_info* info, fkv_error** error);
/* The set that the answer was made from; read from the store again where it went straight to a GPU, and then
 * FKV_NOT_FOUND if the entry is gone and FKV_INVALID_ARGUMENT if the store was closed. */
FKV_API fkv_code fkv_answer_kvset(const fkv_answer* answer, fkv_kvset** set, fkv_error** error);
FKV_API void fkv_answer_free(fkv_answer* answer);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* FINCHKV_H */
