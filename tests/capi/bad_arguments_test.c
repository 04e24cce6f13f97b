/* Every function with arguments that cannot be: each is refused with a sentence, nothing ends the process. */
#include <stdint.h>

#include "tests/capi/check.h"

static void nothing_at_all(void) {
  fkv_id id;
  memset(&id, 0, sizeof(id));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_id_parse(str(""), NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_open(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_resolve(NULL, str("00"), &id, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_find(NULL, &id, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_remove(NULL, &id, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_verify(NULL, &id, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_set_label(NULL, &id, str(""), &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_set_pinned(NULL, &id, 1, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_set_expiry(NULL, &id, 1, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_entry_get_info(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_list(NULL, NULL, 1, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_listing_get_info(NULL, 0, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_stats(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_export(NULL, &id, str("x"), &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_import(NULL, str("x"), &id, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_fetch(NULL, &id, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_device_open(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_kvset_to_device(NULL, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_fetch_to(NULL, &id, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_fetch_layer(NULL, 0, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_fetch_finish(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_kvset_get_info(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_kvset_layer_kept(NULL, 0, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_kvset_origins(NULL, 0, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_kvset_tensor(NULL, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_model_open(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_model_describe(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_model_tokenize(NULL, str(""), 0, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_model_detokenize(NULL, NULL, 0, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_compress(NULL, NULL, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_ask(NULL, NULL, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_ask_id(NULL, NULL, NULL, &id, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_ask_tokens(NULL, NULL, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_put(NULL, NULL, &id, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_put_id(NULL, NULL, &id, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_answer_get_info(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_answer_kvset(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_document_tokens(NULL, &id, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_entry_layer_kept(NULL, 0, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_list_shared(NULL, NULL, 1, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_export_rotated(NULL, &id, str("x"), 0, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_export_archive(NULL, NULL, 0, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_import_archive(NULL, NULL, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_copy(NULL, &id, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_settings(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_set_settings(NULL, str("{}"), &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_report(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_gc(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_scrub(NULL, 0, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_backup(NULL, str("x"), 0, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_backup_list(str("x"), NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_rewrap_keys(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_score(NULL, NULL, NULL, NULL, 0, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_kvset_to_llama_state(NULL, NULL, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_kvset_from_llama_state(NULL, 0, NULL, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_entry_check_model(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "not given", fkv_backup_verify(str(""), 0, &error));
  FAILS(FKV_INVALID_ARGUMENT, "not given", fkv_backup_restore(str(""), 0, str("x"), NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "not given", fkv_key_file_create(str(""), &error));
  FAILS(FKV_INVALID_ARGUMENT, "not given", fkv_key_file_rotate(str(""), &error));
  /* Without a place for the sentence. */
  CHECK(fkv_store_find(NULL, &id, NULL, NULL) == FKV_INVALID_ARGUMENT);
}

static void what_is_freed_may_be_null(void) {
  size_t count = 7;
  fkv_store_close(NULL);
  fkv_model_close(NULL);
  fkv_entry_free(NULL);
  fkv_listing_free(NULL);
  fkv_fetch_free(NULL);
  fkv_kvset_free(NULL);
  fkv_device_close(NULL);
  fkv_tokens_free(NULL);
  fkv_text_free(NULL);
  fkv_bytes_free(NULL);
  fkv_answer_free(NULL);
  fkv_error_free(NULL);
  CHECK(fkv_error_code(NULL) == FKV_OK && fkv_error_message(NULL)[0] == 0);
  CHECK(fkv_text_view(NULL).size == 0 && fkv_listing_size(NULL) == 0 && fkv_listing_next(NULL, NULL) == 0);
  CHECK(fkv_tokens_data(NULL, &count) == NULL && count == 0);
  CHECK(fkv_listing_unreadable(NULL, &count) == NULL && count == 0 && fkv_listing_unreadable(NULL, NULL) == NULL);
  count = 7;
  CHECK(fkv_bytes_data(NULL, &count) == NULL && count == 0);
  fkv_id_hex(NULL, NULL);
}

static int refuse(void* user, const void* data, size_t size) {
  (void)user, (void)data, (void)size;
  return 0;
}

static void structs_of_other_sizes(void) {
  struct {
    fkv_store_options o;
    uint64_t later;
  } newer;
  fkv_store* store = NULL;
  memset(&newer, 0, sizeof(newer));
  newer.o.url = str("memory:");
  newer.o.mode = FKV_WRITE;
  FAILS(FKV_INVALID_ARGUMENT, "struct_size", fkv_store_open(&newer.o, &store, &error)); /* 0 */
  newer.o.struct_size = ~(size_t)0;
  FAILS(FKV_INVALID_ARGUMENT, "struct_size", fkv_store_open(&newer.o, &store, &error));
  newer.o.struct_size = sizeof(newer);
  newer.later = 1;
  FAILS(FKV_UNSUPPORTED, "came after", fkv_store_open(&newer.o, &store, &error));
  newer.later = 0;
  OK(fkv_store_open(&newer.o, &store, &error));
  fkv_store_close(store);
}

/* Out: not a byte more than there is room for, and zero where a newer caller has more. */
static void structs_that_are_filled(void) {
  struct {
    fkv_gc_info info;
    uint64_t later;
  } newer;
  fkv_store_options o = FKV_STORE_OPTIONS_INIT;
  fkv_store* store = NULL;
  o.url = str("memory:");
  o.mode = FKV_WRITE;
  OK(fkv_store_open(&o, &store, &error));
  memset(&newer, 0xff, sizeof(newer));
  newer.info.struct_size = sizeof(size_t) + sizeof(uint64_t); /* older: it ends behind `expired` */
  OK(fkv_store_gc(store, &newer.info, &error));
  CHECK(newer.info.expired == 0 && newer.info.abandoned_puts == ~(uint64_t)0);
  newer.info.struct_size = sizeof(newer);
  OK(fkv_store_gc(store, &newer.info, &error));
  CHECK(newer.info.struct_size == sizeof(newer) && newer.info.bytes == 0 && newer.later == 0);
  newer.info.struct_size = ~(size_t)0;
  FAILS(FKV_INVALID_ARGUMENT, "struct_size", fkv_store_gc(store, &newer.info, &error));
  newer.info.struct_size = 0;
  FAILS(FKV_INVALID_ARGUMENT, "struct_size", fkv_store_gc(store, &newer.info, &error));
  fkv_store_close(store);
}

/* Counts and sizes that no memory has are refused before anything is read. */
static void sizes_past_all_memory(void) {
  const int32_t token = 1;
  fkv_store_options o = FKV_STORE_OPTIONS_INIT;
  fkv_put_options put;
  fkv_store* store = NULL;
  fkv_id id;
  fkv_str endless;
  endless.data = "x";
  endless.size = ~(size_t)0;
  o.url = endless;
  FAILS(FKV_INVALID_ARGUMENT, "url", fkv_store_open(&o, &store, &error));
  endless.size = 1 << 20;
  o.url = endless;
  FAILS(FKV_INVALID_ARGUMENT, "url", fkv_store_open(&o, &store, &error));
  o.url = str("memory:");
  o.mode = FKV_WRITE;
  OK(fkv_store_open(&o, &store, &error));
  memset(&put, 0, sizeof(put));
  put.struct_size = sizeof(put);
  put.model.bytes[0] = 1;
  put.policy = str("test");
  put.document_tokens = &token;
  put.document_token_count = ~(size_t)0;
  FAILS(FKV_INVALID_ARGUMENT, "document_tokens", fkv_store_put(store, &put, &id, &error));
  put.document_token_count = 1;
  put.parameter_count = ~(size_t)0;
  FAILS(FKV_INVALID_ARGUMENT, "parameters", fkv_store_put_id(store, &put, &id, &error));
  put.parameter_count = 0;
  FAILS(FKV_INVALID_ARGUMENT, "ids", fkv_store_export_archive(store, &id, ~(size_t)0, refuse, NULL, &error));
  fkv_store_close(store);
}

static void stores_that_are_none(void) {
  fkv_store_options o = FKV_STORE_OPTIONS_INIT;
  fkv_store* store = NULL;
  fkv_str bad;
  FAILS(FKV_INVALID_ARGUMENT, "name", fkv_store_open(&o, &store, &error));
  o.url = str("tls://host:1");
  FAILS(FKV_UNSUPPORTED, "later version", fkv_store_open(&o, &store, &error));
  o.url = str("http://host");
  FAILS(FKV_INVALID_ARGUMENT, "no such kind", fkv_store_open(&o, &store, &error));
  o.url = str("/nonexistent/store");
  FAILS(FKV_NOT_FOUND, "/nonexistent/store", fkv_store_open(&o, &store, &error));
  bad.data = "a\0b";
  bad.size = 3;
  o.url = bad;
  FAILS(FKV_INVALID_ARGUMENT, "NUL", fkv_store_open(&o, &store, &error));
  bad.data = NULL;
  o.url = bad;
  FAILS(FKV_INVALID_ARGUMENT, "no data", fkv_store_open(&o, &store, &error));
  o.url = str("memory:");
  o.mode = 2;
  FAILS(FKV_INVALID_ARGUMENT, "mode", fkv_store_open(&o, &store, &error));
  o.mode = FKV_READ;
  FAILS(FKV_INVALID_ARGUMENT, "FKV_WRITE", fkv_store_open(&o, &store, &error));
  o.mode = FKV_WRITE;
  o.tenant = str("somebody");
  FAILS(FKV_INVALID_ARGUMENT, "", fkv_store_open(&o, &store, &error));
  CHECK(store == NULL);
}

int main(void) {
  CHECK(fkv_abi_version() == FKV_ABI_VERSION && strlen(fkv_version()) > 0);
  CHECK(strcmp(fkv_code_name(FKV_NOT_FOUND), "not_found") == 0 && strcmp(fkv_code_name(77), "unknown") == 0);
  nothing_at_all();
  what_is_freed_may_be_null();
  structs_of_other_sizes();
  structs_that_are_filled();
  sizes_past_all_memory();
  stores_that_are_none();
  return failures == 0 ? 0 : 1;
}
