/* Small sets that say by their numbers which they are, put and checked. */
#ifndef FINCHKV_TESTS_CAPI_SETS_H
#define FINCHKV_TESTS_CAPI_SETS_H

#include <dlpack/dlpack.h>

#include "tests/capi/check.h"

enum { kSetLayers = 3, kSetHeads = 2, kSetDim = 8, kSetKept = 16, kSetDocument = 64 };
enum { kSetNumbers = kSetHeads * kSetKept * kSetDim };

/* Number i of set n's keys in a layer; values are the negative. */
static inline float set_number(uint32_t n, uint32_t layer, uint32_t i) {
  return (float)((n * 131 + layer * 17 + i * 7) % 4096) / 16.0F;
}

/* Stores set n; two calls with the same n name the same entry. */
static inline fkv_code put_set(fkv_store* store, uint32_t n, fkv_id* id, fkv_error** error) {
  float keys[kSetLayers][kSetNumbers], values[kSetLayers][kSetNumbers];
  int32_t document[kSetDocument];
  fkv_layer_view layers[kSetLayers];
  fkv_put_options o;
  uint32_t l, i;
  for (i = 0; i < kSetDocument; ++i) document[i] = (int32_t)(n + i);
  memset(layers, 0, sizeof(layers));
  for (l = 0; l < kSetLayers; ++l) {
    for (i = 0; i < kSetNumbers; ++i) {
      keys[l][i] = set_number(n, l, i);
      values[l][i] = -keys[l][i];
    }
    layers[l].n_kept = kSetKept;
    layers[l].keys = keys[l];
    layers[l].values = values[l];
  }
  memset(&o, 0, sizeof(o));
  o.struct_size = sizeof(o);
  memset(o.model.bytes, 7, sizeof(o.model.bytes));
  o.document_tokens = document;
  o.document_token_count = kSetDocument;
  o.policy = str("test");
  o.keep = kSetKept;
  o.n_layers = kSetLayers;
  o.n_kv_heads = kSetHeads;
  o.head_dim = kSetDim;
  o.origin_rows = 1;
  o.key_form = FKV_ROTATED;
  o.next_position = kSetDocument;
  o.layers = layers;
  o.storage_dtype = FKV_F32;
  return fkv_store_put(store, &o, id, error);
}

/* 1 when the set is n, every number of it. */
static inline int is_set(const fkv_kvset* set, uint32_t n) {
  fkv_tensor_options t = FKV_TENSOR_OPTIONS_INIT;
  int same = 1;
  uint32_t i;
  for (t.layer = 0; t.layer < kSetLayers; ++t.layer) {
    for (t.which = FKV_KEYS; t.which <= FKV_VALUES; ++t.which) {
      DLManagedTensor* tensor = NULL;
      const float* data;
      if (fkv_kvset_tensor(set, &t, &tensor, NULL) != FKV_OK) return 0;
      data = (const float*)tensor->dl_tensor.data;
      for (i = 0; i < kSetNumbers; ++i) {
        const float expected = set_number(n, t.layer, i);
        same = same && data[i] == (t.which == FKV_KEYS ? expected : -expected);
      }
      tensor->deleter(tensor);
    }
  }
  return same;
}

#endif
