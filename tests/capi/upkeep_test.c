/* Running a store from C: what moves between stores, settings, garbage, scrubbing, backups, keys, and who holds a
 * store open. Compiled as C99 and as C++. usage: upkeep_test DIRECTORY (which must not exist) */
#include <stdint.h>
#include <stdlib.h>

#include "tests/capi/sets.h"

static char path[4][512];

static fkv_code open_store(const char* url, const char* keys, fkv_store** store, fkv_error** error) {
  fkv_store_options o = FKV_STORE_OPTIONS_INIT;
  o.url = str(url);
  o.mode = FKV_WRITE;
  o.create = 1;
  if (keys != NULL) o.encryption_key_file = str(keys);
  return fkv_store_open(&o, store, error);
}

static fkv_kvset* fetch(fkv_store* store, const fkv_id* id) {
  fkv_fetch* on_the_way = NULL;
  fkv_kvset* set = NULL;
  OK(fkv_store_fetch(store, id, &on_the_way, &error));
  OK(fkv_fetch_finish(on_the_way, &set, &error));
  fkv_fetch_free(on_the_way);
  return set;
}

static int has(fkv_store* store, const fkv_id* id, uint32_t n) {
  fkv_kvset* set = fetch(store, id);
  const int same = set != NULL && is_set(set, n);
  fkv_kvset_free(set);
  return same;
}

/* The directory is free for another as soon as nothing but sets is left of the store. */
static void who_holds_a_store(const char* url) {
  fkv_store* store = NULL;
  fkv_store* other = NULL;
  fkv_fetch* on_the_way = NULL;
  fkv_kvset* layer = NULL;
  fkv_id id;
  fkv_tensor_options t = FKV_TENSOR_OPTIONS_INIT;
  DLManagedTensor* tensor = NULL;
  OK(open_store(url, NULL, &store, &error));
  OK(put_set(store, 1, &id, &error));
  OK(fkv_store_fetch(store, &id, &on_the_way, &error));
  OK(fkv_fetch_layer(on_the_way, 2, &layer, &error));
  fkv_store_close(store);
  FAILS(FKV_UNAVAILABLE, url, open_store(url, NULL, &other, &error));
  fkv_fetch_free(on_the_way);
  OK(open_store(url, NULL, &other, &error));
  fkv_store_close(other);
  OK(fkv_kvset_tensor(layer, &t, &tensor, &error));
  fkv_kvset_free(layer); /* a tensor outlives its set */
  CHECK(((const float*)tensor->dl_tensor.data)[5] == set_number(1, 2, 5));
  tensor->deleter(tensor);
}

typedef struct stream {
  char bytes[1 << 17];
  size_t size, at;
} stream;
static stream archived;

static int take(void* user, const void* data, size_t size) {
  stream* s = (stream*)user;
  if (s->size + size > sizeof(s->bytes)) return 0;
  memcpy(s->bytes + s->size, data, size);
  s->size += size;
  return 1;
}
static int64_t give(void* user, void* data, size_t size) {
  stream* s = (stream*)user;
  const size_t left = s->size - s->at, count = size < left ? size : left;
  memcpy(data, s->bytes + s->at, count);
  s->at += count;
  return (int64_t)count;
}
static int take_nothing(void* user, const void* data, size_t size) {
  (void)user, (void)data, (void)size;
  return 0;
}
static int64_t give_nothing(void* user, void* data, size_t size) {
  (void)user, (void)data, (void)size;
  return -1;
}
static int64_t give_too_much(void* user, void* data, size_t size) {
  (void)user, (void)data;
  return (int64_t)size + 1;
}

