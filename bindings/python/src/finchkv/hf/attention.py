"""A torch model whose keys stay before RoPE: the attention that `compress` reads with.

While `reading` lasts, the model's rotary modules give cosine 1 and sine 0, so that queries and keys reach the cache
unturned, and its attention is the function here, which turns both to their places: entry i of the cache to position i.
This needs nothing of a model but that it calls transformers' attention interface; whether it comes out right is checked
against the model's own attention before the first use (`prepare`).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.cache_utils import DynamicCache

from ..errors import InvalidArgument, Unsupported
from ..types import Rope
from .facts import Facts, facts_of, rotary_modules, text_config
from .policies import attention_mass

_NAME = "finchkv_reading"
_TOLERANCE = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Of the largest hidden value: some ten times what another order of summation gives in that dtype."""
_PROBE = 48


@dataclass
class Reading:
    """One forward pass: how positions turn, and what the prompt's rows at the end pay to each key."""

    rope: Rope | None
    prompt_rows: int = 0
    mass: dict[int, torch.Tensor] = field(default_factory=dict)
    """By layer: [kv_heads, keys before the prompt]."""
    _tables: dict[Any, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def turn(self, x: torch.Tensor, first: int) -> torch.Tensor:
        """x: [1, heads, n, head_dim]; entry i goes to position first + i. As transformers does it: angles in f32,
        cosine and sine rounded to x's dtype."""
        if self.rope is None:
            return x
        cos, sin = self._table(first, x)
        dims = self.rope.rotary_dims
        turning, rest = x[..., :dims], x[..., dims:]
        if self.rope.interleaved:
            a, b = turning[..., 0::2], turning[..., 1::2]
            turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
        else:
            a, b = turning.chunk(2, dim=-1)
            turned = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
        return torch.cat((turned, rest), dim=-1)

    def _table(self, first: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        key = (first, x.shape[2], x.dtype, x.device)
        if key not in self._tables:
            assert self.rope is not None
            frequencies = torch.tensor(self.rope.inv_freq, dtype=torch.float32, device=x.device)
            places = torch.arange(first, first + x.shape[2], dtype=torch.float32, device=x.device)
            angles = places[:, None] * frequencies
            factor = self.rope.attention_factor
            self._tables[key] = ((angles.cos() * factor).to(x.dtype), (angles.sin() * factor).to(x.dtype))
        return self._tables[key]


_active: Reading | None = None


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query [1, heads, n, d], key and value [1, kv_heads, T, d] -> [1, n, heads, d].

    The mask is not looked at: everything before a row is seen, which `prepare` holds against the model's own way.
    """
    reading = _active
    assert reading is not None
    rows, total = query.shape[2], key.shape[2]
    if value.shape[-1] != key.shape[-1]:
        raise Unsupported(
            f"keys have {key.shape[-1]} dimensions and values {value.shape[-1]}: finchkv keeps equal ones"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, turned = reading.turn(query, total - rows), reading.turn(key, 0)
    if reading.prompt_rows:
        layer: int = module.layer_idx  # type: ignore[assignment]
        reading.mass[layer] = attention_mass(query[0, :, -reading.prompt_rows :], turned[0], scale)
    sees = torch.ones((rows, total), dtype=torch.bool, device=query.device).tril(total - rows)
    out = torch.nn.functional.scaled_dot_product_attention(
        query, turned, value, attn_mask=sees, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _attend)


def _unturned(_module: torch.nn.Module, _arguments: Any, out: Any) -> Any:
    cos, sin = out
    return torch.ones_like(cos), torch.zeros_like(sin)


@contextmanager
def reading(model: torch.nn.Module, state: Reading) -> Iterator[None]:
    """The model reads with finchkv's attention. One at a time in a process."""
    global _active
    if _active is not None:
        raise InvalidArgument("a document is being read by finchkv.hf.compress in this process: one at a time")
    own = text_config(model)._attn_implementation
    hooks = [module.register_forward_hook(_unturned) for module in rotary_modules(model)]
    try:
        _active = state
        model.set_attn_implementation(_NAME)  # type: ignore[operator]
        yield
    finally:
        model.set_attn_implementation(own)  # type: ignore[operator]
        _active = None
        for hook in hooks:
            hook.remove()


def backbone(model: torch.nn.Module) -> torch.nn.Module:
    """The model without its head: what it says next is not needed while it reads."""
    return getattr(model, "base_model", model)


def run(model: torch.nn.Module, ids: list[int], cache: DynamicCache) -> torch.Tensor:
    """Hidden states [1, len(ids), hidden] of ids behind the cache, at the places that follow it."""
    device = next(model.parameters()).device
    first = cache.get_seq_length()
    places = torch.arange(first, first + len(ids), device=device).unsqueeze(0)
    out = backbone(model)(
        input_ids=torch.tensor([ids], device=device), position_ids=places, past_key_values=cache, use_cache=True
    )
    return out.last_hidden_state  # type: ignore[no-any-return]


_prepared: weakref.WeakKeyDictionary[torch.nn.Module, tuple[Any, Rope | None]] = weakref.WeakKeyDictionary()
"""What was found out, and under which position encoding and dtype: `model.to(...)` changes both."""


def prepare(model: torch.nn.Module, ids: list[int]) -> Rope | None:
    """How positions turn in this model: its RoPE with the order of pairs found out, or None where it has none.

    Reads a few of the ids both ways and compares. Raises Unsupported for a model that the attention here does not give
    the same of: another position encoding, windows, soft caps, sinks.
    """
    facts = facts_of(model)
    dtype = next(model.parameters()).dtype
    state = (facts.rope, dtype)
    known = _prepared.get(model)
    if known is not None and known[0] == state:
        return known[1]
    if facts.rope_trouble:
        raise Unsupported(f"{facts.name} cannot be read by finchkv.hf.compress: {facts.rope_trouble}")
    if not hasattr(model, "set_attn_implementation") or not getattr(model, "_supports_attention_backend", True):
        raise Unsupported(f"{facts.name} does not call transformers' attention interface: finchkv cannot read with it")
    probe = ids[:_PROBE]
    with torch.no_grad():
        expected = run(model, probe, DynamicCache(config=text_config(model))).float()
        tried = [(_difference(model, probe, rope, expected), rope) for rope in _candidates(facts)]
    error, rope = min(tried, key=lambda t: t[0])
    if not error < _TOLERANCE.get(dtype, 0.0):
        raise Unsupported(
            f"{facts.name} cannot be read by finchkv.hf.compress: with keys before RoPE its hidden states come out "
            f"otherwise, by {error:.1e} of the largest; its attention or positions are of a kind that finchkv has not"
        )
    _prepared[model] = (state, rope)
    return rope


def _candidates(facts: Facts) -> list[Rope | None]:
    if facts.rope is None:
        return [None]
    return [facts.rope, replace(facts.rope, interleaved=True)]


def _difference(model: torch.nn.Module, ids: list[int], rope: Rope | None, expected: torch.Tensor) -> float:
    cache = DynamicCache(config=text_config(model))
    with reading(model, Reading(rope)):
        got = run(model, ids, cache).float()
    return float((got - expected).abs().max() / expected.abs().max())
