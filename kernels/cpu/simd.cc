#include "kernels/cpu/simd.h"

namespace finchkv::kernels::cpu {

extern const SimdOps kSimd_generic;
#if defined(__x86_64__)
extern const SimdOps kSimd_avx2;
extern const SimdOps kSimd_avx512;
extern const SimdOps kSimd_avx512bf16;
#endif

const SimdOps* const* simd_tables(int* count) {
  static const SimdOps* tables[4] = {&kSimd_generic};
  static const int usable = [] {
    int n = 1;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
      tables[n++] = &kSimd_avx2;
      if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
          __builtin_cpu_supports("avx512cd")) {
        tables[n++] = &kSimd_avx512;
        if (__builtin_cpu_supports("avx512bf16")) tables[n++] = &kSimd_avx512bf16;
      }
    }
#endif
    return n;
  }();
  *count = usable;
  return tables;
}

const SimdOps& simd() {
  static const SimdOps* const best = [] {
    int count = 0;
    const SimdOps* const* tables = simd_tables(&count);
    return tables[count - 1];
  }();
  return *best;
}

}  // namespace finchkv::kernels::cpu
