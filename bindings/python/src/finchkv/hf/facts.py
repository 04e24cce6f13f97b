"""What of a torch model decides whether a set belongs to it: shape and position encoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..errors import Unsupported
from ..types import Rope

_SCALINGS = {"default": "none", "linear": "linear", "llama3": "llama3", "yarn": "yarn"}


@dataclass(frozen=True)
class Facts:
    """Of a decoder-only model of transformers."""

    name: str
    """Its class, for sentences."""
    model_type: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    hidden: int
    context: int
    """Positions that it was made for; 0 where its configuration does not say."""
    rope: Rope | None
    """None: it has no RoPE. Pairs are half-split unless `compress` finds otherwise."""
    rope_trouble: str = ""
    """Why keys from before RoPE cannot be turned for it, where they cannot."""


def text_config(model: torch.nn.Module) -> Any:
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise Unsupported(f"{type(model).__name__} is no model of transformers: it has no configuration")
    if getattr(config, "is_encoder_decoder", False):
        raise Unsupported(f"{type(model).__name__} is an encoder-decoder model: finchkv keeps what decoders alone read")
    return config.get_text_config(decoder=True)


def facts_of(model: torch.nn.Module) -> Facts:
    """Raises Unsupported for encoder-decoder models and for what is no model of transformers."""
    config = text_config(model)
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    rope, trouble = _rope_of(model, config)
    return Facts(
        name=type(model).__name__, model_type=config.model_type, layers=config.num_hidden_layers, heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads, head_dim=head_dim, vocab=config.vocab_size,
        hidden=config.hidden_size, context=getattr(config, "max_position_embeddings", None) or 0, rope=rope,
        rope_trouble=trouble,
    )  # fmt: skip


def walk(model: torch.nn.Module) -> list[torch.nn.Module]:
    """All modules, each once. `model.modules()` without the names, which take most of its time."""
    seen: dict[int, torch.nn.Module] = {}
    left = [model]
    while left:
        module = left.pop()
        if id(module) not in seen:
            seen[id(module)] = module
            left.extend(child for child in module._modules.values() if child is not None)
    return list(seen.values())


def rotary_modules(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules that give cosines and sines: those with a buffer `inv_freq`, as all of transformers' have."""
    return [m for m in walk(model) if m._buffers.get("inv_freq") is not None]


def _rope_of(model: torch.nn.Module, config: Any) -> tuple[Rope | None, str]:
    modules = rotary_modules(model)
    if not modules:
        return None, ""
    first: torch.Tensor = modules[0].inv_freq  # type: ignore[assignment]
    frequencies = first.detach().float().cpu()
    trouble = ""
    for module in modules[1:]:
        if not torch.equal(module.inv_freq.detach().float().cpu(), frequencies):  # type: ignore[operator]
            trouble = "its layers have different position encodings"
    parameters = getattr(config, "rope_parameters", None) or {}
    kind = str(parameters.get("rope_type", "default"))
    if kind not in _SCALINGS:
        trouble = f"its RoPE scaling is '{kind}', which is none of {', '.join(_SCALINGS)}"
    rope = Rope(
        scaling=_SCALINGS.get(kind, "none"), theta=float(parameters.get("rope_theta", 10000.0)),
        factor=float(parameters.get("factor", 1.0) or 1.0),
        attention_factor=float(getattr(modules[0], "attention_scaling", 1.0)),
        original_context=int(parameters.get("original_max_position_embeddings", 0) or 0),
        rotary_dims=2 * frequencies.numel(), interleaved=False, inv_freq=tuple(frequencies.tolist()),
    )  # fmt: skip
    return rope, trouble


def differences(facts: Facts, kv: Any) -> list[str]:
    """Sentences' parts that name what a KvSet (or Entry) and a model do not have in common; empty when all agrees."""
    out = []
    for what, theirs, ours in (
        ("layers", kv.layers, facts.layers),
        ("KV heads", kv.kv_heads, facts.kv_heads),
        ("dimensions a head", kv.head_dim, facts.head_dim),
    ):
        if theirs != ours:
            out.append(f"the set has {theirs} {what} and the model {ours}")
    rope: Rope | None = getattr(kv, "rope", None)
    if kv.key_form == "none" and facts.rope is not None:
        out.append("the set is of a model without RoPE and the model has it")
    elif kv.key_form != "none" and facts.rope is None:
        out.append("the set is of a model with RoPE and the model has none")
    elif kv.key_form != "none" and facts.rope is not None and rope is not None:
        out.extend(_rope_differences(rope, facts.rope))
    return out


def _rope_differences(theirs: Rope, ours: Rope) -> list[str]:
    if theirs.rotary_dims != ours.rotary_dims:
        return [f"the set's RoPE turns {theirs.rotary_dims} dimensions and the model's {ours.rotary_dims}"]
    if theirs.scaling != ours.scaling:
        return [f"the set's RoPE scaling is '{theirs.scaling}' and the model's '{ours.scaling}'"]
    if abs(theirs.theta - ours.theta) > 1e-6 * ours.theta:
        return [f"the set's RoPE theta is {theirs.theta:g} and the model's {ours.theta:g}"]
    a, b = torch.tensor(theirs.inv_freq), torch.tensor(ours.inv_freq)
    if not torch.allclose(a, b, rtol=1e-5, atol=0):  # theta^x in f32 differs in the last digits between libraries
        worst = int(((a - b).abs() / b).argmax())
        return [f"the set's RoPE frequency {worst} is {a[worst]:g} and the model's {b[worst]:g}"]
    if abs(theirs.attention_factor - ours.attention_factor) > 1e-5:
        return [
            f"the set's RoPE attention factor is {theirs.attention_factor:g}, the model's {ours.attention_factor:g}"
        ]
    return []
