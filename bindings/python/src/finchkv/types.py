"""Names and plain values that the package's interfaces share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal, Union

from ._library import CData, digest_of, id_hex, text_of

DType = Literal["f32", "f16", "bf16"]
"""Of tensors."""
StorageDType = Literal["f32", "f16", "bf16", "q8", "q4"]
"""How a store keeps them: q8 and q4 are quantised in groups of 64 (docs/formats.md)."""
KeyForm = Literal["pre_rope", "rotated", "none"]
Order = Literal["stored", "half", "interleaved"]
"""Which dimensions of a key RoPE turns together: as stored, (i, i + d/2) as transformers has them, or (2i, 2i + 1)."""
Compute = Literal["auto", "bf16", "f32", "fp8"]
"""How a model computes: bf16, which "auto" means, f32 in a fixed order, or 8-bit weights."""
Device = Literal["auto", "cpu", "cuda"]
Numeric = Literal["reference", "fast", "fp8"]
"""What an entry was computed in: f32, bf16 or 8 bits (`Compute` "f32", "bf16", "fp8")."""
PathLike = Union[str, "os.PathLike[str]"]

STORAGE_DTYPES: tuple[StorageDType, ...] = ("f32", "f16", "bf16", "q8", "q4")
DTYPES: tuple[DType, ...] = ("f32", "f16", "bf16")
KEY_FORMS: tuple[KeyForm, ...] = ("pre_rope", "rotated", "none")
ORDERS: tuple[Order, ...] = ("stored", "half", "interleaved")
NUMERICS: tuple[Numeric, ...] = ("reference", "fast", "fp8")
PROVENANCES = ("computed", "client", "imported")


def number_of(name: str, names: tuple[str, ...], what: str) -> int:
    """The C ABI's number for a name; ValueError that lists the names there are."""
    if name not in names:
        raise ValueError(f"there is no {what} {name!r}: it is one of {', '.join(names)}")
    return names.index(name)


def _time(unix_ms: int) -> datetime | None:
    return datetime.fromtimestamp(unix_ms / 1000, timezone.utc) if unix_ms else None


@dataclass(frozen=True)
class Entry:
    """What is known of a stored entry without reading its tensors."""

    id: str
    label: str
    reader: str
    """How the document was read: "chunks", "whole", "client"."""
    policy: str
    doc_tokens: int
    prompt_tokens: int
    """0 for policies that ignore the prompt."""
    keep: int
    chunk: int
    layers: int
    kv_heads: int
    head_dim: int
    origin_rows: int
    """kv_heads, or 1 where the heads of a layer keep the same."""
    max_kept: int
    storage_dtype: StorageDType
    dtype: DType
    """Of the tensors that `Store.get` gives."""
    key_form: KeyForm
    next_position: int
    """Where the prompt starts behind the set."""
    stored_bytes: int
    raw_bytes: int
    compress_ms: int
    created: datetime | None
    last_used: datetime | None
    expires: datetime | None
    hits: int
    pinned: bool
    shared: bool
    sealed: bool
    has_document_tokens: bool
    model: bytes
    """SHA-256 of the model's configuration, tokenizer and RoPE record (32 bytes)."""
    weights: bytes
    tokenizer: bytes
    numeric: Numeric
    """"reference" (f32), "fast" (bf16) or "fp8"."""
    provenance: str
    """"computed" by the engine, put by a "client", or "imported" from a file."""

    @classmethod
    def of(cls, info: CData) -> Entry:
        """From an fkv_entry_info."""
        return cls(
            id=id_hex(info.id), label=text_of(info.label), reader=text_of(info.reader), policy=text_of(info.policy),
            doc_tokens=info.doc_tokens, prompt_tokens=info.prompt_tokens, keep=info.keep, chunk=info.chunk,
            layers=info.n_layers, kv_heads=info.n_kv_heads, head_dim=info.head_dim, origin_rows=info.origin_rows,
            max_kept=info.max_kept, storage_dtype=STORAGE_DTYPES[info.storage_dtype], dtype=DTYPES[info.dtype],
            key_form=KEY_FORMS[info.key_form], next_position=info.next_position, stored_bytes=info.stored_bytes,
            raw_bytes=info.raw_bytes, compress_ms=info.compress_ms, created=_time(info.created_unix_ms),
            last_used=_time(info.last_used_unix_ms), expires=_time(info.expires_unix_ms), hits=info.hits,
            pinned=bool(info.pinned), shared=bool(info.shared), sealed=bool(info.sealed),
            has_document_tokens=bool(info.has_document_tokens), model=digest_of(info.model),
            weights=digest_of(info.weights), tokenizer=digest_of(info.tokenizer), numeric=NUMERICS[info.numeric],
            provenance=PROVENANCES[info.provenance],
        )  # fmt: skip


@dataclass(frozen=True)
class Rope:
    """Everything needed to turn a key to position p: angle_i = f32(p) * inv_freq[i], then cos and sin times
    `attention_factor`. Dimensions past `rotary_dims` stay."""

    scaling: str = "none"
    """"none", "linear", "llama3" or "yarn"."""
    theta: float = 10000.0
    factor: float = 1.0
    attention_factor: float = 1.0
    original_context: int = 0
    rotary_dims: int = 0
    interleaved: bool = False
    """Pairs are (2i, 2i + 1), else (i, i + rotary_dims / 2)."""
    inv_freq: tuple[float, ...] = ()
    """[rotary_dims / 2]"""
