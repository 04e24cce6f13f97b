"""Finch on a torch model itself: read in chunks under a prompt, keep what it needs, store it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

import torch
from transformers.cache_utils import DynamicCache

from ..ask import token_array
from ..errors import InvalidArgument, Unavailable
from ..kvset import KvSet
from ..put import PutLayer, PutRequest
from ..store import Store
from ..types import Rope, StorageDType
from .attention import Reading, prepare, reading, run
from .cache import numeric_of
from .facts import Facts, facts_of, text_config
from .identity import torch_identity
from .policies import POLICIES, Policy, choose
from .texts import INSTRUCTION, encode

_REVISION = 1
"""Raised when results change beyond rounding."""
_RATIO = 16
_CHUNK = 512


@dataclass(frozen=True)
class Compressed:
    """What came of `compress`."""

    id: str
    hit: bool
    """Whether it was in the store: then no document was read."""
    kv: KvSet
    prompt: list[int]
    """The prompt's token ids, with what the chat template puts around it: what follows the set."""
    ms: dict[str, float]
    """"compress" and "store", 0 where nothing was read; "reload"."""


def compress(
    model: torch.nn.Module,
    tokenizer: Any,
    document: Union[str, Sequence[int]],
    prompt: Union[str, Sequence[int]],
    *,
    store: Store,
    keep: int | None = None,
    ratio: float | None = None,
    chunk: int | None = None,
    policy: Literal["finch", "finch-span"] = "finch-span",
    model_id: str | None = None,
    template: str | None = None,
    instruction: str = INSTRUCTION,
    storage_dtype: StorageDType | None = None,
    label: str = "",
    pinned: bool = False,
    refresh: bool = False,
    ttl: float | None = None,
    document_tokens: bool = True,
    on_progress: Callable[[int, int], bool | None] | None = None,
) -> Compressed:
    """Finds the entry for a document and a prompt, or reads the document with the torch model and stores it.

    document, prompt: texts, which a chat template is put around ("chatml", "llama3", "mistral", "plain"; None: the one
    that the tokenizer's looks like), or token ids of both, used as they are; then the tokenizer may be None.
    keep: entries to keep per head; without it one for each `ratio` (default 16) of the document's tokens.
    chunk: document tokens that go through the model together with the prompt; None: 512, or what fits.
    storage_dtype: None: the model's own. on_progress: as for `Store.ask`; in this thread. The model must not be used
    by other threads meanwhile.

    Keys are kept before RoPE (key form "none" where the model has none), so the set can go to any position. Any
    decoder-only model whose attention goes through transformers' attention interface will do; the others are refused
    with a sentence (Unsupported): encoder-decoder models, windows, soft caps, several position encodings.
    """
    facts = facts_of(model)
    if model.training:
        raise InvalidArgument(f"{facts.name} is in training mode, where dropout changes what it reads: model.eval()")
    doc, ask = _tokens(tokenizer, document, prompt, template, instruction)
    kept = _budget(len(doc), keep, ratio)
    step = _chunk(facts, kept, len(doc), len(ask), chunk)
    if policy not in POLICIES:
        raise InvalidArgument(f"there is no policy {policy!r} for torch models: it is one of {', '.join(POLICIES)}")
    chosen = POLICIES[policy]
    identity = torch_identity(model, model_id, facts)
    dtype = next(model.parameters()).dtype
    rope = prepare(model, doc + ask)
    request = PutRequest(
        model=identity.model, weights=identity.weights, document=token_array(doc), prompt=token_array(ask),
        layers=[_placeholder(facts, dtype)], key_form="none" if rope is None else "pre_rope", next_position=kept,
        reader="chunks", policy=policy, policy_revision=_REVISION, numeric=numeric_of(dtype), keep=kept, chunk=step,
        parameters=chosen.parameters, storage_dtype=storage_dtype, rope=rope or Rope(), pinned=pinned, replace=refresh,
        ttl=ttl, label=label, document_tokens=document_tokens,
    )  # fmt: skip
    name = store.put_id(request)
    ms = {"compress": 0.0, "store": 0.0, "reload": 0.0}
    hit = not refresh and name in store
    if not hit:
        began = time.perf_counter()
        request.layers = _read(model, doc, ask, kept, step, chosen, rope, on_progress)
        read = time.perf_counter()
        store.put(request)
        ms["compress"], ms["store"] = (read - began) * 1e3, (time.perf_counter() - read) * 1e3
    began = time.perf_counter()
    kv = store.get(name)
    ms["reload"] = (time.perf_counter() - began) * 1e3
    return Compressed(name, hit, kv, ask, ms)


