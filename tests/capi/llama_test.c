/* Sets as llama.cpp's sequence states, stored and taken back, and models that they are not of. usage: llama_test
 * MODEL.gguf OTHER.gguf OTHER_SHAPE.gguf. Compiled as C99 and as C++. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/capi/check.h"

enum { kDocument = 60, kPrompt = 4, kKeep = 16 };

static int32_t document[kDocument];
static int32_t prompt[kPrompt];

static fkv_model* open_model(const char* path) {
  fkv_model_options o = FKV_MODEL_OPTIONS_INIT;
  fkv_model* model = NULL;
  o.path = str(path);
  o.compute = str("f32");
  o.threads = 1;
  o.device = str("cpu");
  OK(fkv_model_open(&o, &model, &error));
  return model;
}

static fkv_kvset* read_document(fkv_model* model, fkv_store* store, fkv_id* id) {
  fkv_ask_options o;
  fkv_answer* answer = NULL;
  fkv_answer_info info;
  fkv_kvset* set = NULL;
  memset(&o, 0, sizeof(o));
  o.struct_size = sizeof(o);
  o.document_tokens = document;
  o.document_token_count = kDocument;
  o.prompt_tokens = prompt;
  o.prompt_token_count = kPrompt;
  o.keep = kKeep;
  o.chunk = 32;
  o.storage_dtype = FKV_F32;
  OK(fkv_compress(model, store, &o, &answer, &error));
  memset(&info, 0, sizeof(info));
  info.struct_size = sizeof(info);
  OK(fkv_answer_get_info(answer, &info, &error));
  *id = info.id;
  OK(fkv_answer_kvset(answer, &set, &error));
  fkv_answer_free(answer);
  return set;
}

/* A state is stored as it is, under the model's name, and comes back as the same bytes. */
static void goes_in_and_out(fkv_model* model, fkv_store* store, const fkv_kvset* set, fkv_id* id) {
  fkv_llama_options o = FKV_LLAMA_OPTIONS_INIT;
  fkv_llama_source source;
  fkv_put_options put;
  fkv_bytes *file = NULL, *again = NULL;
  fkv_kvset *read = NULL, *stored = NULL;
  fkv_tokens* tokens = NULL;
  fkv_fetch* fetch = NULL;
  fkv_kvset_info info;
  uint64_t next = 0;
  size_t size = 0, again_size = 1, count = 0;
  const void* bytes;
  o.file = 1;
  o.document_tokens = document;
  o.document_token_count = kDocument;
  o.transposed_values = 1;
  OK(fkv_kvset_to_llama_state(set, &o, &file, &next, &error));
  CHECK(next == kKeep);
  bytes = fkv_bytes_data(file, &size);
  CHECK(size > 4 && memcmp(bytes, "qsgg", 4) == 0);

  memset(&source, 0, sizeof(source));
  source.struct_size = sizeof(source);
  source.model = model;
  OK(fkv_kvset_from_llama_state(bytes, size, &source, &read, &tokens, &error));
  memset(&info, 0, sizeof(info));
  info.struct_size = sizeof(info);
  OK(fkv_kvset_get_info(read, &info, &error));
  CHECK(info.key_form == FKV_ROTATED && info.dtype == FKV_F16 && info.next_position == kKeep);
  (void)fkv_tokens_data(tokens, &count);
  CHECK(count == kKeep);

  memset(&put, 0, sizeof(put));
  put.struct_size = sizeof(put);
  memset(put.model.bytes, 9, sizeof(put.model.bytes));
  put.document_tokens = fkv_tokens_data(tokens, NULL);
  put.document_token_count = count;
  put.policy = str("full");
  put.numeric = FKV_FAST;
  put.keep = count;
  put.storage_dtype = FKV_F16;
  put.set = read;
  OK(fkv_store_put(store, &put, id, &error));
  OK(fkv_store_fetch(store, id, &fetch, &error));
  OK(fkv_fetch_finish(fetch, &stored, &error));
  o.document_tokens = NULL;
  o.document_token_count = 0;
  o.tokens = fkv_tokens_data(tokens, &o.token_count);
  OK(fkv_kvset_to_llama_state(stored, &o, &again, NULL, &error));
  CHECK(fkv_bytes_data(again, &again_size) != NULL && again_size == size);
  CHECK(again_size == size && memcmp(fkv_bytes_data(again, NULL), bytes, size) == 0);
  fkv_bytes_free(again);
  fkv_bytes_free(file);
  fkv_fetch_free(fetch);
  fkv_kvset_free(stored);
  fkv_kvset_free(read);
  fkv_tokens_free(tokens);
}

