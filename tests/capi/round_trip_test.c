/* The whole way from C: open, compress, find, fetch, tensors, answer. Compiled as C99 and as C++.
 * usage: round_trip_test MODEL.gguf DIRECTORY (which must not exist) */
#include <stdint.h>
#include <stdlib.h>

#include <dlpack/dlpack.h>

#include "tests/capi/check.h"

enum { kDocument = 300, kPrompt = 12, kKeep = 64, kAnswer = 8 };

static int32_t document[kDocument];
static int32_t prompt[kPrompt];

static int on_progress(void* user, uint64_t read, uint64_t total) {
  ++*(int*)user;
  return read <= total;
}

static int stop_reading(void* user, uint64_t read, uint64_t total) {
  (void)user;
  (void)read;
  (void)total;
  return 0;
}

typedef struct heard {
  fkv_model* model;
  int tokens, refused;
} heard;

/* A callback that asks its own model is told so, and the call goes on; the third token is the last. */
static int on_token(void* user, int32_t token) {
  heard* h = (heard*)user;
  fkv_ask_options inner;
  fkv_id id;
  memset(&inner, 0, sizeof(inner));
  inner.struct_size = sizeof(inner);
  h->refused += fkv_ask_id(h->model, NULL, &inner, &id, NULL) == FKV_INVALID_ARGUMENT && token >= 0;
  return ++h->tokens < 3;
}

static fkv_ask_options request(void) {
  fkv_ask_options o;
  memset(&o, 0, sizeof(o));
  o.struct_size = sizeof(o);
  o.document_tokens = document;
  o.document_token_count = kDocument;
  o.prompt_tokens = prompt;
  o.prompt_token_count = kPrompt;
  o.policy = str("finch");
  o.keep = kKeep;
  o.chunk = 64;
  o.max_tokens = kAnswer;
  o.label = str("a label");
  return o;
}

static fkv_store* open_store(const char* directory, uint32_t mode) {
  fkv_store_options o = FKV_STORE_OPTIONS_INIT;
  fkv_store* store = NULL;
  o.url = str(directory);
  o.mode = mode;
  o.create = mode == FKV_WRITE;
  OK(fkv_store_open(&o, &store, &error));
  return store;
}

static fkv_model* open_model(const char* path) {
  fkv_model_options o = FKV_MODEL_OPTIONS_INIT;
  fkv_model* model = NULL;
  o.path = str(path);
  o.compute = str("f32");
  OK(fkv_model_open(&o, &model, &error));
  return model;
}

static DLManagedTensor* tensor_of(const fkv_kvset* set, uint32_t which, uint32_t head, uint32_t rotate, uint32_t order,
                                  uint64_t base) {
  fkv_tensor_options o = FKV_TENSOR_OPTIONS_INIT;
  DLManagedTensor* tensor = NULL;
  o.layer = 1;
  o.which = which;
  o.head = head;
  o.rotate = rotate;
  o.order = order;
  o.base_position = base;
  OK(fkv_kvset_tensor(set, &o, &tensor, &error));
  return tensor;
}

static float at(const DLManagedTensor* t, int64_t i) { return ((const float*)t->dl_tensor.data)[i]; }

static void check_tensors(const fkv_kvset* set, int64_t heads, int64_t d) {
  DLManagedTensor* values = tensor_of(set, FKV_VALUES, FKV_ALL_HEADS, 0, FKV_ORDER_AS_STORED, 0);
  DLManagedTensor* again = tensor_of(set, FKV_VALUES, FKV_ALL_HEADS, 0, FKV_ORDER_AS_STORED, 0);
  DLManagedTensor* keys = tensor_of(set, FKV_KEYS, FKV_ALL_HEADS, 0, FKV_ORDER_AS_STORED, 0);
  DLManagedTensor* head = tensor_of(set, FKV_KEYS, 1, 0, FKV_ORDER_AS_STORED, 0);
  DLManagedTensor* turned = tensor_of(set, FKV_KEYS, FKV_ALL_HEADS, 1, FKV_ORDER_AS_STORED, 0);
  DLManagedTensor* halves = tensor_of(set, FKV_KEYS, FKV_ALL_HEADS, 0, FKV_HALF_SPLIT, 0);
  fkv_kvset_info info;
  int64_t i;
  double norm = 0, turned_norm = 0;
  memset(&info, 0, sizeof(info));
  info.struct_size = sizeof(info);
  OK(fkv_kvset_get_info(set, &info, &error));
  CHECK(values->dl_tensor.ndim == 3 && values->dl_tensor.shape[0] == heads && values->dl_tensor.shape[1] == kKeep);
  CHECK(values->dl_tensor.shape[2] == d && values->dl_tensor.dtype.code == kDLFloat);
  CHECK(values->dl_tensor.data == again->dl_tensor.data); /* no copy */
  CHECK(head->dl_tensor.ndim == 2 && head->dl_tensor.shape[0] == kKeep);
  for (i = 0; i < kKeep * d; ++i) CHECK(at(head, i) == at(keys, kKeep * d + i));
  /* Position 0 turns nothing; further on keys change and keep their length. */
  for (i = 0; i < d; ++i) CHECK(at(turned, i) == at(keys, i));
  for (i = 0; i < d; ++i) {
    norm += (double)at(keys, 9 * d + i) * at(keys, 9 * d + i);
    turned_norm += (double)at(turned, 9 * d + i) * at(turned, 9 * d + i);
  }
  CHECK(norm > 0 && turned_norm / norm > 0.9999 && turned_norm / norm < 1.0001);
  CHECK(at(turned, 9 * d) != at(keys, 9 * d));
  for (i = 0; i < (int64_t)info.rotary_dims / 2; ++i) {
    CHECK(at(halves, i) == at(keys, info.rope_interleaved ? 2 * i : i));
  }
  values->deleter(values);
  again->deleter(again);
  keys->deleter(keys);
  head->deleter(head);
  turned->deleter(turned);
  halves->deleter(halves);
}