def _tokens(
    tokenizer: Any, document: str | Sequence[int], prompt: str | Sequence[int], template: str | None, instruction: str
) -> tuple[list[int], list[int]]:
    if isinstance(document, str) and isinstance(prompt, str):
        if not document or not prompt:
            raise InvalidArgument(f"the {'prompt' if document else 'document'} is empty")
        return encode(tokenizer, document, prompt, template, instruction)
    if isinstance(document, str) or isinstance(prompt, str):
        raise InvalidArgument("one of document and prompt is a text and the other token ids: give both alike")
    doc, ask = [int(i) for i in token_array(document)], [int(i) for i in token_array(prompt)]
    if not doc or not ask:
        raise InvalidArgument(f"the {'prompt' if doc else 'document'} has no tokens")
    return doc, ask


def _budget(n: int, keep: int | None, ratio: float | None) -> int:
    if keep is not None and ratio is not None:
        raise InvalidArgument("keep and ratio are both given: one says the other")
    if keep is not None:
        if keep < 1:
            raise InvalidArgument(f"keep is {keep}: at least 1")
        return min(keep, n)
    r = _RATIO if ratio is None else ratio
    if not r >= 1:
        raise InvalidArgument(f"ratio is {r}: at least 1")
    return min(n, max(1, -int(-n // r)))


def _chunk(facts: Facts, keep: int, n: int, p: int, chunk: int | None) -> int:
    room = facts.context - keep - p if facts.context else n
    step = chunk if chunk is not None else min(_CHUNK, room)
    if step < 1 or step > room:
        raise InvalidArgument(
            f"keep {keep}, chunk {step} and the prompt's {p} tokens do not fit the {facts.context} positions of "
            f"{facts.name}: keep less or read smaller chunks"
        )
    return min(step, n)


def _placeholder(facts: Facts, dtype: torch.dtype) -> PutLayer:
    """A layer without entries, for an id, which tensors are no part of."""
    empty = torch.empty((facts.kv_heads, 0, facts.head_dim), dtype=dtype)
    return PutLayer(empty, empty)


@torch.no_grad()
def _read(
    model: torch.nn.Module,
    doc: list[int],
    prompt: list[int],
    keep: int,
    chunk: int,
    policy: Policy,
    rope: Rope | None,
    on_progress: Callable[[int, int], bool | None] | None,
) -> list[PutLayer]:
    """The chunk loop: [kept ; chunk ; prompt] through the model, then each layer keeps its best."""
    n, device = len(doc), next(model.parameters()).device
    cache = DynamicCache(config=text_config(model))
    origins = [torch.empty((1, 0), dtype=torch.int64, device=device) for _ in cache.layers]
    for start in range(0, n, chunk):
        part = doc[start : start + chunk]
        seen = start + len(part)
        state = Reading(rope, prompt_rows=len(prompt))
        with reading(model, state):
            run(model, part + prompt, cache)
        new = torch.arange(start, seen, device=device)
        for index, layer in enumerate(cache.layers):
            if index not in state.mass:
                raise InvalidArgument(
                    f"layer {index} of {type(model).__name__} has no attention that finchkv could keep"
                )
            origins[index] = _keep(layer, state.mass[index], origins[index], new, -(-keep * seen // n), policy)
        if on_progress is not None and on_progress(seen, n) is False:
            raise Unavailable(f"reading was stopped after {seen} of {n} tokens")
    layers: list[Any] = list(cache.layers)
    return [
        PutLayer(layer.keys[0], layer.values[0], rows.cpu().numpy())
        for layer, rows in zip(layers, origins, strict=True)
    ]


def _keep(
    layer: Any, mass: torch.Tensor, origins: torch.Tensor, new: torch.Tensor, limit: int, policy: Policy
) -> torch.Tensor:
    """Drops the prompt and all but the best candidates from a layer of the cache; the origins of those that stay."""
    heads, candidates = mass.shape
    positions = torch.cat((origins, new.expand(origins.shape[0], -1)), dim=1)
    best = choose(policy.scores(mass, positions.expand(heads, -1).contiguous()), min(candidates, limit))
    rows = best.expand(heads, -1)[None, :, :, None].expand(-1, -1, -1, layer.keys.shape[-1])
    layer.keys, layer.values = layer.keys.gather(2, rows), layer.values.gather(2, rows)
    return positions.expand(best.shape[0], -1).gather(1, best)
