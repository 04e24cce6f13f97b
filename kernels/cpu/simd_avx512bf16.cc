// The vector loops for AVX-512 with its own conversion to bf16; kernels/CMakeLists.txt has the compiler flags.
#if defined(__x86_64__)
#define FINCHKV_SIMD_TABLE kSimd_avx512bf16
#define FINCHKV_SIMD_NAME "avx512_bf16"
#include "kernels/cpu/simd_body.h"
#endif
