"""Stored sets for Hugging Face transformers, and caches from there.

    from finchkv import hf

    kv = store.get(result.id)
    cache = hf.to_cache(kv, model, gguf="model.gguf")
    model.generate(**hf.inputs(cache, prompt_ids), max_new_tokens=64)

Needs torch and transformers (`pip install finchkv[hf]`).
"""

from .cache import from_cache, inputs, to_cache
from .compress import Compressed, compress
from .identity import bind_gguf, torch_identity

__all__ = ["Compressed", "bind_gguf", "compress", "from_cache", "inputs", "to_cache", "torch_identity"]
