"""KvSet to DynamicCache and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from ..ask import token_array
from ..errors import InvalidArgument, Unsupported
from ..kvset import KvSet, torch_dtype_name
from ..model import Model
from ..put import PutLayer, PutRequest
from ..store import Store
from ..types import Numeric, Order, PathLike, Rope
from .facts import Facts, differences, facts_of, text_config, walk
from .identity import bind_gguf, bound_identity, name_of, torch_identity

_NEXT = "finchkv_next_position"


def to_cache(
    kv: KvSet,
    model: torch.nn.Module,
    *,
    gguf: Model | PathLike | None = None,
    model_id: str | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> DynamicCache:
    """A cache that the model goes on from, behind the set: `model.generate(**hf.inputs(cache, prompt_ids), ...)`.

    kv: from `Store.get`, so that it says what it was made with. gguf: for entries that finchkv's engine made, the file
    that the torch model was loaded from (needed once per model; see `bind_gguf`). model_id: for entries that finchkv.hf
    made under one. dtype and device: the model's.

    Keys from before RoPE are turned to positions 0.. in one pass. For a model on an NVIDIA GPU the set is brought there
    and turned there (a set of `store.get(id, device=...)` is there already). Where dtype and device are the set's,
    values (and keys that come as they were) are the set's own memory: a cache grows by concatenation and never writes
    to it.

    Raises InvalidArgument with the difference when set and model do not belong together, and Unsupported for models
    with sliding windows and for sets whose layers keep different counts, which one attention mask cannot serve.
    """
    facts = facts_of(model)
    own = _check_belonging(kv, model, facts, gguf, model_id)
    if kv.key_form == "pre_rope" and facts.rope_trouble:
        raise Unsupported(f"keys cannot be turned for {facts.name}: {facts.rope_trouble}")
    if len(set(kv.kept)) > 1:
        most, least = max(kv.kept), min(kv.kept)
        raise Unsupported(
            f"layer {kv.kept.index(most)} keeps {most} entries and layer {kv.kept.index(least)} {least}: transformers "
            f"has one attention mask for all layers, so sets with layers of unequal counts cannot become a cache"
        )
    first = next(model.parameters())
    cache = DynamicCache(config=text_config(model))
    if len(cache.layers) != kv.layers or any(getattr(layer, "is_sliding", False) for layer in cache.layers):
        raise Unsupported(f"{facts.name} has layers with sliding windows or without keys: its cache takes no set")
    name = torch_dtype_name(first.dtype if dtype is None else dtype)
    where = torch.device(first.device if device is None else device)
    rotate = kv.key_form == "pre_rope"
    # transformers' Llama family has pairs (i, i + d/2), also where the GGUF file has (2i, 2i + 1). What finchkv.hf made
    # is in the model's own order already.
    order: Order = "half" if rotate and not own else "stored"
    there = _brought(kv, where)
    target: Any
    for index, target in enumerate(cache.layers):
        keys, values = there.torch(index, rotate=rotate, order=order, dtype=name)
        target.keys, target.values = keys.unsqueeze(0).to(where), values.unsqueeze(0).to(where)
        target.dtype, target.device, target.is_initialized = target.keys.dtype, target.keys.device, True
    if there is not kv:
        there.close()
    setattr(cache, _NEXT, kv.next_position)
    return cache


def _brought(kv: KvSet, where: torch.device) -> KvSet:
    """The set where the cache will be: keys are turned there. Itself where the library does not know such devices."""
    if kv.device != "cpu" or where.type != "cuda" or torch.version.cuda is None:
        return kv
    try:
        return kv.to(where)
    except Unsupported:  # built without CUDA
        return kv


def inputs(
    cache: DynamicCache, prompt: Sequence[int] | Sequence[Sequence[int]] | torch.Tensor, *, pad: int = 0
) -> dict[str, Any]:
    """What `model.generate` (or `model(...)`) takes to go on from a cache of `to_cache` with these prompt ids:
    input_ids [prompts, width], attention_mask over cache and prompt [prompts, kept + width], position_ids
    [prompts, width] from the set's next position on, past_key_values.

    prompt: token ids of one prompt, or of several, each answered on its own: shorter ones are filled up with `pad` on
    their left, which nothing sees, and the cache becomes as many copies of itself.

    ValueError for a prompt without tokens, and for several prompts behind a cache that has several sequences already.
    """
    first: Any = cache.layers[0]
    device = first.keys.device
    if isinstance(prompt, torch.Tensor):
        prompt = prompt.tolist()
    rows: Any = prompt if len(prompt) and isinstance(prompt[0], (list, tuple, torch.Tensor, np.ndarray)) else [prompt]
    prompts = [token_array(row) for row in rows]
    if not all(len(row) for row in prompts):
        raise ValueError("a prompt has no tokens")
    if len(prompts) > 1:
        if first.keys.shape[0] != 1:
            raise ValueError(f"the cache has {first.keys.shape[0]} sequences already: take a new one, with to_cache")
        cache.batch_repeat_interleave(len(prompts))
    kept, width = cache.get_seq_length(), max(len(row) for row in prompts)
    start = getattr(cache, _NEXT, kept)
    ids = torch.full((len(prompts), width), pad, dtype=torch.long)
    mask = torch.ones((len(prompts), kept + width), dtype=torch.long)
    places = torch.full((len(prompts), width), start, dtype=torch.long)
    for index, row in enumerate(prompts):
        free = width - len(row)
        ids[index, free:] = torch.from_numpy(row.astype(np.int64))
        mask[index, kept : kept + free] = 0
        places[index, free:] += torch.arange(len(row))
    return {
        "input_ids": ids.to(device),
        "attention_mask": mask.to(device),
        "position_ids": places.to(device),
        "past_key_values": cache,
    }


def _check_belonging(
    kv: KvSet, model: torch.nn.Module, facts: Facts, gguf: Model | PathLike | None, model_id: str | None
) -> bool:
    """Whether the set was made with this torch model (True) or the GGUF file behind it; raises when with neither."""
    found = differences(facts, kv)
    if found:
        raise InvalidArgument(f"the set does not belong to this {facts.name}: " + "; ".join(found))
    entry = kv.entry
    if entry is None:
        raise InvalidArgument("the set does not say which model it is of: take it from its store, with store.get(id)")
    mine = torch_identity(model, model_id, facts)
    if (entry.model, entry.weights) == (mine.model, mine.weights):
        return True
    if entry.provenance == "client":
        if entry.weights != mine.weights:
            raise InvalidArgument(
                f"the set does not belong to this {facts.name}: it was made with weights whose samples hash to "
                f"{entry.weights.hex()[:16]}, and the model's hash to {mine.weights.hex()[:16]}"
            )
        name = name_of(model, model_id)
        raise InvalidArgument(
            f"the set was stored under another model_id than {name!r}, or the model's configuration was another"
        )
    theirs = bind_gguf(model, gguf) if gguf is not None else bound_identity(model)
    if theirs is None:
        raise InvalidArgument(
            f"the set was made from a GGUF file with weights {entry.weights.hex()[:16]}, and a torch model has no such "
            f"fingerprint: name the file that it was loaded from, as to_cache(kv, model, gguf=PATH)"
        )
    for what, stored, ours in (
        ("weights", entry.weights, theirs.weights),
        ("tokenizer", entry.tokenizer, theirs.tokenizer),
        ("configuration", entry.model, theirs.model),
    ):
        if stored != ours:
            raise InvalidArgument(
                f"the set does not belong to this {facts.name}: it was made from a GGUF file whose {what} hash to "
                f"{stored.hex()[:16]}, and that of the model's file to {ours.hex()[:16]}"
            )
    return False


def from_cache(
    store: Store,
    cache: DynamicCache | Iterable[tuple[torch.Tensor, torch.Tensor]],
    model: torch.nn.Module,
    *,
    document: Sequence[int],
    policy: str,
    prompt: Sequence[int] = (),
    model_id: str | None = None,
    next_position: int | None = None,
    origins: Sequence[Any] | None = None,
    parameters: Mapping[str, int] | None = None,
    keep: int = 0,
    seed: int = 0,
    label: str = "",
    pinned: bool = False,
    replace: bool = False,
    ttl: float | None = None,
    document_tokens: bool = True,
) -> str:
    """Stores a cache that transformers or kvpress made; the id. It goes back verbatim, bit for bit.

    cache: a DynamicCache, or keys and values per layer, each [1, kv_heads, kept, head_dim].
    document, prompt: the token ids that the cache was made from and, where a prompt guided the choice, under.
    policy, parameters, keep, seed: how it was made, with everything that can change a byte: "snapkv", {"window": 64}.
    model_id: a name for the model; to_cache wants the same. None: the name its configuration has.
    next_position: where what follows goes on; None: behind the document, which is right for presses, whose keys keep
    the positions that they had.

    origins: where the entries came from, for each layer [1 or kv_heads, kept] document positions, ascending in a row.
    A cache does not say; None: 0, 1, ..., which means nothing but the order.

    Raises InvalidArgument for a batch, or a cache whose shapes are not the model's; Unsupported for a cache that is
    only right with masks that lie in the model, as kvpress's head-wise presses (AdaKV, DuoAttention) leave them.
    """
    facts = facts_of(model)
    if any(getattr(module, "masked_key_indices", None) is not None for module in walk(model)):
        raise Unsupported(
            f"the cache cannot be stored: a press of kvpress has masked keys in the attention of {facts.name} instead "
            f"of removing them, and a cache without those masks is another; use a press that removes them"
        )
    pairs = [(pair[0], pair[1]) for pair in cache]
    if len(pairs) != facts.layers:
        raise InvalidArgument(f"the cache has {len(pairs)} layers and {facts.name} {facts.layers}")
    if origins is not None and len(origins) != len(pairs):
        raise InvalidArgument(f"there are origins for {len(origins)} layers and the cache has {len(pairs)}")
    layers = []
    for index, (keys, values) in enumerate(pairs):
        wanted = (1, facts.kv_heads, facts.head_dim)
        shape = tuple(keys.shape)
        if len(shape) != 4 or (shape[0], shape[1], shape[3]) != wanted:
            raise InvalidArgument(
                f"layer {index} of the cache is {shape}: for {facts.name} it must be one sequence, "
                f"[1, {facts.kv_heads}, kept, {facts.head_dim}]"
            )
        layers.append(PutLayer(keys[0], values[0], None if origins is None else origins[index]))
    identity = torch_identity(model, model_id, facts)
    return store.put(
        PutRequest(
            model=identity.model,
            weights=identity.weights,
            document=token_array(document),
            prompt=token_array(prompt),
            layers=layers,
            policy=policy,
            keep=keep,
            seed=seed,
            parameters=parameters or {},
            numeric=numeric_of(layers[0].keys.dtype),
            key_form="none" if facts.rope is None else "rotated",
            next_position=len(document) if next_position is None else next_position,
            rope=facts.rope or Rope(),
            label=label,
            pinned=pinned,
            replace=replace,
            ttl=ttl,
            document_tokens=document_tokens,
        )  # fmt: skip
    )


def numeric_of(dtype: torch.dtype) -> Numeric:
    """The class of what a model of that dtype computes."""
    return "reference" if dtype == torch.float32 else "fast"
