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
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_put(NULL, NULL, &id, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_store_put_id(NULL, NULL, &id, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_answer_get_info(NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "NULL", fkv_answer_kvset(NULL, NULL, &error));
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
  fkv_answer_free(NULL);
  fkv_error_free(NULL);
  CHECK(fkv_error_code(NULL) == FKV_OK && fkv_error_message(NULL)[0] == 0);
  CHECK(fkv_text_view(NULL).size == 0 && fkv_listing_size(NULL) == 0 && fkv_listing_next(NULL, NULL) == 0);
  CHECK(fkv_tokens_data(NULL, &count) == NULL && count == 0);
  fkv_id_hex(NULL, NULL);
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
  stores_that_are_none();
  return failures == 0 ? 0 : 1;
}
