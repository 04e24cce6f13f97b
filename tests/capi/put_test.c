/* Sets that the caller brings: they come back as they were, under an id that says what they are. Compiled as C99 and as
 * C++. */
#include <stdint.h>

#include <dlpack/dlpack.h>

#include "tests/capi/check.h"

enum { kDocument = 40, kPrompt = 3, kLayers = 2, kHeads = 2, kDim = 4, kKept = 5, kCount = kHeads * kKept * kDim };

static int32_t document[kDocument];
static int32_t prompt[kPrompt];
static float keys[kLayers][kCount];
static float values[kLayers][kCount];
static const uint32_t origins[kKept] = {0, 3, 4, 30, 39};
static fkv_layer_view layers[kLayers];

static fkv_put_options request(void) {
  fkv_put_options o;
  memset(&o, 0, sizeof(o));
  o.struct_size = sizeof(o);
  memset(o.model.bytes, 7, sizeof(o.model.bytes));
  o.document_tokens = document;
  o.document_token_count = kDocument;
  o.prompt_tokens = prompt;
  o.prompt_token_count = kPrompt;
  o.policy = str("snapkv");
  o.numeric = FKV_REFERENCE;
  o.keep = kKept;
  o.n_layers = kLayers;
  o.n_kv_heads = kHeads;
  o.head_dim = kDim;
  o.origin_rows = 1;
  o.dtype = FKV_F32;
  o.key_form = FKV_ROTATED;
  o.next_position = kDocument;
  o.rotary_dims = kDim;
  o.layers = layers;
  o.storage_dtype = FKV_F32;
  o.label = str("brought");
  return o;
}

static fkv_store* open_store(void) {
  fkv_store_options o = FKV_STORE_OPTIONS_INIT;
  fkv_store* store = NULL;
  o.url = str("memory:");
  o.mode = FKV_WRITE;
  OK(fkv_store_open(&o, &store, &error));
  return store;
}

static void comes_back(fkv_store* store) {
  fkv_put_options o = request();
  fkv_tensor_options t = FKV_TENSOR_OPTIONS_INIT;
  fkv_id id, named;
  fkv_fetch* fetch = NULL;
  fkv_kvset* set = NULL;
  fkv_kvset_info info;
  fkv_entry* entry = NULL;
  fkv_entry_info known;
  DLManagedTensor* tensor = NULL;
  const uint32_t* from = NULL;
  size_t count = 0;
  uint32_t l;
  OK(fkv_store_put_id(store, &o, &named, &error));
  OK(fkv_store_put(store, &o, &id, &error));
  CHECK(memcmp(&id, &named, sizeof(id)) == 0);
  OK(fkv_store_fetch(store, &id, &fetch, &error));
  OK(fkv_fetch_finish(fetch, &set, &error));
  fkv_fetch_free(fetch);
  memset(&info, 0, sizeof(info));
  info.struct_size = sizeof(info);
  OK(fkv_kvset_get_info(set, &info, &error));
  CHECK(info.key_form == FKV_ROTATED && info.next_position == kDocument && info.rope_theta == 10000.0F);
  CHECK(info.rotary_dims == kDim && info.rope_inv_freq[0] == 1.0F && info.rope_inv_freq[1] == 0.01F);
  memset(&known, 0, sizeof(known));
  known.struct_size = sizeof(known);
  OK(fkv_store_find(store, &id, &entry, &error));
  OK(fkv_entry_get_info(entry, &known, &error));
  CHECK(memcmp(&known.model, &o.model, sizeof(known.model)) == 0 && known.weights.bytes[31] == 0);
  CHECK(known.numeric == FKV_REFERENCE && known.provenance == FKV_CLIENT);
  fkv_entry_free(entry);
  for (l = 0; l < kLayers; ++l) {
    t.layer = l;
    t.which = FKV_KEYS;
    OK(fkv_kvset_tensor(set, &t, &tensor, &error));
    CHECK(memcmp(tensor->dl_tensor.data, keys[l], sizeof(keys[l])) == 0);
    tensor->deleter(tensor);
    t.which = FKV_VALUES;
    OK(fkv_kvset_tensor(set, &t, &tensor, &error));
    CHECK(memcmp(tensor->dl_tensor.data, values[l], sizeof(values[l])) == 0);
    tensor->deleter(tensor);
    OK(fkv_kvset_origins(set, l, &from, &count, &error));
    CHECK(count == kKept && memcmp(from, origins, sizeof(origins)) == 0);
  }
  t.which = FKV_KEYS;
  t.rotate = 1; /* they are where they are */
  FAILS(FKV_INVALID_ARGUMENT, "rotated", fkv_kvset_tensor(set, &t, &tensor, &error));
  fkv_kvset_free(set);
}

static void every_part_of_the_name_counts(fkv_store* store) {
  fkv_parameter window;
  fkv_put_options o = request();
  fkv_id id, other;
  OK(fkv_store_put_id(store, &o, &id, &error));
  o.label = str("another label");
  OK(fkv_store_put_id(store, &o, &other, &error));
  CHECK(memcmp(&id, &other, sizeof(id)) == 0);
  window.name = str("window");
  window.value = 64;
  o.parameters = &window;
  o.parameter_count = 1;
  OK(fkv_store_put_id(store, &o, &other, &error));
  CHECK(memcmp(&id, &other, sizeof(id)) != 0);
  o = request();
  o.weights.bytes[31] = 1;
  OK(fkv_store_put_id(store, &o, &other, &error));
  CHECK(memcmp(&id, &other, sizeof(id)) != 0);
  o = request();
  o.prompt_token_count = 2;
  OK(fkv_store_put_id(store, &o, &other, &error));
  CHECK(memcmp(&id, &other, sizeof(id)) != 0);
}

