"""Sets that the caller brings: from arrays or tensors to an fkv_put_options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._library import CData, Struct, ffi
from .ask import milliseconds, token_array
from .types import DTYPES, KEY_FORMS, NUMERICS, STORAGE_DTYPES, DType, KeyForm, Numeric, Rope, StorageDType, number_of


@dataclass
class PutLayer:
    """One layer: keys and values [kv_heads, kept, head_dim] as numpy arrays (f32, f16; bf16 as its raw uint16 words) or
    CPU tensors of torch; origins [1 or kv_heads, kept] document positions, ascending in each row. Dense, read during
    the call only. Origins None: 0, 1, ..."""

    keys: Any
    values: Any
    origins: Any = None


@dataclass
class PutRequest:
    """A set that another engine made, and what it is the answer to. Two have the same id exactly when everything up to
    `parameters` agrees, the storage dtype, and the tenant."""

    model: bytes
    """32 bytes: a digest of the model's configuration. Sets of another one never meet."""
    document: Sequence[int] | np.ndarray[Any, Any]
    """Token ids."""
    layers: Sequence[PutLayer]
    key_form: KeyForm
    next_position: int
    """Where the prompt starts behind the set."""
    policy: str
    """How entries were chosen: "snapkv", ..."""
    weights: bytes = bytes(32)
    tokenizer: bytes = bytes(32)
    prompt: Sequence[int] | np.ndarray[Any, Any] = ()
    """Token ids of what guided the choice; none: the set serves every prompt."""
    reader: str = "client"
    policy_revision: int = 0
    numeric: Numeric = "reference"
    """What the model computed in: "reference" for f32, "fast" for 16 bits, "fp8"."""
    keep: int = 0
    """The budget per head; 0: the most that a layer keeps."""
    chunk: int = 0
    seed: int = 0
    parameters: Mapping[str, int] = field(default_factory=dict)
    """Whatever else can change a byte, as integers."""
    storage_dtype: StorageDType | None = None
    """None: the tensors' own dtype."""
    rope: Rope = field(default_factory=Rope)
    pinned: bool = False
    zstd: bool = False
    replace: bool = False
    """False: what is there already stays as it is."""
    document_tokens: bool = True
    """False: the document's ids are not stored beside the entry."""
    ttl: float | None = None
    """Seconds; None: the store's setting."""
    label: str = ""


def make_put(request: PutRequest) -> Struct:
    """The C struct of a request; ValueError for what does not fit together."""
    r = request
    struct = Struct("fkv_put_options")
    o = struct.pointer
    for name in ("model", "weights", "tokenizer"):
        digest = bytes(getattr(r, name))
        if len(digest) != 32:
            raise ValueError(f"{name} is a SHA-256 digest of 32 bytes, not of {len(digest)}")
        ffi.buffer(getattr(o, name).bytes)[:] = digest
    for name, ids in (("document", token_array(r.document)), ("prompt", token_array(r.prompt))):
        setattr(o, f"{name}_tokens", struct.keep(ffi.from_buffer("int32_t[]", ids)))
        setattr(o, f"{name}_token_count", len(ids))
    for text in ("reader", "policy", "label"):
        struct.set_text(text, getattr(r, text))
    o.policy_revision, o.chunk, o.seed = r.policy_revision, r.chunk, r.seed
    o.numeric = number_of(r.numeric, NUMERICS, "numeric class")
    parameters = [{"name": struct.view(name), "value": value} for name, value in r.parameters.items()]
    if parameters:
        o.parameters, o.parameter_count = struct.keep(ffi.new("fkv_parameter[]", parameters)), len(parameters)
    o.key_form = number_of(r.key_form, KEY_FORMS, "key form")
    o.next_position = r.next_position
    _set_rope(struct, r.rope)
    dtype = _set_layers(struct, r.layers)
    o.keep = r.keep or max(o.layers[i].n_kept for i in range(o.n_layers))
    o.storage_dtype = number_of(r.storage_dtype or dtype, STORAGE_DTYPES, "storage dtype")
    o.pinned, o.zstd, o.replace = (1 if flag else 0 for flag in (r.pinned, r.zstd, r.replace))
    o.no_document_tokens = 0 if r.document_tokens else 1
    o.ttl_ms = milliseconds("ttl", r.ttl)
    return struct


