"""KvSet: the kept keys and values of all layers."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ._device import device_name, opened
from ._dlpack import DLPackTensor
from ._library import CData, Handle, Struct, call, ffi, lib, text_of
from .types import DTYPES, KEY_FORMS, ORDERS, DType, Entry, KeyForm, Order, Rope, number_of

if TYPE_CHECKING:
    import torch

_AS_STORED = 0xFFFFFFFF


class KvSet:
    """Keys and values of a reading, in host memory, or a GPU's (`to`). Immutable; may be used from many threads;
    outlives its store.

    Keys of key form "pre_rope" have no place yet: `rotate=True` turns entry i of a layer to position `base + i`.
    Those of form "rotated" go back as they came, and "none" is of models without RoPE.

    Arrays and tensors share the set's memory where no conversion is asked for, and keep it alive by themselves. They
    must not be written to. `close()`, or leaving a `with`, lets go of the set before it is collected.
    """

    def __init__(self, pointer: CData, entry: Entry | None = None) -> None:
        self._handle = Handle(pointer, lib.fkv_kvset_free, "set")
        self.entry = entry
        """What the store says of it, where it came from one."""
        info = Struct("fkv_kvset_info")
        with self._handle.use() as p:
            call(lib.fkv_kvset_get_info, p, info.pointer)
        i = info.pointer
        self.device: str = f"cuda:{i.device_id}" if i.device_type == lib.FKV_ON_CUDA else "cpu"
        """Where its tensors are: "cpu", "cuda:0", ..."""
        self._elsewhere: dict[str, KvSet] = {}
        self._lock = threading.Lock()
        self.layers: int = i.n_layers
        self.kv_heads: int = i.n_kv_heads
        self.head_dim: int = i.head_dim
        self.origin_rows: int = i.origin_rows
        self.dtype: DType = DTYPES[i.dtype]
        self.key_form: KeyForm = KEY_FORMS[i.key_form]
        self.doc_tokens: int = i.doc_tokens
        self.next_position: int = i.next_position
        """Where the prompt starts behind the set."""
        self.rope = Rope(
            scaling=text_of(i.rope_scaling), theta=i.rope_theta, factor=i.rope_factor,
            attention_factor=i.rope_attention_factor, original_context=i.rope_original_context,
            rotary_dims=i.rotary_dims, interleaved=bool(i.rope_interleaved),
            inv_freq=tuple(ffi.unpack(i.rope_inv_freq, i.rotary_dims // 2)) if i.rotary_dims else (),
        )  # fmt: skip

    @functools.cached_property
    def kept(self) -> tuple[int, ...]:
        """Entries that each layer keeps per head. [layers]"""
        out, count = [], ffi.new("uint32_t*")
        with self._handle.use() as p:
            for layer in range(self.layers):
                call(lib.fkv_kvset_layer_kept, p, layer, count)
                out.append(count[0])
        return tuple(out)

    def origins(self, layer: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
        """Where the layer's entries came from: [origin_rows, kept] document positions, ascending in a row. A copy."""
        data, count = ffi.new("uint32_t**"), ffi.new("size_t*")
        with self._handle.use() as p:
            call(lib.fkv_kvset_origins, p, _number("layer", layer), data, count)
            raw = bytes(ffi.buffer(data[0], count[0] * 4)) if count[0] else b""
        return np.frombuffer(raw, np.uint32).reshape(self.origin_rows, -1)

    def to(self, device: Any) -> KvSet:
        """The set on a device: "cpu", "cuda", "cuda:1" or a torch.device. Copied once, whole, as it is; itself where it
        is there already. A set on a GPU does not come back: keep this one, or get it from the store again.

        Raises Unsupported where the library was built without CUDA, and Unavailable where there is no such GPU."""
        name = device_name(device)
        if name == self.device:
            return self
        out = ffi.new("fkv_kvset**")
        with self._handle.use() as p, opened(name).use() as there:
            call(lib.fkv_kvset_to_device, p, there, out)
        return KvSet(out[0], self.entry)

    def _on(self, device: Any) -> KvSet:
        """`to`, remembered as long as this set is open."""
        name = device_name(device)
        if name == self.device:
            return self
        with self._lock:
            if name not in self._elsewhere:
                self._elsewhere[name] = self.to(name)
            return self._elsewhere[name]

    def dlpack(
        self,
        layer: int,
        which: Literal["keys", "values"],
        *,
        rotate: bool = False,
        base: int = 0,
        order: Order = "stored",
        dtype: DType | None = None,
        head: int | None = None,
        stream: int | None = None,
    ) -> DLPackTensor:
        """The layer's "keys" or "values" for any library that speaks DLPack: [kv_heads, kept, head_dim], or
        [kept, head_dim] for one `head`. `rotate`, `base` and `order` are of keys. `dtype` None: as stored.

        stream, of a set on a GPU: where the tensor is used, as the array interchange protocol numbers streams (1: the
        legacy default stream; else a cudaStream_t). What is put there afterwards finds the numbers, and what is there
        when the tensor goes may still read them. None: this waits until they are there for everyone."""
        options = Struct("fkv_tensor_options")
        o = options.pointer
        o.layer = _number("layer", layer)
        o.which = number_of(which, ("keys", "values"), "tensor")
        o.head = _AS_STORED if head is None else _number("head", head)
        o.dtype = _AS_STORED if dtype is None else number_of(dtype, DTYPES, "dtype")
        o.rotate = 1 if rotate else 0
        o.base_position = _number("base", base, 1 << 63)
        o.order = number_of(order, ORDERS, "order")
        o.stream = 0 if stream is None else _number("stream", stream, 1 << 64)
        out = ffi.new("struct DLManagedTensor**")
        with self._handle.use() as p:
            call(lib.fkv_kvset_tensor, p, o, out)
        return DLPackTensor(out[0], stream)

    def numpy(
        self,
        layer: int,
        *,
        rotate: bool = False,
        base: int = 0,
        order: Order = "stored",
        dtype: DType | None = None,
        head: int | None = None,
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Keys and values of a layer, each [kv_heads, kept, head_dim], or [kept, head_dim] for one `head`.

        numpy has no bf16: a set of that dtype comes as f32, which holds the same values. Everything else that is as it
        was stored is a view of the set's memory, and not writeable.
        """
        if self.device != "cpu":
            raise ValueError(f"the set is on {self.device}, and numpy has host memory only: ask for tensors of torch")
        if dtype == "bf16":
            raise ValueError("numpy has no bf16: ask for f32 or f16, or for tensors of torch")
        if dtype is None and self.dtype == "bf16":
            dtype = "f32"
        keys = self.dlpack(layer, "keys", rotate=rotate, base=base, order=order, dtype=dtype, head=head)
        values = self.dlpack(layer, "values", dtype=dtype, head=head)
        return _array(keys), _array(values)

    def torch(
        self,
        layer: int,
        *,
        rotate: bool = False,
        base: int = 0,
        order: Order = "stored",
        dtype: DType | torch.dtype | None = None,
        head: int | None = None,
        device: torch.device | str | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer as tensors where the set is, shaped as `numpy` has them; bf16 stays bf16, without
        a copy. On a GPU they are for torch's current stream.

        device: the first layer that is asked for there brings the whole set, which stays there until `close()`; `to`
        gives that to you instead.

        torch knows no read-only tensors: writing into these in place would change the set.
        """
        import torch.utils.dlpack

        if device is not None and (there := self._on(device)) is not self:
            return there.torch(layer, rotate=rotate, base=base, order=order, dtype=dtype, head=head)
        name = None if dtype is None else torch_dtype_name(dtype)
        stream = None if self.device == "cpu" else torch.cuda.current_stream(self.device).cuda_stream or 1
        keys = self.dlpack(layer, "keys", rotate=rotate, base=base, order=order, dtype=name, head=head, stream=stream)
        values = self.dlpack(layer, "values", dtype=name, head=head, stream=stream)
        from_dlpack: Any = torch.utils.dlpack.from_dlpack
        return from_dlpack(keys), from_dlpack(values)

    def __len__(self) -> int:
        """Layers."""
        return self.layers

    def __iter__(self) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Keys and values of each layer, as `numpy(layer)` gives them."""
        return (self.numpy(layer) for layer in range(self.layers))

    def close(self) -> None:
        """Lets go of the set. Arrays and tensors that came from it stay valid."""
        self._handle.close()
        with self._lock:
            elsewhere, self._elsewhere = self._elsewhere, {}
        for there in elsewhere.values():
            there.close()

    def __enter__(self) -> KvSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        kept = "closed" if self._handle.closed else f"kept {max(self.kept, default=0)} of {self.doc_tokens}"
        return f"<finchkv.KvSet {self.layers}x{self.kv_heads}x{self.head_dim} {self.dtype} {self.key_form}, {kept}>"


def _array(tensor: DLPackTensor) -> np.ndarray[Any, Any]:
    array = np.from_dlpack(tensor)
    if array.flags.writeable:
        array.flags.writeable = False
    return array


def _number(name: str, value: int, limit: int = _AS_STORED) -> int:
    if not 0 <= value < limit:
        raise ValueError(f"{name} is {value}: it counts from 0 and has a limit")
    return value


def torch_dtype_name(dtype: Any) -> DType:
    """ "f32", "f16" or "bf16" for a torch.dtype (or one of these names)."""
    names: dict[str, DType] = {"torch.float32": "f32", "torch.float16": "f16", "torch.bfloat16": "bf16"}
    if isinstance(dtype, str) and dtype in DTYPES:
        return dtype
    if str(dtype) not in names:
        raise ValueError(f"KV tensors are f32, f16 or bf16: {dtype} is none of them")
    return names[str(dtype)]
