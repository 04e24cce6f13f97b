// The loops of dtype_ops_body.h for any processor; base/CMakeLists.txt has the compiler flags.
#define FINCHKV_DTYPE_OPS kDTypeOps_generic
#define FINCHKV_DTYPE_OPS_NAME "generic"
#include "base/dtype_ops_body.h"