static void archives_and_copies(fkv_store* from, const fkv_id ids[3]) {
  fkv_store_options o = FKV_STORE_OPTIONS_INIT;
  fkv_store* to = NULL;
  fkv_store* others = NULL;
  uint64_t imported = 7;
  o.url = str("memory:");
  o.mode = FKV_WRITE;
  OK(fkv_store_open(&o, &to, &error));
  OK(fkv_store_export_archive(from, ids, 2, take, &archived, &error));
  OK(fkv_store_import_archive(to, give, &archived, &imported, &error));
  CHECK(imported == 2 && has(to, &ids[0], 0) && has(to, &ids[1], 1));
  FAILS(FKV_NOT_FOUND, "", fkv_store_verify(to, &ids[2], &error));
  archived.size = archived.at = 0;
  OK(fkv_store_export_archive(from, NULL, 0, take, &archived, &error)); /* all */
  OK(fkv_store_import_archive(to, give, &archived, &imported, &error));
  CHECK(imported == 3 && has(to, &ids[2], 2));
  archived.at = 0;
  archived.bytes[archived.size / 2] ^= 1;
  FAILS(FKV_CORRUPT, "entry", fkv_store_import_archive(to, give, &archived, NULL, &error));
  FAILS(FKV_UNAVAILABLE, "callback", fkv_store_export_archive(from, ids, 1, take_nothing, NULL, &error));
  FAILS(FKV_UNAVAILABLE, "callback", fkv_store_import_archive(to, give_nothing, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "fit", fkv_store_import_archive(to, give_too_much, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "write is NULL", fkv_store_export_archive(from, ids, 1, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "read is NULL", fkv_store_import_archive(to, NULL, NULL, NULL, &error));

  OK(fkv_store_remove(to, &ids[1], &error));
  OK(fkv_store_copy(from, &ids[1], to, &error));
  CHECK(has(to, &ids[1], 1));
  o.tenant = str("somebody");
  o.tenant_key = str("sixteen or more!");
  OK(fkv_store_open(&o, &others, &error));
  FAILS(FKV_INVALID_ARGUMENT, "tenant", fkv_store_copy(from, &ids[1], others, &error));
  fkv_store_close(others);
  fkv_store_close(to);
}

static int contains(const fkv_text* text, const char* part) {
  const fkv_str s = fkv_text_view(text);
  const size_t size = strlen(part);
  size_t i;
  for (i = 0; i + size <= s.size; ++i) {
    if (memcmp(s.data + i, part, size) == 0) return 1;
  }
  return 0;
}

static void settings_and_sums(fkv_store* store) {
  fkv_text* json = NULL;
  fkv_gc_info gc;
  fkv_scrub_info scrub;
  fkv_listing* listing = NULL;
  fkv_entry* entry = NULL;
  const volatile int32_t cancel = 1;
  uint32_t kept = 0;
  size_t count = 7;
  fkv_entry_info info;
  OK(fkv_store_set_settings(store, str("{\"max_bytes\": 1000000, \"tenant_quotas\": {\"a\": 5}}"), &error));
  OK(fkv_store_set_settings(store, str("{\"lease_ms\": 5000}"), &error));
  OK(fkv_store_settings(store, &json, &error));
  CHECK(contains(json, "\"max_bytes\":1000000") && contains(json, "\"lease_ms\":5000") && contains(json, "\"a\":5"));
  fkv_text_free(json);
  OK(fkv_store_set_settings(store, str("{\"max_bytes\": null, \"lease_ms\": null}"), &error));
  OK(fkv_store_settings(store, &json, &error));
  CHECK(contains(json, "\"max_bytes\":0") && contains(json, "\"lease_ms\":60000"));
  fkv_text_free(json);
  FAILS(FKV_INVALID_ARGUMENT, "JSON object", fkv_store_set_settings(store, str("12"), &error));
  FAILS(FKV_INVALID_ARGUMENT, "JSON object", fkv_store_set_settings(store, str(""), &error));
  FAILS(FKV_INVALID_ARGUMENT, "most_bytes", fkv_store_set_settings(store, str("{\"most_bytes\": 1}"), &error));
  FAILS(FKV_INVALID_ARGUMENT, "lease_ms", fkv_store_set_settings(store, str("{\"lease_ms\": -1}"), &error));
  FAILS(FKV_INVALID_ARGUMENT, "lease_ms", fkv_store_set_settings(store, str("{\"lease_ms\": 1}"), &error));
  FAILS(FKV_INVALID_ARGUMENT, "pinned", fkv_store_set_settings(store, str("{\"pinned_percent\": 4294967296}"), &error));
  FAILS(FKV_INVALID_ARGUMENT, "durab", fkv_store_set_settings(store, str("{\"durability\": \"maybe\"}"), &error));
  OK(fkv_store_report(store, &json, &error));
  CHECK(contains(json, "\"entries\":3") && contains(json, "\"by_tenant\""));
  fkv_text_free(json);

  memset(&gc, 0, sizeof(gc));
  gc.struct_size = sizeof(gc);
  OK(fkv_store_gc(store, &gc, &error));
  OK(fkv_store_gc(store, NULL, &error));
  memset(&scrub, 0, sizeof(scrub));
  scrub.struct_size = sizeof(scrub);
  OK(fkv_store_scrub(store, 0, NULL, &scrub, &error));
  CHECK(scrub.entries == 3 && scrub.bytes > 0 && scrub.quarantined == 0);
  OK(fkv_store_scrub(store, 0, &cancel, &scrub, &error));
  CHECK(scrub.entries < 3);

  OK(fkv_store_list_shared(store, NULL, 10, &listing, &error));
  CHECK(fkv_listing_size(listing) == 0);
  fkv_listing_free(listing);
  OK(fkv_store_list(store, NULL, 2, &listing, &error));
  CHECK(fkv_listing_size(listing) == 2);
  fkv_listing_unreadable(listing, &count);
  CHECK(count == 0);
  memset(&info, 0, sizeof(info));
  info.struct_size = sizeof(info);
  OK(fkv_listing_get_info(listing, 1, &info, &error));
  OK(fkv_store_find(store, &info.id, &entry, &error));
  fkv_listing_free(listing);
  OK(fkv_entry_layer_kept(entry, kSetLayers - 1, &kept, &error));
  CHECK(kept == kSetKept);
  FAILS(FKV_INVALID_ARGUMENT, "layer 3", fkv_entry_layer_kept(entry, kSetLayers, &kept, &error));
  fkv_entry_free(entry);
}

static void backups(fkv_store* store, const char* directory, const char* restored, const fkv_id ids[3]) {
  fkv_backup_info info;
  fkv_text* json = NULL;
  fkv_store* again = NULL;
  memset(&info, 0, sizeof(info));
  info.struct_size = sizeof(info);
  OK(fkv_store_backup(store, str(directory), 0, &info, &error));
  CHECK(info.backup == 1 && info.bytes > 0 && info.files > 0);
  OK(fkv_backup_list(str(directory), &json, &error));
  CHECK(contains(json, "\"id\":1") && contains(json, "\"damaged\":false"));
  fkv_text_free(json);
  OK(fkv_backup_verify(str(directory), 0, &error));
  FAILS(FKV_NOT_FOUND, "", fkv_backup_verify(str(directory), 9, &error));
  OK(fkv_backup_restore(str(directory), 0, str(restored), &info, &error));
  OK(open_store(restored, NULL, &again, &error));
  CHECK(has(again, &ids[0], 0) && has(again, &ids[2], 2));
  fkv_store_close(again);
  FAILS(FKV_INVALID_ARGUMENT, "directory", fkv_store_backup(store, str(""), 0, NULL, &error));
}

static void keys(const char* url, const char* file) {
  fkv_store* store = NULL;
  fkv_id id;
  fkv_fetch* on_the_way = NULL;
  uint64_t changed = 0;
  OK(fkv_key_file_create(str(file), &error));
  FAILS(FKV_INVALID_ARGUMENT, file, fkv_key_file_create(str(file), &error));
  OK(open_store(url, file, &store, &error));
  OK(put_set(store, 3, &id, &error));
  fkv_store_close(store);
  OK(fkv_key_file_rotate(str(file), &error));
  OK(open_store(url, file, &store, &error));
  OK(fkv_store_rewrap_keys(store, &changed, &error));
  CHECK(changed == 1 && has(store, &id, 3));
  fkv_store_close(store);
  OK(open_store(url, NULL, &store, &error)); /* without the key */
  FAILS(FKV_PERMISSION_DENIED, "", fkv_store_fetch(store, &id, &on_the_way, &error));
  fkv_store_close(store);
}

int main(int argc, char** argv) {
  static const char* const names[4] = {"store", "backups", "restored", "sealed"};
  char key_file[512];
  fkv_store* store = NULL;
  fkv_id ids[3];
  uint32_t i;
  if (argc != 2) return 2;
  for (i = 0; i < 4; ++i) snprintf(path[i], sizeof(path[i]), "%s-%s", argv[1], names[i]);
  snprintf(key_file, sizeof(key_file), "%s-key", argv[1]);
  who_holds_a_store(path[0]);
  OK(open_store(path[0], NULL, &store, &error));
  for (i = 0; i < 3; ++i) OK(put_set(store, i, &ids[i], &error));
  archives_and_copies(store, ids);
  settings_and_sums(store);
  backups(store, path[1], path[2], ids);
  fkv_store_close(store);
  keys(path[3], key_file);
  return failures == 0 ? 0 : 1;
}