/* Ids come back as they were given; of texts this model has none (bindings/python/tests/test_store.py has one that
 * does). */
static void check_ask_tokens(fkv_model* model) {
  fkv_ask_options ask;
  fkv_tokens *read = NULL, *asked = NULL;
  const int32_t* ids;
  size_t count = 0;
  memset(&ask, 0, sizeof(ask));
  ask.struct_size = sizeof(ask);
  FAILS(FKV_INVALID_ARGUMENT, "the prompt is empty", fkv_ask_tokens(model, &ask, NULL, &asked, &error));
  ask.prompt = str("who?");
  FAILS(FKV_INVALID_ARGUMENT, "the document is empty", fkv_ask_tokens(model, &ask, &read, &asked, &error));
  FAILS(FKV_UNSUPPORTED, "no merges", fkv_ask_tokens(model, &ask, NULL, &asked, &error));
  CHECK(read == NULL && asked == NULL);
  ask = request();
  OK(fkv_ask_tokens(model, &ask, &read, &asked, &error));
  ids = fkv_tokens_data(read, &count);
  CHECK(count == kDocument && memcmp(ids, document, sizeof(document)) == 0);
  ids = fkv_tokens_data(asked, &count);
  CHECK(count == kPrompt && memcmp(ids, prompt, sizeof(prompt)) == 0);
  fkv_tokens_free(read);
  fkv_tokens_free(asked);
  OK(fkv_ask_tokens(model, &ask, &read, NULL, &error));
  fkv_tokens_free(read);
}