static void what_does_not_belong_together(fkv_model* model, fkv_model* other, fkv_store* store, const fkv_kvset* set,
                                          const fkv_id* own, const fkv_id* brought) {
  fkv_llama_options o = FKV_LLAMA_OPTIONS_INIT;
  fkv_llama_source source;
  fkv_bytes* state = NULL;
  fkv_kvset* read = NULL;
  fkv_entry* entry = NULL;
  size_t size = 0;
  OK(fkv_store_find(store, own, &entry, &error));
  OK(fkv_entry_check_model(entry, model, &error));
  FAILS(FKV_INVALID_ARGUMENT, "its keys turn by theta", fkv_entry_check_model(entry, other, &error));
  FAILS(FKV_INVALID_ARGUMENT, "model is NULL", fkv_entry_check_model(entry, NULL, &error));
  fkv_entry_free(entry);
  FAILS(FKV_INVALID_ARGUMENT, "entry is NULL", fkv_entry_check_model(NULL, model, &error));
  OK(fkv_store_find(store, brought, &entry, &error));
  FAILS(FKV_INVALID_ARGUMENT, "configuration", fkv_entry_check_model(entry, model, &error));
  fkv_entry_free(entry);

  OK(fkv_kvset_to_llama_state(set, &o, &state, NULL, &error));
  (void)fkv_bytes_data(state, &size);
  memset(&source, 0, sizeof(source));
  source.struct_size = sizeof(source);
  FAILS(FKV_INVALID_ARGUMENT, "0 layers",
        fkv_kvset_from_llama_state(fkv_bytes_data(state, NULL), size, &source, &read, NULL, &error));
  source.n_layers = 99;
  source.n_kv_heads = 1;
  source.head_dim = 64;
  FAILS(FKV_INVALID_ARGUMENT, "the model has 99",
        fkv_kvset_from_llama_state(fkv_bytes_data(state, NULL), size, &source, &read, NULL, &error));
  source.rotary_dims = 65;
  FAILS(FKV_INVALID_ARGUMENT, "rotary_dims",
        fkv_kvset_from_llama_state(fkv_bytes_data(state, NULL), size, &source, &read, NULL, &error));
  source.model = model;
  FAILS(FKV_CORRUPT, "ends before",
        fkv_kvset_from_llama_state(fkv_bytes_data(state, NULL), size - 1, &source, &read, NULL, &error));
  source.token_count = 3;
  FAILS(FKV_INVALID_ARGUMENT, "tokens is NULL",
        fkv_kvset_from_llama_state(fkv_bytes_data(state, NULL), size, &source, &read, NULL, &error));
  CHECK(read == NULL);
  fkv_bytes_free(state);
}

/* A copy of a model file with one byte changed: where it is counted from the end (at < 0), or behind a key's name. */
static fkv_model* open_changed(const char* from, const char* to, const char* key, long at) {
  FILE* in = fopen(from, "rb");
  FILE* out = fopen(to, "wb");
  unsigned char* bytes = NULL;
  long size = 0, place;
  fkv_model* model = NULL;
  CHECK(in != NULL && out != NULL);
  if (in == NULL || out == NULL) return NULL;
  (void)fseek(in, 0, SEEK_END);
  size = ftell(in);
  rewind(in);
  bytes = (unsigned char*)malloc((size_t)size);
  CHECK(bytes != NULL && fread(bytes, 1, (size_t)size, in) == (size_t)size);
  place = size + at;
  if (key != NULL) {
    const long length = (long)strlen(key);
    for (place = 0; place + length < size && memcmp(bytes + place, key, (size_t)length) != 0; ++place) {
    }
    place += length + at;
  }
  bytes[place] = (unsigned char)(bytes[place] == 'q' ? 'z' : 'q');
  CHECK(fwrite(bytes, 1, (size_t)size, out) == (size_t)size);
  (void)fclose(in);
  CHECK(fclose(out) == 0);
  free(bytes);
  model = open_model(to);
  (void)remove(to);
  return model;
}

/* The same shape, and one weight or one piece of the tokenizer is another; and another shape. */
static void other_weights_and_another_tokenizer_are_named(fkv_store* store, const fkv_id* own, const char* path,
                                                          const char* other_shape) {
#ifdef __cplusplus
  const char* changed = "llama_test_cxx_changed.gguf";
#else
  const char* changed = "llama_test_c99_changed.gguf";
#endif
  fkv_entry* entry = NULL;
  fkv_model* model = open_changed(path, changed, NULL, -1);
  OK(fkv_store_find(store, own, &entry, &error));
  FAILS(FKV_INVALID_ARGUMENT, "the weights are others", fkv_entry_check_model(entry, model, &error));
  fkv_model_close(model);
  /* Behind the key: the value's type, the elements' type, their number and the first one's length. */
  model = open_changed(path, changed, "tokenizer.ggml.tokens", 4 + 4 + 8 + 8);
  FAILS(FKV_INVALID_ARGUMENT, "another tokenizer", fkv_entry_check_model(entry, model, &error));
  fkv_model_close(model);
  model = open_model(other_shape);
  FAILS(FKV_INVALID_ARGUMENT, "KV heads of", fkv_entry_check_model(entry, model, &error));
  fkv_model_close(model);
  fkv_entry_free(entry);
}

