// The vector loops for AVX-512; kernels/CMakeLists.txt has the compiler flags.
#if defined(__x86_64__)
#define FINCHKV_SIMD_TABLE kSimd_avx512
#define FINCHKV_SIMD_NAME "avx512"
#include "kernels/cpu/simd_body.h"
#endif
