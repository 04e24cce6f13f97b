// The loops of dtype_ops_body.h for AVX2; base/CMakeLists.txt has the compiler flags.
#if defined(__x86_64__)
#define FINCHKV_DTYPE_OPS kDTypeOps_avx2
#define FINCHKV_DTYPE_OPS_NAME "avx2"
#include "base/dtype_ops_body.h"
#endif