static void what_cannot_be(const fkv_kvset* set) {
  fkv_llama_options o = FKV_LLAMA_OPTIONS_INIT;
  fkv_llama_source source;
  fkv_bytes* state = NULL;
  fkv_kvset* read = NULL;
  memset(&source, 0, sizeof(source));
  source.struct_size = sizeof(source);
  FAILS(FKV_INVALID_ARGUMENT, "set is NULL", fkv_kvset_to_llama_state(NULL, &o, &state, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "state is NULL", fkv_kvset_to_llama_state(set, &o, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "fkv_llama_options is NULL", fkv_kvset_to_llama_state(set, NULL, &state, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "state is NULL", fkv_kvset_from_llama_state(NULL, 0, &source, &read, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "set is NULL", fkv_kvset_from_llama_state("", 0, &source, NULL, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "fkv_llama_source is NULL", fkv_kvset_from_llama_state("", 0, NULL, &read, NULL, &error));
  o.dtype = FKV_Q8;
  FAILS(FKV_INVALID_ARGUMENT, "dtype", fkv_kvset_to_llama_state(set, &o, &state, NULL, &error));
  o.dtype = FKV_BF16;
  o.order = 3;
  FAILS(FKV_INVALID_ARGUMENT, "order", fkv_kvset_to_llama_state(set, &o, &state, NULL, &error));
  o.order = FKV_ORDER_AS_STORED;
  o.tokens = document;
  o.token_count = kKeep;
  FAILS(FKV_INVALID_ARGUMENT, "set file to 1", fkv_kvset_to_llama_state(set, &o, &state, NULL, &error));
  o.file = 1;
  o.document_tokens = document;
  o.document_token_count = kDocument;
  FAILS(FKV_INVALID_ARGUMENT, "one of them", fkv_kvset_to_llama_state(set, &o, &state, NULL, &error));
  o.token_count = 0;
  o.document_token_count = 3;
  FAILS(FKV_INVALID_ARGUMENT, "made from 60 tokens", fkv_kvset_to_llama_state(set, &o, &state, NULL, &error));
  o.document_tokens = NULL;
  FAILS(FKV_INVALID_ARGUMENT, "document_tokens is NULL", fkv_kvset_to_llama_state(set, &o, &state, NULL, &error));
  CHECK(state == NULL && read == NULL);
  fkv_bytes_free(NULL);
  CHECK(fkv_bytes_data(NULL, NULL) == NULL);
}

static void documents_are_there(fkv_store* store, const fkv_id* own) {
  fkv_tokens* tokens = NULL;
  size_t count = 0;
  fkv_id absent;
  memset(&absent, 1, sizeof(absent));
  OK(fkv_store_document_tokens(store, own, &tokens, &error));
  CHECK(memcmp(fkv_tokens_data(tokens, &count), document, sizeof(document)) == 0 && count == kDocument);
  fkv_tokens_free(tokens);
  FAILS(FKV_NOT_FOUND, "0101", fkv_store_document_tokens(store, &absent, &tokens, &error));
  CHECK(tokens == NULL);
  FAILS(FKV_INVALID_ARGUMENT, "tokens is NULL", fkv_store_document_tokens(store, own, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "store is NULL", fkv_store_document_tokens(NULL, own, &tokens, &error));
}

int main(int argc, char** argv) {
  fkv_store_options o = FKV_STORE_OPTIONS_INIT;
  fkv_store* store = NULL;
  fkv_model *model, *other;
  fkv_kvset* set;
  fkv_id own, brought;
  int32_t i;
  if (argc != 4) return 2;
  for (i = 0; i < kDocument; ++i) document[i] = (i * 37 + 11) % 200;
  for (i = 0; i < kPrompt; ++i) prompt[i] = 5 + i;
  o.url = str("memory:");
  o.mode = FKV_WRITE;
  OK(fkv_store_open(&o, &store, &error));
  model = open_model(argv[1]);
  other = open_model(argv[2]);
  set = read_document(model, store, &own);
  goes_in_and_out(model, store, set, &brought);
  what_does_not_belong_together(model, other, store, set, &own, &brought);
  other_weights_and_another_tokenizer_are_named(store, &own, argv[1], argv[3]);
  what_cannot_be(set);
  documents_are_there(store, &own);
  fkv_kvset_free(set);
  fkv_model_close(model);
  fkv_model_close(other);
  fkv_store_close(store);
  return failures == 0 ? 0 : 1;
}