def _set_rope(struct: Struct, rope: Rope) -> None:
    o = struct.pointer
    struct.set_text("rope_scaling", rope.scaling)
    o.rope_theta, o.rope_factor, o.rope_attention_factor = rope.theta, rope.factor, rope.attention_factor
    o.rope_original_context = rope.original_context
    o.rotary_dims, o.rope_interleaved = rope.rotary_dims, 1 if rope.interleaved else 0
    if rope.inv_freq:
        if len(rope.inv_freq) != rope.rotary_dims // 2:
            raise ValueError(f"{len(rope.inv_freq)} frequencies do not turn {rope.rotary_dims} dimensions")
        o.rope_inv_freq = struct.keep(ffi.new("float[]", list(rope.inv_freq)))


def _set_layers(struct: Struct, layers: Sequence[PutLayer]) -> DType:
    if not layers:
        raise ValueError("the set has no layers")
    o = struct.pointer
    views = struct.keep(ffi.new("fkv_layer_view[]", len(layers)))
    first: tuple[DType, int, int, int] | None = None
    for index, layer in enumerate(layers):
        keys, dtype = _dense(layer.keys, f"the keys of layer {index}")
        values, other = _dense(layer.values, f"the values of layer {index}")
        if keys.shape != values.shape or dtype != other:
            raise ValueError(
                f"layer {index} has keys {dtype} {keys.shape} and values {other} {values.shape}: they are not alike"
            )
        rows = 1
        if layer.origins is not None:
            origins = np.ascontiguousarray(layer.origins, np.uint32)
            if origins.ndim != 2 or origins.shape[1] != keys.shape[1]:
                raise ValueError(f"the origins of layer {index} are {origins.shape}: not [rows, {keys.shape[1]}]")
            rows = origins.shape[0]
            views[index].origins = struct.keep(ffi.from_buffer("uint32_t[]", origins))
        shape = (dtype, keys.shape[0], keys.shape[2], rows)
        first = first or shape
        if shape != first:
            raise ValueError(f"layer {index} is (dtype, heads, head_dim, origin rows) {shape}, and layer 0 {first}")
        views[index].n_kept = keys.shape[1]
        views[index].keys = _address(struct, keys)
        views[index].values = _address(struct, values)
    assert first is not None
    dtype, o.n_kv_heads, o.head_dim, o.origin_rows = first
    o.n_layers, o.layers, o.dtype = len(layers), views, DTYPES.index(dtype)
    return dtype


def _address(struct: Struct, array: np.ndarray[Any, Any]) -> CData:
    return ffi.cast("void*", struct.keep(ffi.from_buffer(array)))


def _dense(given: Any, what: str) -> tuple[np.ndarray[Any, Any], DType]:
    """A dense array over the same memory where it is dense already, and its dtype; bf16 as raw words."""
    if type(given).__module__.partition(".")[0] == "torch":
        import torch

        tensor = given.detach().to("cpu").contiguous()
        if tensor.dtype == torch.bfloat16:
            array: np.ndarray[Any, Any] = tensor.view(torch.uint16).numpy()
        else:
            array = tensor.numpy()
    else:
        array = np.ascontiguousarray(given)
    names: dict[str, DType] = {"float32": "f32", "float16": "f16", "uint16": "bf16"}
    if array.dtype.name not in names:
        raise ValueError(f"{what} are {array.dtype}: f32, f16 or bf16 can be stored")
    if array.ndim != 3:
        raise ValueError(f"{what} have {array.ndim} dimensions: they are [kv_heads, kept, head_dim]")
    return array, names[array.dtype.name]
