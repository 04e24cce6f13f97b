/* Threads that ask, put, list, look up, fetch and remove on one store, in any order, and free what they got in any
 * order, after the store too. Built for the thread sanitizer, true without it. usage: threads_test MODEL.gguf DIRECTORY
 * (which must not exist). Compiled as C99 and as C++. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "tests/capi/sets.h"

enum { kThreads = 6, kSteps = 60, kSets = 8, kHeld = 4 };

typedef struct worker {
  uint32_t random;
  fkv_store* store;
  fkv_model* model;
  const fkv_id* ids; /* [kSets] */
  fkv_kvset* held[kHeld];
  uint32_t held_is[kHeld];
  uint32_t asked, fetched, gone;
  int failed;
} worker;

static uint32_t draw(worker* w, uint32_t below) {
  w->random = w->random * 1664525u + 1013904223u;
  return (w->random >> 8) % below;
}

static void expect(worker* w, int ok, const char* what) {
  if (ok) return;
  w->failed = 1;
  fprintf(stderr, "%s\n", what);
}

/* Remembers a set and frees the one in whose place it comes. */
static void hold(worker* w, fkv_kvset* set, uint32_t n) {
  const uint32_t place = draw(w, kHeld);
  if (w->held[place] != NULL) expect(w, is_set(w->held[place], w->held_is[place]), "a held set changed");
  fkv_kvset_free(w->held[place]);
  w->held[place] = set;
  w->held_is[place] = n;
}

static void fetch(worker* w, int by_layers) {
  const uint32_t n = draw(w, kSets);
  fkv_fetch* on_the_way = NULL;
  fkv_kvset* set = NULL;
  fkv_code code = fkv_store_fetch(w->store, &w->ids[n], &on_the_way, NULL);
  uint32_t layer;
  if (code == FKV_NOT_FOUND) { /* another thread removed it */
    ++w->gone;
    return;
  }
  expect(w, code == FKV_OK, "a fetch failed");
  for (layer = 0; by_layers && code == FKV_OK && layer < kSetLayers; ++layer) {
    fkv_kvset* one = NULL;
    code = fkv_fetch_layer(on_the_way, layer, &one, NULL);
    expect(w, code == FKV_OK, "a layer failed");
    fkv_kvset_free(one);
  }
  if (code == FKV_OK) code = fkv_fetch_finish(on_the_way, &set, NULL);
  expect(w, code == FKV_OK, "a fetch did not finish");
  fkv_fetch_free(on_the_way);
  if (code != FKV_OK) return;
  ++w->fetched;
  expect(w, is_set(set, n), "a fetched set is another");
  hold(w, set, n);
}

static void ask(worker* w) {
  int32_t document[40], prompt[4];
  const int32_t first = (int32_t)draw(w, 4);
  fkv_ask_options o;
  fkv_answer* answer = NULL;
  fkv_code code;
  int32_t i;
  for (i = 0; i < 40; ++i) document[i] = (i * 7 + first) % 200;
  for (i = 0; i < 4; ++i) prompt[i] = 20 + i;
  memset(&o, 0, sizeof(o));
  o.struct_size = sizeof(o);
  o.document_tokens = document;
  o.document_token_count = 40;
  o.prompt_tokens = prompt;
  o.prompt_token_count = 4;
  o.keep = 12;
  o.chunk = 20;
  o.max_tokens = 2;
  code = fkv_ask(w->model, w->store, &o, &answer, NULL);
  expect(w, code == FKV_OK, "asking failed");
  fkv_answer_free(answer);
  ++w->asked;
}

static void list(worker* w) {
  fkv_listing* listing = NULL;
  fkv_entry_info info;
  size_t i;
  expect(w, fkv_store_list(w->store, NULL, 5, &listing, NULL) == FKV_OK, "listing failed");
  for (i = 0; i < fkv_listing_size(listing); ++i) {
    memset(&info, 0, sizeof(info));
    info.struct_size = sizeof(info);
    expect(w, fkv_listing_get_info(listing, i, &info, NULL) == FKV_OK && info.max_kept != 0, "a listed entry is none");
  }
  fkv_listing_free(listing);
}

static void* work(void* argument) {
  worker* w = (worker*)argument;
  int step;
  for (step = 0; step < kSteps; ++step) {
    const uint32_t n = draw(w, kSets);
    const uint32_t what = draw(w, 12);
    fkv_code code;
    fkv_id id;
    if (what < 4) {
      fetch(w, what < 2);
    } else if (what == 4) {
      ask(w);
    } else if (what < 7) {
      list(w);
    } else if (what < 9) {
      code = put_set(w->store, n, &id, NULL);
      expect(w, code == FKV_OK && memcmp(&id, &w->ids[n], sizeof(id)) == 0, "a put failed");
    } else if (what == 9) {
      code = fkv_store_remove(w->store, &w->ids[n], NULL);
      expect(w, code == FKV_OK || code == FKV_NOT_FOUND, "removing failed");
    } else if (what == 10) {
      fkv_entry* entry = NULL;
      code = fkv_store_find(w->store, &w->ids[n], &entry, NULL);
      expect(w, code == FKV_OK || code == FKV_NOT_FOUND, "finding failed");
      fkv_entry_free(entry);
    } else {
      code = fkv_store_set_label(w->store, &w->ids[n], str("labelled"), NULL);
      expect(w, code == FKV_OK || code == FKV_NOT_FOUND, "labelling failed");
    }
  }
  return NULL;
}

int main(int argc, char** argv) {
  fkv_store_options o = FKV_STORE_OPTIONS_INIT;
  fkv_model_options m = FKV_MODEL_OPTIONS_INIT;
  fkv_store* store = NULL;
  fkv_model* model = NULL;
  pthread_t threads[kThreads];
  worker workers[kThreads];
  fkv_id ids[kSets];
  uint32_t i, place, asked = 0, fetched = 0, held = 0;
  if (argc != 3) return 2;
  o.url = str(argv[2]);
  o.mode = FKV_WRITE;
  o.create = 1;
  OK(fkv_store_open(&o, &store, &error));
  m.path = str(argv[1]);
  m.compute = str("f32");
  m.threads = 2;
  m.device = str("cpu");
  OK(fkv_model_open(&m, &model, &error));
  for (i = 0; i < kSets; ++i) OK(put_set(store, i, &ids[i], &error));
  memset(workers, 0, sizeof(workers));
  for (i = 0; i < kThreads; ++i) {
    workers[i].random = i + 1;
    workers[i].store = store;
    workers[i].model = model;
    workers[i].ids = ids;
    CHECK(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
  }
  for (i = 0; i < kThreads; ++i) CHECK(pthread_join(threads[i], NULL) == 0);
  fkv_store_close(store); /* what was fetched outlives it */
  fkv_model_close(model);
  for (i = 0; i < kThreads; ++i) {
    CHECK(!workers[i].failed);
    asked += workers[i].asked;
    fetched += workers[i].fetched;
    for (place = 0; place < kHeld; ++place) {
      if (workers[i].held[place] == NULL) continue;
      ++held;
      CHECK(is_set(workers[i].held[place], workers[i].held_is[place]));
      fkv_kvset_free(workers[i].held[place]);
    }
  }
  printf("%u asked, %u fetched, %u sets outlived the store\n", asked, fetched, held);
  CHECK(asked > 0 && fetched > kThreads && held > 0);
  return failures == 0 ? 0 : 1;
}
