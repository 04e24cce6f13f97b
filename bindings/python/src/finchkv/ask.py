"""Asking: from Python's arguments to an fkv_ask_options, callbacks included, and back to an Answer."""

from __future__ import annotations

import codecs
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, Union

import numpy as np

from . import errors
from ._library import CData, Handle, Struct, call, ffi, id_hex, lib, text_of
from .kvset import KvSet
from .types import STORAGE_DTYPES, Entry, StorageDType, number_of

Text = Union[str, Sequence[int]]
"""A text, which the model's chat template is put around, or token ids, used as they are."""
OnProgress = Callable[[int, int], Union[bool, None]]
"""Called with the tokens read and those in all; returning False stops the call (Unavailable)."""
OnText = Callable[[str], Union[bool, None]]
"""Called with each piece of the answer; returning False ends the answer there."""


class AskOptions(TypedDict, total=False):
    """What `Store.ask`, `Store.compress` and `Store.ask_id` take beside model, document and prompt."""

    keep: int
    """Entries to keep per head; without it `ratio` says."""
    ratio: float
    """Of the document's tokens to one kept (default 16)."""
    policy: str
    """"finch-span" (default), "finch", "finch-head", "full", "snapkv", ..."""
    reader: Literal["chunks", "whole"]
    chunk: int
    """Document tokens that go through the model together."""
    seed: int
    """Of policies that draw."""
    storage_dtype: StorageDType
    """How the store keeps the tensors: without it f32 for a model whose compute is "f32", else bf16."""
    instruction: str
    system: str
    chat_template: Literal["chatml", "llama3", "mistral", "plain"]
    pinned: bool
    """Never evicted."""
    shared: bool
    refresh: bool
    """Read again and replace the entry."""
    document_tokens: bool
    """False: the document's ids are not stored beside the entry."""
    zstd: bool
    ttl: float
    """Seconds until the entry expires; without it the store's setting."""
    label: str
    max_tokens: int
    """Of the answer (default 128)."""
    temperature: float
    """0 (default) is greedy."""
    top_p: float
    sampling_seed: int
    stop: Sequence[str]
    on_progress: OnProgress
    on_text: OnText
    cancel: Cancel


class Cancel:
    """A flag that stops calls it was given to, from any thread: `cancel.set()`. The stopped call raises Unavailable
    while it reads, and ends its answer where it is."""

    def __init__(self) -> None:
        self._flag = ffi.new("int32_t*")

    def set(self) -> None:
        self._flag[0] = 1

    def is_set(self) -> bool:
        return bool(self._flag[0])


class Answer:
    """What came of `Store.ask` or `Store.compress`."""

    def __init__(self, pointer: CData, find: Callable[[str], Entry]) -> None:
        self._handle = Handle(pointer, lib.fkv_answer_free, "answer")
        self._find = find
        info = Struct("fkv_answer_info")
        with self._handle.use() as p:
            call(lib.fkv_answer_get_info, p, info.pointer)
            i = info.pointer
            self.id: str = id_hex(i.id)
            """The entry's name: 64 hex digits."""
            self.hit = bool(i.hit)
            """Whether it was found: then no document was read."""
            self.answer: str = text_of(i.text)
            """Empty after `compress`."""
            self.tokens: list[int] = list(ffi.unpack(i.tokens, i.token_count)) if i.token_count else []
            self.ended = bool(i.ended)
            """By the model or a stop string, not by max_tokens."""
            self.stored_bytes: int = i.stored_bytes
            self.ms: dict[str, float] = {
                "lookup": i.lookup_ms, "reload": i.reload_ms, "compress": i.compress_ms, "store": i.store_ms,
                "decode": i.decode_ms,
            }  # fmt: skip
            """Milliseconds of each step, 0 for those that did not happen."""
        self._lock = threading.Lock()
        self._kv: KvSet | None = None

    @property
    def kv(self) -> KvSet:
        """The set that the answer was made from. Its `entry` is what the store says now; None if it is gone."""
        with self._lock:
            if self._kv is None:
                out = ffi.new("fkv_kvset**")
                with self._handle.use() as p:
                    call(lib.fkv_answer_kvset, p, out)
                try:
                    entry = self._find(self.id)
                except errors.Error:  # removed since, or the store is closed
                    entry = None
                self._kv = KvSet(out[0], entry)
            return self._kv

    def close(self) -> None:
        """Lets go of the set's memory before the answer is collected. What was read from it stays."""
        self._handle.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<finchkv.Answer {self.id[:12]} {'hit' if self.hit else 'read'}: {self.answer!r}>"


