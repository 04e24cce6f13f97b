"""A DLManagedTensor of the library as an object with __dlpack__, which numpy, torch and others take without a copy."""

from __future__ import annotations

import ctypes
from typing import Any

from ._library import CData, ffi

_NAME = b"dltensor"

_api = ctypes.pythonapi
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", _api))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))


def _free(tensor: CData) -> None:
    tensor.deleter(tensor)


# A capsule that nobody took (a taker renames it) still owns its tensor.
def _drop_unless_taken(capsule: int) -> None:
    if _is_valid(capsule, _NAME):
        _free(ffi.cast("struct DLManagedTensor*", _pointer(capsule, _NAME)))


_drop = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_drop_unless_taken)
_DROP = ctypes.cast(_drop, ctypes.c_void_p)


_CPU = 1  # kDLCPU
_LEGACY = 1  # CUDA's legacy default stream, in the protocol's numbers: what None means there


class DLPackTensor:
    """Read-only memory of a set, handed to the first who asks for it by `__dlpack__` (version 0.x of the protocol).

    On a GPU it was made for one `stream`, or for any where it is None.
    """

    def __init__(self, tensor: CData, stream: int | None = None) -> None:
        self._tensor: CData | None = tensor
        self._stream = stream
        t = tensor.dl_tensor
        self.shape: tuple[int, ...] = tuple(t.shape[i] for i in range(t.ndim))
        self._device: tuple[int, int] = (t.device.device_type, t.device.device_id)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """BufferError for another device than the host, a stream, a copy, and at the second call."""
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError("the tensor lies in host memory: take it there, and copy it to the device")
        if copy:
            raise BufferError("the tensor is handed out as it lies in memory: copy what you make of it")
        if self._tensor is None:
            raise BufferError("this tensor has been handed out before: ask the KvSet for it again")
        if self._device[0] == _CPU:
            if stream is not None:
                raise BufferError("the tensor lies in host memory, where there are no streams")
        elif self._stream is not None and stream != -1:  # -1: the taker sees to the order itself
            wanted = _LEGACY if stream is None else stream
            if wanted != self._stream:
                raise BufferError(
                    f"the tensor was made for stream {self._stream}, and stream {wanted} wants it: name the stream, or "
                    f"none, where the KvSet is asked for it"
                )
        address = int(ffi.cast("uintptr_t", self._tensor))
        capsule = _new(address, _NAME, _DROP)
        self._tensor = None
        return capsule

    def __del__(self) -> None:
        if getattr(self, "_tensor", None) is not None:
            _free(self._tensor)
