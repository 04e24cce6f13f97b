"""libfinchkv, loaded, and what every call to it needs: errors, texts, structs, and handles that are freed once.

cffi releases the interpreter lock around every call. Source of all declarations: capi/finchkv.h.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import errors
from ._abi import ffi as _ffi  # type: ignore[import-not-found, unused-ignore]  # written by make_abi.py

ABI_VERSION = 0

_PATH = Path(__file__).with_name("libfinchkv.so.0")
ffi: Any = _ffi
lib: Any = ffi.dlopen(str(_PATH))
if lib.fkv_abi_version() != ABI_VERSION:
    raise ImportError(f"{_PATH} has ABI version {lib.fkv_abi_version()}, and this package wants {ABI_VERSION}")

CData = Any


def version() -> str:
    """The library's version, as "0.4.0"."""
    return str(ffi.string(lib.fkv_version()).decode())


def call(function: Callable[..., int], *arguments: Any) -> None:
    """Calls a function whose last parameter is `fkv_error** error`; raises what it reports."""
    error = ffi.new("fkv_error**")
    code = function(*arguments, error)
    if code == 0:
        return
    message = lib.fkv_code_name(code)
    if error[0] != ffi.NULL:
        message = lib.fkv_error_message(error[0])
    sentence = ffi.string(message).decode("utf-8", "replace")
    lib.fkv_error_free(error[0])
    raise errors.from_code(code, sentence)


def text_of(view: CData) -> str:
    """An fkv_str as str."""
    return bytes(ffi.buffer(view.data, view.size)).decode("utf-8", "replace") if view.size else ""


def take_text(text: CData) -> str:
    """An fkv_text as str; frees it."""
    try:
        return text_of(lib.fkv_text_view(text))
    finally:
        lib.fkv_text_free(text)


class Struct:
    """A C struct to be filled in, which keeps alive what its members point to."""

    def __init__(self, name: str) -> None:
        self.pointer = ffi.new(f"{name}*")
        self._kept: list[Any] = []
        if "struct_size" in dict(ffi.typeof(name).fields):
            self.pointer.struct_size = ffi.sizeof(name)

    def set_text(self, member: str, text: str | bytes | None) -> None:
        """`None` leaves it "not given"."""
        if text is None:
            return
        setattr(self.pointer, member, self.view(text))

    def view(self, text: str | bytes) -> CData:
        """An fkv_str that lives as long as this struct."""
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)
        view = ffi.new("fkv_str*")
        buffer = self.keep(ffi.from_buffer("char[]", data))
        view.data, view.size = buffer, len(data)
        return view[0]

    def keep(self, value: Any) -> Any:
        self._kept.append(value)
        return value


def digest_of(member: CData) -> bytes:
    return bytes(ffi.buffer(member.bytes, 32))


def new_id(raw: bytes) -> CData:
    id_ = ffi.new("fkv_id*")
    ffi.buffer(id_)[:] = raw
    return id_


def id_hex(id_: CData) -> str:
    """An fkv_id (or a pointer to one) as 64 hex digits."""
    return bytes(ffi.buffer(id_.bytes, 32)).hex()


class Handle:
    """An object of the library: used by any number of threads, freed once, when it is closed and nobody uses it."""

    def __init__(self, pointer: CData, free: Callable[[CData], None], what: str) -> None:
        self._lock = threading.Lock()
        self._pointer = pointer
        self._free = free
        self._what = what
        self._users = 0
        self._closed = False

    @contextmanager
    def use(self) -> Iterator[CData]:
        with self._lock:
            if self._closed:
                raise errors.InvalidArgument(f"the {self._what} is closed")
            self._users += 1
        try:
            yield self._pointer
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._closed and self._users == 0
        if last:
            self._free(self._pointer)

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Frees the object, now or when the calls under way have returned. May be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            now = self._users == 0
        if now:
            self._free(self._pointer)

    def __del__(self) -> None:
        self.close()
