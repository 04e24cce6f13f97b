/* 10,000 times from 8 threads: open the store, fetch an entry, read it, release everything. The process must not grow.
 * usage: cycles_test DIRECTORY (which must not exist) [CYCLES]. Compiled as C99 and as C++. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/capi/sets.h"

enum { kThreads = 8, kSets = 16 };

static const char* directory;
static fkv_id ids[kSets];

typedef struct worker {
  uint32_t first, cycles;
  int failed;
} worker;

static long resident_bytes(void) {
  FILE* file = fopen("/proc/self/statm", "r");
  long all = 0, resident = 0;
  if (file == NULL) return 0;
  if (fscanf(file, "%ld %ld", &all, &resident) != 2) resident = 0;
  fclose(file);
  return resident * sysconf(_SC_PAGESIZE);
}

static int cycle(uint32_t n) {
  fkv_store_options o = FKV_STORE_OPTIONS_INIT;
  fkv_store* store = NULL;
  fkv_fetch* fetch = NULL;
  fkv_kvset* set = NULL;
  fkv_error* error = NULL;
  int ok;
  o.url = str(directory);
  o.mode = FKV_READ;
  ok = fkv_store_open(&o, &store, &error) == FKV_OK && fkv_store_fetch(store, &ids[n], &fetch, &error) == FKV_OK &&
       fkv_fetch_finish(fetch, &set, &error) == FKV_OK && is_set(set, n);
  if (error != NULL) fprintf(stderr, "%s\n", fkv_error_message(error));
  fkv_error_free(error);
  fkv_kvset_free(set);
  fkv_fetch_free(fetch);
  fkv_store_close(store);
  return ok;
}

static void* work(void* argument) {
  worker* w = (worker*)argument;
  uint32_t i;
  for (i = 0; i < w->cycles; ++i) {
    if (!cycle((w->first + i) % kSets)) w->failed = 1;
  }
  return NULL;
}

/* That many cycles by all threads together; what is resident behind them. */
static long run(uint32_t cycles) {
  pthread_t threads[kThreads];
  worker workers[kThreads];
  uint32_t i;
  memset(workers, 0, sizeof(workers));
  for (i = 0; i < kThreads; ++i) {
    workers[i].first = i * 3;
    workers[i].cycles = cycles / kThreads;
    CHECK(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
  }
  for (i = 0; i < kThreads; ++i) {
    CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(!workers[i].failed);
  }
  return resident_bytes();
}

int main(int argc, char** argv) {
  const long most = 8L << 20; /* 0.8 KB a cycle: whatever a cycle left behind would be more */
  fkv_store_options o = FKV_STORE_OPTIONS_INIT;
  fkv_store* writer = NULL;
  uint32_t cycles, i;
  long before, after;
  if (argc < 2) return 2;
  directory = argv[1];
  cycles = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 10000;
  o.url = str(directory);
  o.mode = FKV_WRITE;
  o.create = 1;
  OK(fkv_store_open(&o, &writer, &error));
  for (i = 0; i < kSets; ++i) OK(put_set(writer, i, &ids[i], &error));
  fkv_store_close(writer);
  before = run(cycles / 4); /* pools and arenas fill */
  after = run(cycles);
  printf("%u cycles: %.1f MB resident before, %.1f MB behind\n", cycles, (double)before / 1e6, (double)after / 1e6);
  CHECK(before > 0 && after - before < most);
  return failures == 0 ? 0 : 1;
}
