"""Writes the module that cffi loads libfinchkv by, from capi/finchkv.h.

usage: make_abi.py FINCHKV_H OUT.py

cffi reads C declarations without a preprocessor, so directives go; macros that
are one number stay. DLPack's struct is declared as far as Python touches it.
"""

import re
import sys
from pathlib import Path

import cffi

# dlpack.h, version 0.x: https://github.com/dmlc/dlpack/blob/v0.8/include/dlpack/dlpack.h
DLPACK = """
typedef struct { int32_t device_type; int32_t device_id; } DLDevice;
typedef struct { uint8_t code; uint8_t bits; uint16_t lanes; } DLDataType;
typedef struct {
  void* data; DLDevice device; int32_t ndim; DLDataType dtype; int64_t* shape; int64_t* strides; uint64_t byte_offset;
} DLTensor;
struct DLManagedTensor {
  DLTensor dl_tensor; void* manager_ctx; void (*deleter)(struct DLManagedTensor* self);
};
"""


def declarations(header: str) -> str:
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    header = header.replace("\\\n", " ")
    numbers = re.findall(r"^#define (FKV_\w+) (0x[0-9a-f]+|\d+)u?\s*$", header, flags=re.M)
    header = re.sub(r'^extern "C" \{\s*$|^\}\s*$', "", header, flags=re.M)
    header = re.sub(r"^#.*$", "", header, flags=re.M)
    header = header.replace("FKV_API ", "").replace("struct DLManagedTensor;", DLPACK)
    return header + "".join(f"#define {name} {value}\n" for name, value in numbers)


def main() -> None:
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    ffi = cffi.FFI()
    ffi.cdef(declarations(source.read_text()))
    ffi.set_source(out.stem, None)
    ffi.emit_python_code(str(out))


if __name__ == "__main__":
    main()