class _Calls:
    """The Python side of one call's callbacks. What they raise stops the call and is raised again behind it."""

    def __init__(self, on_progress: OnProgress | None, on_text: OnText | None) -> None:
        self.on_progress, self.on_text = on_progress, on_text
        self.raised: BaseException | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def progress(self, read: int, total: int) -> bool:
        return self.on_progress is None or self.on_progress(read, total) is not False

    def text(self, piece: bytes) -> bool:
        text = self._decoder.decode(piece)  # a token may end inside a character
        return not text or self.on_text is None or self.on_text(text) is not False


@ffi.callback("int(void*, uint64_t, uint64_t)")  # type: ignore[untyped-decorator, unused-ignore]
def _on_progress(user: CData, read: int, total: int) -> int:
    calls = ffi.from_handle(user)
    try:
        return 1 if calls.progress(read, total) else 0
    except BaseException as raised:  # KeyboardInterrupt too: it must not be lost in C
        calls.raised = raised
        return 0


@ffi.callback("int(void*, const char*, size_t)")  # type: ignore[untyped-decorator, unused-ignore]
def _on_text(user: CData, text: CData, size: int) -> int:
    calls = ffi.from_handle(user)
    try:
        return 1 if calls.text(bytes(ffi.buffer(text, size))) else 0
    except BaseException as raised:
        calls.raised = raised
        return 0


def token_array(tokens: Sequence[int] | np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Token ids as the library reads them; ValueError for what is no list of 32-bit integers."""
    given = np.asarray(tokens)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise ValueError(f"token ids are a list of integers, not {given.dtype} of {given.ndim} dimensions")
    if given.size and (given.min() < 0 or given.max() >= 1 << 31):
        raise ValueError("a token id is not between 0 and 2^31")
    return np.ascontiguousarray(given, np.int32)


def make_options(document: Text, prompt: Text, options: AskOptions) -> tuple[Struct, _Calls]:
    """The C struct, and what its callbacks call. TypeError for an option that there is not."""
    unknown = set(options) - set(AskOptions.__annotations__)
    if unknown:
        raise TypeError(f"there is no option {', '.join(sorted(unknown))}; see finchkv.AskOptions")
    struct = Struct("fkv_ask_options")
    o = struct.pointer
    for name, value in (("document", document), ("prompt", prompt)):
        if isinstance(value, str):
            struct.set_text(name, value)
        else:
            ids = token_array(value)
            setattr(o, f"{name}_tokens", struct.keep(ffi.from_buffer("int32_t[]", ids)))
            setattr(o, f"{name}_token_count", len(ids))
    for text in ("instruction", "system", "chat_template", "reader", "policy", "label"):
        struct.set_text(text, options.get(text))  # type: ignore[arg-type]
    for number in ("keep", "ratio", "chunk", "seed", "max_tokens", "temperature", "top_p", "sampling_seed"):
        given = options.get(number)
        if given is not None:
            try:
                setattr(o, number, given)
            except OverflowError:
                raise ValueError(f"{number} is {given}: it must be 0 or more, and less than 2^64") from None
    for flag in ("pinned", "shared", "refresh", "zstd"):
        setattr(o, flag, 1 if options.get(flag) else 0)
    o.no_document_tokens = 0 if options.get("document_tokens", True) else 1
    o.ttl_ms = milliseconds("ttl", options.get("ttl"))
    stops = [struct.view(stop) for stop in options.get("stop") or ()]
    if stops:
        o.stop, o.stop_count = struct.keep(ffi.new("fkv_str[]", stops)), len(stops)
    calls = _Calls(options.get("on_progress"), options.get("on_text"))
    o.user = struct.keep(ffi.new_handle(calls))
    o.on_progress = _on_progress  # always: Python handles signals there
    if calls.on_text is not None:
        o.on_text = _on_text
    cancel = options.get("cancel")
    if cancel is not None:
        o.cancel = struct.keep(cancel)._flag
    return struct, calls


def set_storage(struct: Struct, options: AskOptions, compute: str) -> None:
    dtype = options.get("storage_dtype") or ("f32" if compute == "f32" else "bf16")
    struct.pointer.storage_dtype = number_of(dtype, STORAGE_DTYPES, "storage dtype")


def milliseconds(name: str, seconds: float | None) -> int:
    if seconds is None:
        return 0
    if not 0 < seconds < 1e12:
        raise ValueError(f"{name} is {seconds}: a positive number of seconds")
    return max(1, round(seconds * 1000))


def run(
    function: Callable[..., int],
    model: CData,
    store: CData,
    struct: Struct,
    calls: _Calls,
    find: Callable[[str], Entry],
) -> Answer:
    """fkv_ask or fkv_compress, and whatever a callback raised. find: the store's, for `Answer.kv`."""
    out = ffi.new("fkv_answer**")
    try:
        call(function, model, store, struct.pointer, out)
    except errors.Error:
        if calls.raised is not None:
            raise calls.raised from None
        raise
    answer = Answer(out[0], find)
    if calls.raised is not None:
        raise calls.raised
    return answer
