/* What a C test needs: a check that says where it failed, and goes on. */
#ifndef FINCHKV_TESTS_CAPI_CHECK_H
#define FINCHKV_TESTS_CAPI_CHECK_H

#include <stdio.h>
#include <string.h>

#include "capi/finchkv.h"

static int failures = 0;

#define CHECK(what)                                                      \
  do {                                                                   \
    if (!(what)) {                                                       \
      ++failures;                                                        \
      fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #what); \
    }                                                                    \
  } while (0)

/* The call must succeed. */
#define OK(call)                                                                               \
  do {                                                                                         \
    fkv_error* error = NULL;                                                                   \
    if ((call) != FKV_OK) {                                                                    \
      ++failures;                                                                              \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, fkv_error_message(error)); \
      fkv_error_free(error);                                                                   \
    }                                                                                          \
  } while (0)

/* The call must fail with this code, and its sentence must have this in it. */
#define FAILS(expected, text, call)                                                          \
  do {                                                                                       \
    fkv_error* error = NULL;                                                                 \
    const fkv_code code = (call);                                                            \
    if (code != (expected) || error == NULL || fkv_error_code(error) != code ||              \
        strstr(fkv_error_message(error), (text)) == NULL) {                                  \
      ++failures;                                                                            \
      fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call, fkv_code_name(code), \
              error == NULL ? "no error" : fkv_error_message(error));                        \
    }                                                                                        \
    fkv_error_free(error);                                                                   \
  } while (0)

static inline fkv_str str(const char* text) {
  fkv_str s;
  s.data = text;
  s.size = strlen(text);
  return s;
}

static inline int same(fkv_str s, const char* text) {
  return s.size == strlen(text) && (s.size == 0 || memcmp(s.data, text, s.size) == 0);
}

#endif
