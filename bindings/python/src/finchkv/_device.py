"""Devices that sets are brought to: opened when first named, and kept."""

from __future__ import annotations

import re
import threading
from typing import Any

from ._library import Handle, Struct, call, ffi, lib

_lock = threading.Lock()
_opened: dict[str, Handle] = {}


def device_name(device: Any) -> str:
    """ "cpu" or "cuda:N" for one of these, "cuda" (the GPU that torch has chosen, else the first) or a torch.device."""
    name = str(device)
    if name == "cuda":
        return f"cuda:{_current()}"
    if name == "cpu" or re.fullmatch(r"cuda:\d{1,4}", name):
        return name
    raise ValueError(f"there is no device {name!r}: name cpu, cuda, or cuda:1 and so on")


def _current() -> int:
    import sys

    torch = sys.modules.get("torch")  # who has not imported it has chosen nothing
    return int(torch.cuda.current_device()) if torch is not None and torch.cuda.is_available() else 0


def opened(name: str) -> Handle:
    """The device of a `device_name`. Raises Unsupported where the library was built without CUDA, and Unavailable
    where there is no such GPU."""
    with _lock:
        if name not in _opened:
            kind, _, ordinal = name.partition(":")
            options = Struct("fkv_device_options")
            options.set_text("device", kind)
            options.pointer.ordinal = int(ordinal or 0)
            out = ffi.new("fkv_device**")
            call(lib.fkv_device_open, options.pointer, out)
            _opened[name] = Handle(out[0], lib.fkv_device_close, "device")
        return _opened[name]
