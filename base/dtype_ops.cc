#include "base/dtype_ops.h"

namespace finchkv {

extern const DTypeOps kDTypeOps_generic;
#if defined(__x86_64__)
extern const DTypeOps kDTypeOps_avx2;
extern const DTypeOps kDTypeOps_avx512;
#endif

const DTypeOps* const* dtype_ops_tables(int* count) {
  static const DTypeOps* tables[3] = {&kDTypeOps_generic};
  static const int usable = [] {
    int n = 1;
#if defined(__x86_64__)
    __builtin_cpu_init();
    // What x86-64-v3 and v4 let the compiler use, of the features that differ between real processors.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
      tables[n++] = &kDTypeOps_avx2;
      if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
          __builtin_cpu_supports("avx512cd")) {
        tables[n++] = &kDTypeOps_avx512;
      }
    }
#endif
    return n;
  }();
  *count = usable;
  return tables;
}

const DTypeOps& dtype_ops() {
  static const DTypeOps* const best = [] {
    int count = 0;
    const DTypeOps* const* tables = dtype_ops_tables(&count);
    return tables[count - 1];
  }();
  return *best;
}

}  // namespace finchkv
