"""Sets as llama.cpp's sequence states, and back; with or without llama-cpp-python.

    llm = llama_cpp.Llama("model.gguf", n_ctx=2048)
    finchkv.llama.restore(kv, llm)
    llm.generate(model.encode_prompt("Who signed it?"), temp=0, reset=False)   # reset=True would drop the set

Nothing here imports llama_cpp: `to_state` and `from_state` are bytes to sets and back, and `restore` uses the module
that the caller's object came from. Layout and limits: docs/formats.md, "llama.cpp sequence state".
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ._library import Struct, call, ffi, lib
from .errors import InvalidArgument
from .kvset import KvSet
from .model import Model
from .types import DTYPES, ORDERS, DType, Order, number_of

_GGML_TYPES: dict[int, DType] = {0: "f32", 1: "f16", 30: "bf16"}


@dataclass(frozen=True)
class State:
    """A sequence of a llama.cpp context."""

    data: bytes
    next_position: int
    """Where decoding goes on."""


def to_state(
    kv: KvSet,
    *,
    dtype: DType = "f16",
    flash_attention: bool = True,
    order: Order = "stored",
    streams: int = 1,
    base: int = 0,
    tokens: Sequence[int] | None = None,
    document: Sequence[int] | None = None,
) -> State:
    """What `llama_state_seq_set_data` takes; with `tokens` or `document`, a file for `llama_state_seq_load_file` and
    llama-server's slots.

    dtype: the context's type_k and type_v. flash_attention: whether it works with it. streams: its n_seq_max where
    sequences share no cells. base: where entry 0 of a set from before RoPE goes. tokens: one for each position before
    the prompt; document: the document's ids, from which they are made.
    InvalidArgument where layers keep different numbers of entries, or dtype cannot hold them.
    """
    options = Struct("fkv_llama_options")
    o = options.pointer
    o.dtype = number_of(dtype, DTYPES, "dtype")
    o.transposed_values = 0 if flash_attention else 1
    o.order = number_of(order, ORDERS, "order")
    o.streams, o.base_position = streams, base
    o.file = 0 if tokens is None and document is None else 1
    for name, ids in (("tokens", tokens), ("document_tokens", document)):
        if ids is not None:
            setattr(o, name, options.keep(ffi.new("int32_t[]", list(ids))))
            setattr(o, name.replace("tokens", "token_count"), len(ids))
    out, next_position, size = ffi.new("fkv_bytes**"), ffi.new("uint64_t*"), ffi.new("size_t*")
    with kv._handle.use() as p:
        call(lib.fkv_kvset_to_llama_state, p, o, out, next_position)
    try:
        data = lib.fkv_bytes_data(out[0], size)
        return State(bytes(ffi.buffer(data, size[0])), next_position[0])
    finally:
        lib.fkv_bytes_free(out[0])


def from_state(state: bytes, model: Model, *, tokens: Sequence[int] = ()) -> tuple[KvSet, list[int]]:
    """The set that a sequence state or file holds, key form "rotated", and the ids it was read from, where the state
    has them or `tokens` gives them. `model`: whose cache it was; a state of another shape is InvalidArgument, with the
    difference."""
    source = Struct("fkv_llama_source")
    o = source.pointer
    if tokens:
        o.tokens, o.token_count = source.keep(ffi.new("int32_t[]", list(tokens))), len(tokens)
    out, ids, count = ffi.new("fkv_kvset**"), ffi.new("fkv_tokens**"), ffi.new("size_t*")
    with model._handle.use() as p:
        o.model = p
        call(lib.fkv_kvset_from_llama_state, ffi.from_buffer(state), len(state), o, out, ids)
    try:
        data = lib.fkv_tokens_data(ids[0], count)
        return KvSet(out[0]), list(ffi.unpack(data, count[0])) if count[0] else []
    finally:
        lib.fkv_tokens_free(ids[0])


def check_model(kv: KvSet, model: Model) -> None:
    """InvalidArgument, with the first difference, unless the set can be of this model: layers, KV heads, dimensions;
    and for a set that came from a store also tokenizer, configuration and weights."""
    described = model.describe()
    shape = tuple(described[key] for key in ("layers", "kv_heads", "head_dim"))
    if (kv.layers, kv.kv_heads, kv.head_dim) != shape:
        raise InvalidArgument(
            f"the set is not of {model.path}: it has {kv.layers} layers of {kv.kv_heads} KV heads of {kv.head_dim} "
            f"dimensions, the model has {shape[0]} of {shape[1]} of {shape[2]}"
        )
    entry = kv.entry
    if entry is None:
        return
    for what, theirs, key in (
        ("it was made with another tokenizer", entry.tokenizer, "tokenizer_fingerprint"),
        ("the configuration is another", entry.model, "model_fingerprint"),
        ("the weights are others", entry.weights, "weights_fingerprint"),
    ):
        ours = bytes.fromhex(described[key])
        if theirs != ours and not (key == "tokenizer_fingerprint" and theirs == bytes(32)):
            raise InvalidArgument(
                f"the set is not of {model.path}: {what} ({theirs.hex()[:12]} there, {ours.hex()[:12]} here)"
            )


def restore(kv: KvSet, llm: Any, *, sequence: int = 0, base: int = 0, model: Model | None = None) -> int:
    """Puts a set into a sequence of a `llama_cpp.Llama`, which forgets what it held there; the position at which the
    prompt goes on.

    The set must be of the model's file: `check_model` says whether it is. model: that file, where it is open already;
    without it `llm.model_path` is opened and its weights are hashed, for every set anew. InvalidArgument with the
    difference; RuntimeError where llama.cpp refuses, because its cache is full.
    """
    if getattr(llm, "lora_path", None):
        raise InvalidArgument(f"the set is not of {llm.model_path} with the adapter {llm.lora_path} on it")
    if model is None:
        with Model(llm.model_path, device="cpu") as opened:
            check_model(kv, opened)
    else:
        check_model(kv, model)
    llama_cpp = sys.modules[type(llm).__module__.partition(".")[0]]
    how = llm.context_params
    if how.type_k != how.type_v or how.type_k not in _GGML_TYPES:
        raise ValueError(f"the context's type_k and type_v are {how.type_k} and {how.type_v}: both f16, bf16 or f32")
    flash = how.flash_attn_type != llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    streams = 1 if how.kv_unified else how.n_seq_max
    state = to_state(kv, dtype=_GGML_TYPES[how.type_k], flash_attention=flash, streams=max(1, streams), base=base)
    if state.next_position >= llm.n_ctx():
        raise ValueError(f"the set ends at position {state.next_position}, and the context has {llm.n_ctx()}")
    buffer = (ctypes.c_uint8 * len(state.data)).from_buffer_copy(state.data)
    if llama_cpp.llama_state_seq_set_data(llm.ctx, buffer, len(state.data), sequence) == 0:
        raise RuntimeError("llama.cpp refused the state: its cache is full, or it is a kind of cache of its own")
    if sequence == 0:
        # What the positions hold is no text: ids of an earlier prompt here would let a later one go on from the set.
        llm.input_ids[: state.next_position] = -1
        llm.n_tokens = state.next_position
    return state.next_position
