"""Which model a torch model is: digests of its configuration and of samples of its weights, or a GGUF file's.

A torch model has no fingerprint of its own. What finchkv.hf stores is named by `torch_identity`: a name that the caller
may give (`model_id`), the shape, the position encoding, and a hash of sampled weights. Entries that finchkv's engine
made from a GGUF file are for a torch model that `bind_gguf` has matched to that file.
"""

from __future__ import annotations

import hashlib
import json
import struct
import weakref
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import InvalidArgument
from ..model import Model
from ..types import PathLike
from .facts import Facts, facts_of, walk
from .gguf_weights import first_difference

_SAMPLES = 64
"""Elements of each tensor that are hashed: enough that no fine-tuning goes unseen, few enough to be read at once."""


@dataclass(frozen=True)
class Identity:
    model: bytes
    weights: bytes
    tokenizer: bytes = bytes(32)


@dataclass(frozen=True)
class _Bound:
    identity: Identity
    state: tuple[Any, ...]
    path: str


_bound: weakref.WeakKeyDictionary[torch.nn.Module, _Bound] = weakref.WeakKeyDictionary()
_hashed: weakref.WeakKeyDictionary[torch.nn.Module, tuple[tuple[Any, ...], bytes]] = weakref.WeakKeyDictionary()


def torch_identity(model: torch.nn.Module, model_id: str | None = None, facts: Facts | None = None) -> Identity:
    """Digests for the model as it is now. model_id: a name for it; None: the one its configuration has. facts: of the
    model, where they are known already."""
    facts = facts or facts_of(model)
    return Identity(_model_digest(facts, name_of(model, model_id)), weights_digest(model))


def name_of(model: torch.nn.Module, model_id: str | None) -> str:
    """The caller's name for a model, or the one its configuration has."""
    return str(getattr(model.config, "name_or_path", "")) if model_id is None else model_id


def _model_digest(facts: Facts, name: str) -> bytes:
    rope = facts.rope
    canonical = {
        "finchkv torch model": 1, "name": name, "type": facts.model_type, "layers": facts.layers,
        "heads": facts.heads, "kv_heads": facts.kv_heads, "head_dim": facts.head_dim, "vocab": facts.vocab,
        "hidden": facts.hidden,
    }  # fmt: skip
    if rope is not None:  # frequencies as bytes: no text form of a float is part of an identity
        canonical["rope"] = struct.pack(f"<{len(rope.inv_freq)}f", *rope.inv_freq).hex()
        canonical["rope_attention_factor"] = struct.pack("<f", rope.attention_factor).hex()
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).digest()


def _state(model: torch.nn.Module) -> tuple[Any, ...]:
    """Changes when a weight is replaced or written to."""
    return tuple(
        (p.data_ptr(), p._version, p.dtype) for m in walk(model) for p in m._parameters.values() if p is not None
    )


def weights_digest(model: torch.nn.Module) -> bytes:
    """SHA-256 over names, dtypes, shapes and evenly spread samples of all parameters; remembered until one changes."""
    state = _state(model)
    known = _hashed.get(model)
    if known is not None and known[0] == state:
        return known[1]
    digest = hashlib.sha256(b"finchkv torch weights 1\0")
    for name, parameter in sorted(model.named_parameters()):
        digest.update(json.dumps([name, str(parameter.dtype), list(parameter.shape)]).encode())
        flat = parameter.detach().reshape(-1)
        step = max(1, flat.numel() // _SAMPLES)
        sample = flat[::step][:_SAMPLES].cpu().contiguous()
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    _hashed[model] = (state, digest.digest())
    return digest.digest()


def bind_gguf(model: torch.nn.Module, gguf: Model | PathLike) -> Identity:
    """Says that a torch model was loaded from a GGUF file, and checks it: shapes, and samples of the weights.

    From then on `to_cache` takes entries that finchkv made from that file, or from a copy of it. gguf: the file, or the
    finchkv.Model that has it open (whose fingerprints need not be made again).

    Raises InvalidArgument with a sentence that names the difference.
    """
    path = gguf.path if isinstance(gguf, Model) else gguf
    known = _bound.get(model)
    if known is not None and known.path == str(path) and known.state == _state(model):
        return known.identity
    if isinstance(gguf, Model):
        described = gguf.describe()
    else:
        with Model(gguf, device="cpu") as opened:
            described = opened.describe()
    facts = facts_of(model)
    for key, ours in (
        ("layers", facts.layers), ("heads", facts.heads), ("kv_heads", facts.kv_heads), ("head_dim", facts.head_dim),
        ("vocab", facts.vocab),
    ):  # fmt: skip
        if described[key] != ours:
            raise InvalidArgument(f"{path} and {facts.name} are different models: {key} {described[key]} and {ours}")
    difference = first_difference(model, facts, str(path))
    if difference:
        raise InvalidArgument(f"{path} and {facts.name} have other weights: {difference}")
    identity = Identity(
        bytes.fromhex(described["model_fingerprint"]), bytes.fromhex(described["weights_fingerprint"]),
        bytes.fromhex(described["tokenizer_fingerprint"]),
    )  # fmt: skip
    _bound[model] = _Bound(identity, _state(model), str(path))
    return identity


def bound_identity(model: torch.nn.Module) -> Identity | None:
    """What `bind_gguf` found. InvalidArgument when the weights have changed since."""
    known = _bound.get(model)
    if known is None:
        return None
    if known.state != _state(model):
        raise InvalidArgument(
            f"the weights of {type(model).__name__} have changed since it was matched to {known.path}: match it again"
        )
    return known.identity
