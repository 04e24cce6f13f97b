/* Puts numbered sets into a store and says the id of each as soon as it is stored; runs at most kAhead sets ahead of
 * whoever answers each with one byte. usage: writer DIRECTORY COUNT */
#include <stdlib.h>

#include "tests/capi/sets.h"

enum { kAhead = 8 };

int main(int argc, char** argv) {
  fkv_store_options o = FKV_STORE_OPTIONS_INIT;
  fkv_store* store = NULL;
  uint32_t n, count;
  if (argc != 3) return 2;
  count = (uint32_t)strtoul(argv[2], NULL, 10);
  o.url = str(argv[1]);
  o.mode = FKV_WRITE;
  o.create = 1;
  OK(fkv_store_open(&o, &store, &error));
  for (n = 0; failures == 0 && n < count; ++n) {
    fkv_id id;
    char hex[64];
    if (n >= kAhead && getchar() == EOF) break;
    OK(put_set(store, n, &id, &error));
    fkv_id_hex(&id, hex);
    printf("%u %.64s\n", n, hex);
    fflush(stdout);
  }
  fkv_store_close(store);
  return failures == 0 && n == count ? 0 : 1;
}
