"""Samples of a GGUF file's weights beside those of a torch model that is said to be loaded from it.

Tensors whose layout llama.cpp's converters change (queries and keys of architecture `llama`) are left alone.
Embeddings, norms, values and the way down of first, middle and last layer tell models apart. Names:
gguf's tensor_mapping.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import Unsupported
from .facts import Facts

_ROWS = 4
_LAYER_TENSORS = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}


def first_difference(model: torch.nn.Module, facts: Facts, path: str) -> str:
    """The name of a tensor and where it differs, or "" when all samples are the same in the torch model's dtype."""
    tensors = _tensors_of(path)
    parameters = dict(model.named_parameters())
    compared = 0
    for theirs, suffix in _pairs(facts):
        ours = next((name for name in parameters if name == suffix or name.endswith("." + suffix)), None)
        if theirs not in tensors or ours is None:
            continue
        compared += 1
        difference = _compare(theirs, tensors[theirs], parameters[ours].detach())
        if difference:
            return difference
    if compared < len(_LAYER_TENSORS):
        raise Unsupported(f"the weights of {facts.name} have names that finchkv cannot match to those of {path}")
    return ""


def _pairs(facts: Facts) -> Iterator[tuple[str, str]]:
    yield "token_embd.weight", "embed_tokens.weight"
    for layer in sorted({0, facts.layers // 2, facts.layers - 1}):
        for ours, theirs in _LAYER_TENSORS.items():
            yield f"blk.{layer}.{theirs}", f"layers.{layer}.{ours}"


def _tensors_of(path: str) -> dict[str, Any]:
    from gguf import GGUFReader

    paths = [Path(path)]
    split = re.fullmatch(r"(.*)-00001-of-(\d{5})\.gguf", path)
    if split:
        paths = [Path(f"{split[1]}-{i:05d}-of-{split[2]}.gguf") for i in range(1, int(split[2]) + 1)]
    return {tensor.name: tensor for part in paths for tensor in GGUFReader(part).tensors}


def _compare(name: str, tensor: Any, ours: torch.Tensor) -> str:
    from gguf import dequantize

    shape = tuple(int(n) for n in reversed(tensor.shape))
    if shape != tuple(ours.shape):
        return f"{name} is {shape} and {tuple(ours.shape)}"
    rows = np.unique(np.linspace(0, shape[0] - 1, _ROWS).astype(int)) if len(shape) > 1 else slice(None)
    data = np.asarray(tensor.data)
    data = data.reshape(shape[0], -1) if len(shape) > 1 else data
    sample = torch.from_numpy(np.array(dequantize(data[rows], tensor.tensor_type), np.float32))
    mine = ours[torch.as_tensor(rows, device=ours.device)] if len(shape) > 1 else ours
    different = sample.reshape(mine.shape).to(ours.dtype) != mine.cpu()
    if not bool(different.any()):
        return ""
    at = tuple(int(i) for i in different.nonzero()[0])
    theirs = float(sample.reshape(mine.shape)[at])
    return f"{name} has {theirs:g} where the model has {float(mine.cpu()[at]):g}"