static void what_is_there_stays_unless_replaced(fkv_store* store) {
  fkv_put_options o = request();
  fkv_id id;
  fkv_entry* entry = NULL;
  fkv_entry_info info;
  memset(&info, 0, sizeof(info));
  info.struct_size = sizeof(info);
  o.label = str("later");
  OK(fkv_store_put(store, &o, &id, &error));
  OK(fkv_store_find(store, &id, &entry, &error));
  OK(fkv_entry_get_info(entry, &info, &error));
  CHECK(same(info.label, "brought"));
  fkv_entry_free(entry);
  o.replace = 1;
  OK(fkv_store_put(store, &o, &id, &error));
  OK(fkv_store_find(store, &id, &entry, &error));
  OK(fkv_entry_get_info(entry, &info, &error));
  CHECK(same(info.label, "later"));
  fkv_entry_free(entry);
}

static void what_cannot_be(fkv_store* store) {
  const uint32_t descending[kKept] = {4, 3, 2, 1, 0};
  fkv_parameter twice[2];
  fkv_layer_view bad[kLayers];
  fkv_put_options o = request();
  fkv_id id;
  memset(&o.model, 0, sizeof(o.model));
  FAILS(FKV_INVALID_ARGUMENT, "model is all zero", fkv_store_put(store, &o, &id, &error));
  o = request();
  o.document_token_count = 0;
  FAILS(FKV_INVALID_ARGUMENT, "", fkv_store_put(store, &o, &id, &error));
  o = request();
  o.document_tokens = NULL;
  FAILS(FKV_INVALID_ARGUMENT, "document_tokens is NULL", fkv_store_put(store, &o, &id, &error));
  o = request();
  o.layers = NULL;
  FAILS(FKV_INVALID_ARGUMENT, "layers is NULL", fkv_store_put(store, &o, &id, &error));
  o = request();
  o.n_layers = 0;
  FAILS(FKV_INVALID_ARGUMENT, "n_layers is 0", fkv_store_put(store, &o, &id, &error));
  o = request();
  o.dtype = FKV_Q8;
  FAILS(FKV_INVALID_ARGUMENT, "dtype", fkv_store_put(store, &o, &id, &error));
  o = request();
  o.key_form = 3;
  FAILS(FKV_INVALID_ARGUMENT, "key_form", fkv_store_put(store, &o, &id, &error));
  o = request();
  o.numeric = 9;
  FAILS(FKV_INVALID_ARGUMENT, "numeric", fkv_store_put(store, &o, &id, &error));
  o = request();
  o.storage_dtype = 9;
  FAILS(FKV_INVALID_ARGUMENT, "storage_dtype", fkv_store_put(store, &o, &id, &error));
  o = request();
  o.rotary_dims = 6;
  FAILS(FKV_INVALID_ARGUMENT, "rotary_dims", fkv_store_put(store, &o, &id, &error));
  o = request();
  o.rope_scaling = str("yarn");
  FAILS(FKV_INVALID_ARGUMENT, "rope_inv_freq", fkv_store_put(store, &o, &id, &error));
  o = request();
  twice[0].name = twice[1].name = str("window");
  twice[0].value = twice[1].value = 1;
  o.parameters = twice;
  o.parameter_count = 2;
  FAILS(FKV_INVALID_ARGUMENT, "twice", fkv_store_put(store, &o, &id, &error));
  memcpy(bad, layers, sizeof(bad));
  o = request();
  o.layers = bad;
  bad[1].keys = NULL;
  FAILS(FKV_INVALID_ARGUMENT, "layer 1 has no keys", fkv_store_put(store, &o, &id, &error));
  bad[1] = layers[1];
  bad[1].origins = descending;
  FAILS(FKV_INVALID_ARGUMENT, "not ascending", fkv_store_put(store, &o, &id, &error));
  bad[1].n_kept = kDocument + 1;
  FAILS(FKV_INVALID_ARGUMENT, "41 entries of a document of 40", fkv_store_put(store, &o, &id, &error));
  bad[1] = layers[1];
  o.n_kv_heads = 0;
  FAILS(FKV_INVALID_ARGUMENT, "n_kv_heads is 0", fkv_store_put(store, &o, &id, &error));
  o.n_kv_heads = 0xffffffffu;
  o.head_dim = 0xffffffffu;
  FAILS(FKV_INVALID_ARGUMENT, "addresses", fkv_store_put(store, &o, &id, &error));
  o = request();
  o.layers = bad;
  bad[1].origins = NULL;
  o.origin_rows = 1000000;
  FAILS(FKV_INVALID_ARGUMENT, "origin_rows", fkv_store_put(store, &o, &id, &error));
}

int main(void) {
  fkv_store* store;
  int32_t i, l;
  for (i = 0; i < kDocument; ++i) document[i] = i;
  for (i = 0; i < kPrompt; ++i) prompt[i] = 100 + i;
  for (l = 0; l < kLayers; ++l) {
    for (i = 0; i < kCount; ++i) {
      keys[l][i] = (float)(i * 31 % 17) - 8.5F;
      values[l][i] = (float)(i * 13 % 19) + 0.25F * (float)l;
    }
    layers[l].n_kept = kKept;
    layers[l].keys = keys[l];
    layers[l].values = values[l];
    layers[l].origins = origins;
  }
  store = open_store();
  comes_back(store);
  every_part_of_the_name_counts(store);
  what_is_there_stays_unless_replaced(store);
  what_cannot_be(store);
  fkv_store_close(store);
  return failures == 0 ? 0 : 1;
}
