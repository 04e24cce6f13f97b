"""A process in another language reads a store while a C program writes to it: every entry, as soon as it is said to be
stored, whole and with the right numbers. Standard library only.

usage: beside_test.py LIBRARY WRITER DIRECTORY (which must not exist)
"""

import ctypes
import subprocess
import sys
import time
from ctypes import POINTER, byref, c_char, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

COUNT, AHEAD, LAYERS, NUMBERS = 400, 8, 3, 2 * 16 * 8  # of writer.c and sets.h


class Str(ctypes.Structure):
    _fields_ = [("data", c_char_p), ("size", c_size_t)]


class StoreOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("url", Str), ("mode", c_uint32), ("create", c_uint32)]


class TensorOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("layer", c_uint32), ("which", c_uint32), ("head", c_uint32),
                ("dtype", c_uint32), ("rotate", c_uint32), ("order", c_uint32), ("base_position", c_uint64)]


class Tensor(ctypes.Structure):
    """DLManagedTensor of DLPack 0.x; the deleter takes a pointer to it."""


DELETER = ctypes.CFUNCTYPE(None, POINTER(Tensor))
Tensor._fields_ = [("data", POINTER(c_float)), ("device", c_int32 * 2), ("ndim", c_int32), ("dtype", c_int32),
                   ("shape", POINTER(c_int64)), ("strides", c_void_p), ("byte_offset", c_uint64),
                   ("context", c_void_p), ("deleter", DELETER)]

library, writer, directory = sys.argv[1:]
fkv = ctypes.CDLL(library)
fkv.fkv_error_message.restype = c_char_p
for name in ("fkv_error_message", "fkv_error_free", "fkv_fetch_free", "fkv_kvset_free", "fkv_store_close"):
    getattr(fkv, name).argtypes = [c_void_p]


def call(function, *arguments):
    error = c_void_p()
    code = function(*arguments, byref(error))
    if code != 0:
        message = fkv.fkv_error_message(error).decode()
        fkv.fkv_error_free(error)
        raise RuntimeError(f"{code}: {message}")


def open_store():
    url = directory.encode()
    options = StoreOptions(struct_size=ctypes.sizeof(StoreOptions), url=Str(url, len(url)), mode=0)
    store = c_void_p()
    call(fkv.fkv_store_open, byref(options), byref(store))
    return store


def numbers_of(fetched, layer, which):
    options = TensorOptions(ctypes.sizeof(TensorOptions), layer, which, 0xFFFFFFFF, 0xFFFFFFFF)
    tensor = POINTER(Tensor)()
    call(fkv.fkv_kvset_tensor, fetched, byref(options), byref(tensor))
    t = tensor.contents
    assert t.shape[:t.ndim] == [2, 16, 8], t.shape[:t.ndim]
    numbers = t.data[:NUMBERS]
    t.deleter(tensor)
    return numbers


def check(store, n, hex_id):
    fetch, fetched = c_void_p(), c_void_p()
    call(fkv.fkv_store_fetch, store, (c_char * 32).from_buffer_copy(bytes.fromhex(hex_id)), byref(fetch))
    call(fkv.fkv_fetch_finish, fetch, byref(fetched))
    fkv.fkv_fetch_free(fetch)
    for layer in range(LAYERS):
        expected = [(n * 131 + layer * 17 + i * 7) % 4096 / 16 for i in range(NUMBERS)]
        assert numbers_of(fetched, layer, 0) == expected, f"keys of layer {layer} of set {n}"
        assert numbers_of(fetched, layer, 1) == [-x for x in expected], f"values of layer {layer} of set {n}"
    fkv.fkv_kvset_free(fetched)


beside = 0
with subprocess.Popen([writer, directory, str(COUNT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                      text=True) as process:
    seen, store = [], None
    for line in process.stdout:
        number, hex_id = line.split()
        store = store or open_store()
        check(store, int(number), hex_id)
        beside += process.poll() is None
        seen.append((int(number), hex_id))
        if len(seen) <= COUNT - AHEAD:
            process.stdin.write(".")
            process.stdin.flush()
again = time.monotonic()
assert process.returncode == 0, process.returncode
assert len(seen) == COUNT and len({hex_id for _, hex_id in seen}) == COUNT
assert beside >= COUNT - AHEAD, f"only {beside} were read beside the writer"
for number, hex_id in seen:  # and when it is gone
    check(store, number, hex_id)
fkv.fkv_store_close(store)
print(f"{COUNT} entries read, {beside} of them beside the writer; again in {time.monotonic() - again:.1f} s")
