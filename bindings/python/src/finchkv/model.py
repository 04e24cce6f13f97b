"""Models that finchkv's own engine runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from ._library import CData, Handle, Struct, call, ffi, lib, take_text
from .ask import token_array
from .types import Compute, Device, PathLike


class Model:
    """A GGUF file. Opening reads what is cheap; weights are loaded when a document must be read or an answer made.

    A model answers one call at a time, others wait. Close it, or use it in a `with`.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        device: Device = "auto",
        compute: Compute = "auto",
        threads: int = 0,
        fingerprint_cache: PathLike | None = None,
    ) -> None:
        """Opens a GGUF file; of a split one, the first.

        device: "cpu", "cuda", or "auto": a GPU where there is one.
        compute: "bf16", which "auto" means; "f32" in a fixed order, which gives the same bytes for any number of
            threads; "fp8": 8-bit weights inside the layers, a GPU's fastest.
        threads: 0 for all processors.
        fingerprint_cache: a file of remembered weight digests; without it the weights are hashed at every opening.

        Raises InvalidArgument (a device or compute that there is not), NotFound, Corrupt, Unsupported (an architecture
        or scaling that the engine does not have).
        """
        options = Struct("fkv_model_options")
        options.set_text("path", os.fsencode(path))
        options.set_text("device", device)
        if fingerprint_cache is not None:
            options.set_text("fingerprint_cache", os.fsencode(fingerprint_cache))
        options.pointer.threads = threads
        options.set_text("compute", compute)
        out = ffi.new("fkv_model**")
        call(lib.fkv_model_open, options.pointer, out)
        self._handle = Handle(out[0], lib.fkv_model_close, "model")
        self.path = os.fspath(path)
        self.compute = compute

    def describe(self) -> dict[str, Any]:
        """Architecture, shape, context, tokenizer, template, fingerprints (hex)."""
        out = ffi.new("fkv_text**")
        with self._handle.use() as p:
            call(lib.fkv_model_describe, p, out)
        description: dict[str, Any] = json.loads(take_text(out[0]))
        return description

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Token ids of a text, without BOS or EOS. Special tokens' names are plain text unless `parse_special`."""
        texts = Struct("fkv_model_options")  # only what keeps the text alive
        out = ffi.new("fkv_tokens**")
        with self._handle.use() as p:
            call(lib.fkv_model_tokenize, p, texts.view(text), 1 if parse_special else 0, out)
        return _take_tokens(out[0])

    def encode(
        self,
        document: str,
        prompt: str,
        *,
        instruction: str | None = None,
        system: str | None = None,
        chat_template: str | None = None,
    ) -> tuple[list[int], list[int]]:
        """Token ids of document and prompt as `Store.ask` makes them, the chat template and BOS included. Another
        engine that has the set goes on with the prompt's. None: as `Store.ask` has it."""
        options = _texts(prompt, instruction, system, chat_template)
        options.set_text("document", document)
        of_document, of_prompt = ffi.new("fkv_tokens**"), ffi.new("fkv_tokens**")
        with self._handle.use() as p:
            call(lib.fkv_ask_tokens, p, options.pointer, of_document, of_prompt)
        return _take_tokens(of_document[0]), _take_tokens(of_prompt[0])

    def encode_prompt(self, prompt: str, *, chat_template: str | None = None) -> list[int]:
        """The prompt's ids alone, which do not depend on the document: `encode(document, prompt)[1]`."""
        options = _texts(prompt, None, None, chat_template)
        out = ffi.new("fkv_tokens**")
        with self._handle.use() as p:
            call(lib.fkv_ask_tokens, p, options.pointer, ffi.NULL, out)
        return _take_tokens(out[0])

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids. ValueError for what is no list of them, InvalidArgument for an id that is none."""
        ids = token_array(tokens)
        out = ffi.new("fkv_text**")
        with self._handle.use() as p:
            call(lib.fkv_model_detokenize, p, ffi.from_buffer("int32_t[]", ids), len(ids), out)
        return take_text(out[0])

    def close(self) -> None:
        """Frees the model when no call uses it any more."""
        self._handle.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<finchkv.Model {self.path!r}{' closed' if self._handle.closed else ''}>"


def _texts(prompt: str, instruction: str | None, system: str | None, chat_template: str | None) -> Struct:
    options = Struct("fkv_ask_options")
    for name, text in (
        ("prompt", prompt), ("instruction", instruction), ("system", system), ("chat_template", chat_template),
    ):  # fmt: skip
        options.set_text(name, text)
    return options


def _take_tokens(tokens: CData) -> list[int]:
    """An fkv_tokens as a list; frees it."""
    try:
        count = ffi.new("size_t*")
        data = lib.fkv_tokens_data(tokens, count)
        return list(ffi.unpack(data, count[0])) if count[0] else []
    finally:
        lib.fkv_tokens_free(tokens)