int main(int argc, char** argv) {
  fkv_model* model;
  fkv_store* store;
  fkv_store* reader;
  fkv_answer* first = NULL;
  fkv_answer* second = NULL;
  fkv_answer_info one, two;
  fkv_ask_options ask;
  fkv_entry* entry = NULL;
  fkv_entry_info info;
  fkv_listing* listing = NULL;
  fkv_fetch* fetch = NULL;
  fkv_kvset* set = NULL;
  fkv_kvset* layer = NULL;
  const uint32_t* origins = NULL;
  size_t count = 0, i;
  int calls = 0;
  fkv_id id, resolved;
  char hex[64];
  if (argc != 3) return 2;
  for (i = 0; i < kDocument; ++i) document[i] = (int32_t)(3 + (i * 37) % 250);
  for (i = 0; i < kPrompt; ++i) prompt[i] = (int32_t)(5 + (i * 11) % 250);

  model = open_model(argv[1]);
  check_ask_tokens(model);
  store = open_store(argv[2], FKV_WRITE);
  ask = request();
  ask.on_progress = on_progress;
  ask.user = &calls;
  OK(fkv_ask(model, store, &ask, &first, &error));
  OK(fkv_ask(model, store, &ask, &second, &error));
  memset(&one, 0, sizeof(one));
  one.struct_size = sizeof(one);
  two = one;
  OK(fkv_answer_get_info(first, &one, &error));
  OK(fkv_answer_get_info(second, &two, &error));
  CHECK(calls > 2);
  CHECK(!one.hit && two.hit && one.token_count == two.token_count && one.token_count > 0);
  CHECK(memcmp(one.tokens, two.tokens, one.token_count * sizeof(int32_t)) == 0);
  CHECK(memcmp(&one.id, &two.id, sizeof(fkv_id)) == 0);
  id = one.id;
  OK(fkv_ask_id(model, store, &ask, &resolved, &error));
  CHECK(memcmp(&resolved, &id, sizeof(id)) == 0);

  memset(&info, 0, sizeof(info));
  info.struct_size = sizeof(info);
  reader = open_store(argv[2], FKV_READ); /* beside the writer */
  OK(fkv_store_find(reader, &id, &entry, &error));
  OK(fkv_entry_get_info(entry, &info, &error));
  CHECK(same(info.label, "a label") && same(info.policy, "finch") && info.max_kept == kKeep);
  CHECK(info.doc_tokens == kDocument && info.key_form == FKV_PRE_ROPE && info.dtype == FKV_F32);
  fkv_id_hex(&id, hex);
  {
    fkv_str prefix;
    prefix.data = hex;
    prefix.size = 8;
    OK(fkv_store_resolve(reader, prefix, &resolved, &error));
    CHECK(memcmp(&resolved, &id, sizeof(id)) == 0);
  }
  OK(fkv_store_list(reader, NULL, 10, &listing, &error));
  CHECK(fkv_listing_size(listing) == 1 && fkv_listing_next(listing, &resolved) == 0);
  OK(fkv_store_verify(reader, &id, &error));

  OK(fkv_store_fetch(reader, &id, &fetch, &error));
  OK(fkv_fetch_layer(fetch, 0, &layer, &error));
  OK(fkv_fetch_finish(fetch, &set, &error));
  fkv_fetch_free(fetch);
  fkv_store_close(reader);
  FAILS(FKV_PERMISSION_DENIED, "", (reader = open_store(argv[2], FKV_READ), fkv_store_remove(reader, &id, &error)));
  fkv_store_close(reader);
  OK(fkv_store_remove(store, &id, &error));
  fkv_entry_free(entry);
  FAILS(FKV_NOT_FOUND, "", fkv_store_find(store, &id, &entry, &error));
  CHECK(entry == NULL); /* what a failed call would have returned */
  fkv_store_close(store);
  /* A fetched set outlives entry and store. */
  check_tensors(set, info.n_kv_heads, info.head_dim);
  OK(fkv_kvset_origins(layer, 0, &origins, &count, &error));
  CHECK(count == (size_t)info.origin_rows * kKeep);
  for (i = 1; i < kKeep; ++i) CHECK(origins[i] > origins[i - 1]);

  /* Stopping: by a callback, and by a flag. */
  {
    const int32_t some[2] = {7, 9};
    const int32_t none_of_them = 1 << 30;
    heard h;
    double mean = 1;
    h.model = model;
    h.tokens = h.refused = 0;
    ask = request();
    ask.on_token = on_token;
    ask.user = &h;
    fkv_answer_free(second);
    second = NULL;
    OK(fkv_ask(model, NULL, &ask, &second, &error));
    OK(fkv_answer_get_info(second, &two, &error));
    CHECK(h.tokens == 3 && h.refused == 3 && two.token_count == 3 && !two.ended);
    ask = request();
    OK(fkv_score(model, NULL, &ask, some, 2, &mean, &error));
    CHECK(mean < 0);
    FAILS(FKV_INVALID_ARGUMENT, "outside the vocabulary", fkv_score(model, NULL, &ask, &none_of_them, 1, &mean, &error));
    FAILS(FKV_INVALID_ARGUMENT, "none", fkv_score(model, NULL, &ask, some, 0, &mean, &error));
  }
  {
    const volatile int32_t cancel = 1;
    volatile double zero = 0;
    fkv_answer* none = NULL;
    ask = request();
    ask.on_progress = stop_reading;
    FAILS(FKV_UNAVAILABLE, "", fkv_compress(model, NULL, &ask, &none, &error));
    ask = request();
    ask.cancel = &cancel;
    FAILS(FKV_UNAVAILABLE, "", fkv_compress(model, NULL, &ask, &none, &error));
    CHECK(none == NULL);
    ask.temperature = 0.0 / zero;
    FAILS(FKV_INVALID_ARGUMENT, "temperature", fkv_ask(model, NULL, &ask, &none, &error));
    ask = request();
    ask.keep = 0;
    ask.ratio = 0.0 / zero;
    FAILS(FKV_INVALID_ARGUMENT, "ratio", fkv_ask(model, NULL, &ask, &none, &error));
  }
  fkv_answer_free(first);
  fkv_answer_free(second);
  fkv_listing_free(listing);
  fkv_kvset_free(layer);
  fkv_kvset_free(set);
  fkv_model_close(model);
  return failures == 0 ? 0 : 1;
}
