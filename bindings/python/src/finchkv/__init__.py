"""finchkv: a persistent store for what language models have read.

    import finchkv

    with finchkv.Store("kv") as store, finchkv.Model("model.gguf") as model:
        result = store.ask(model, document, "What is kept in the glass case?", keep=512, max_tokens=64)
        print(result.hit, result.answer)
        kv = store.get(result.id)
        keys, values = kv.numpy(0)

`finchkv.hf` takes stored sets into transformers and brings caches from there, `finchkv.llama` does it for llama.cpp.
"""

from . import llama
from ._library import version as _version
from .ask import Answer, AskOptions, Cancel
from .errors import (
    Corrupt,
    DeadlineExceeded,
    Error,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    Unsupported,
)
from .kvset import KvSet
from .model import Model
from .put import PutLayer, PutRequest
from .store import Fetch, Store
from .types import Entry, Rope

__version__ = _version()

__all__ = [
    "Answer", "AskOptions", "Cancel", "Corrupt", "DeadlineExceeded", "Entry", "Error", "Fetch", "Internal",
    "InvalidArgument", "KvSet", "Model", "NotFound", "PermissionDenied", "PutLayer", "PutRequest", "ResourceExhausted",
    "Rope", "Store", "Unavailable", "Unsupported", "__version__", "llama",
]  # fmt: skip
