// The vector loops for any processor; kernels/CMakeLists.txt has the compiler flags.
#define FINCHKV_SIMD_TABLE kSimd_generic
#define FINCHKV_SIMD_NAME "generic"
#include "kernels/cpu/simd_body.h"
