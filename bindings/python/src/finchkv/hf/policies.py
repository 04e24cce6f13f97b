"""Finch's choice, in torch: which of a layer's candidates stay. Source: docs/architecture.md; Corallo & Papotti, TACL
2024, for "finch"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

_SPAN_RADIUS = 7
_OWN_SHARE_DIVISOR = 64
_MOST_PROBABILITIES = 1 << 24
"""Attention probabilities held at a time: rows of the prompt are taken in blocks, so memory stays O(keys)."""


class Policy(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def parameters(self) -> dict[str, int]: ...

    def scores(self, mass: torch.Tensor, origins: torch.Tensor) -> torch.Tensor:
        """mass: [kv_heads, candidates] attention that each candidate drew; origins: [kv_heads, candidates] document
        positions, ascending. Scores [rows, candidates]: one row where all heads choose alike, else one per KV head."""
        ...


@dataclass(frozen=True)
class Finch:
    """The paper's: one choice per layer."""

    name: str = "finch"

    @property
    def parameters(self) -> dict[str, int]:
        return {}

    def scores(self, mass: torch.Tensor, origins: torch.Tensor) -> torch.Tensor:
        return mass.sum(0, keepdim=True)


@dataclass(frozen=True)
class FinchSpan:
    """Every KV head chooses its own; a candidate's score is the mean over the candidates at most 7 document positions
    away, itself included, plus 1/64 of its own."""

    name: str = "finch-span"

    @property
    def parameters(self) -> dict[str, int]:
        return {"span_radius": _SPAN_RADIUS, "own_share_divisor": _OWN_SHARE_DIVISOR}

    def scores(self, mass: torch.Tensor, origins: torch.Tensor) -> torch.Tensor:
        sums = torch.nn.functional.pad(mass.double().cumsum(1), (1, 0))
        first = torch.searchsorted(origins, origins - _SPAN_RADIUS)
        behind = torch.searchsorted(origins, origins + _SPAN_RADIUS, right=True)
        mean = (sums.gather(1, behind) - sums.gather(1, first)) / (behind - first)
        return (mean + mass.double() / _OWN_SHARE_DIVISOR).float()


POLICIES: dict[str, Policy] = {"finch": Finch(), "finch-span": FinchSpan()}


def choose(scores: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` candidates of highest score in each row, ascending; ties go to the lower index. [rows, count]"""
    best = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :count]
    return best.sort(dim=1).values


def attention_mass(query: torch.Tensor, keys: torch.Tensor, scaling: float) -> torch.Tensor:
    """How much attention the prompt's rows pay to each key before the prompt, f32.

    query: [heads, P, head_dim], the last P of the sequence; keys: [kv_heads, T, head_dim]. Row r sees T - P + r + 1
    keys and counts (T - P + r + 1) / T. Query heads of a KV head are summed. Returns [kv_heads, T - P].
    """
    heads, rows, _ = query.shape
    kv_heads, total, _ = keys.shape
    before = total - rows
    grouped = query.float().reshape(kv_heads, heads // kv_heads, rows, -1)
    turned = keys.float().transpose(1, 2).unsqueeze(1)  # [kv_heads, 1, head_dim, T]
    mass = torch.zeros((kv_heads, before), dtype=torch.float32, device=query.device)
    block = max(1, _MOST_PROBABILITIES // (heads * total))
    places = torch.arange(total, device=query.device)
    for first in range(0, rows, block):
        some = grouped[:, :, first : first + block]
        sees = before + 1 + torch.arange(first, first + some.shape[2], device=query.device)
        logits = (some @ turned) * scaling
        logits.masked_fill_(places >= sees[:, None], float("-inf"))
        weights = (sees.float() / total)[:, None]
        mass += (torch.softmax(logits, dim=-1)[..., :before] * weights).sum(dim=(1, 2))
    return mass
