// The vector loops for AVX2; kernels/CMakeLists.txt has the compiler flags.
#if defined(__x86_64__)
#define FINCHKV_SIMD_TABLE kSimd_avx2
#define FINCHKV_SIMD_NAME "avx2"
#include "kernels/cpu/simd_body.h"
#endif
