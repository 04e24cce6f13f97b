"""Stores: where readings are kept, found and asked."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Union

from . import ask as asking
from ._device import device_name, opened
from ._library import CData, Handle, Struct, call, ffi, id_hex, lib, new_id, take_text
from .ask import Answer, AskOptions, Cancel, Text
from .errors import NotFound
from .kvset import KvSet
from .model import Model
from .put import PutRequest, make_put
from .types import Entry, PathLike

if TYPE_CHECKING:
    from typing_extensions import Unpack

Id = Union[str, bytes, Entry, Answer]
"""64 hex digits or the first of them that are unique in the store, the 32 bytes, or what carries an id."""
_PAGE = 256


class Store:
    """A store of readings. May be used from many threads; close it, or use it in a `with`.

    Iterating gives its entries in the order of their ids. `id in store` looks without counting a hit.
    """

    def __init__(
        self,
        url: PathLike,
        *,
        mode: Literal["read", "write"] = "write",
        create: bool | None = None,
        tenant: str | None = None,
        tenant_key: bytes | None = None,
        wait: float = 0,
        publisher: bool = False,
        encryption_key_file: PathLike | None = None,
    ) -> None:
        """Opens a store.

        url: a directory, "rocksdb:DIRECTORY" or "memory:".
        mode: "write" (one process at a time) or "read" (beside a process that writes).
        create: a directory that is missing or empty becomes a store; None: when it is opened for writing.
        tenant, tenant_key: a named tenant and its secret of 16 bytes or more.
        wait: seconds to wait for another process that writes.
        publisher: may put and remove shared entries.
        encryption_key_file: entries are sealed at rest under it (docs/security.md).

        Raises NotFound, Unavailable (another process writes), Corrupt, PermissionDenied, Unsupported.
        """
        if mode not in ("read", "write"):
            raise ValueError(f"mode is {mode!r}: read or write")
        options = Struct("fkv_store_options")
        o = options.pointer
        options.set_text("url", os.fsencode(url))
        o.mode = lib.FKV_WRITE if mode == "write" else lib.FKV_READ
        o.create = 1 if (mode == "write" if create is None else create) else 0
        o.wait_ms = 0 if wait == 0 else min(asking.milliseconds("wait", wait), 0xFFFFFFFF)
        o.publisher = 1 if publisher else 0
        options.set_text("tenant", tenant)
        options.set_text("tenant_key", tenant_key)
        if encryption_key_file is not None:
            options.set_text("encryption_key_file", os.fsencode(encryption_key_file))
        out = ffi.new("fkv_store**")
        call(lib.fkv_store_open, o, out)
        self._handle = Handle(out[0], lib.fkv_store_close, "store")
        self.url = os.fspath(url)
        self.mode = mode

    # Asking

    def ask(self, model: Model, document: Text, prompt: Text, **options: Unpack[AskOptions]) -> Answer:
        """Answers a prompt about a document: from the entry if it is there, else reads, stores and answers.

        document, prompt: texts, or token ids of both. options: see `AskOptions`; the usual ones are `keep` (entries to
        keep per head), `max_tokens` and `on_text` (called with each piece of the answer).

        Raises InvalidArgument (what does not fit the model's window, with the numbers), Unavailable when a callback or
        `cancel` stopped the reading, and whatever a callback raised.
        """
        return self._run(lib.fkv_ask, model, document, prompt, options)

    def compress(self, model: Model, document: Text, prompt: Text, **options: Unpack[AskOptions]) -> Answer:
        """The same without answering: finds the entry, or reads and stores it."""
        return self._run(lib.fkv_compress, model, document, prompt, options)

    async def ask_async(self, model: Model, document: Text, prompt: Text, **options: Unpack[AskOptions]) -> Answer:
        """`ask` in a thread. Callbacks run there. When the task is cancelled the call is stopped, and waited for."""
        return await self._run_async(lib.fkv_ask, model, document, prompt, options)

    async def compress_async(self, model: Model, document: Text, prompt: Text, **options: Unpack[AskOptions]) -> Answer:
        """`compress` in a thread, as `ask_async`."""
        return await self._run_async(lib.fkv_compress, model, document, prompt, options)

    def ask_id(self, model: Model, document: Text, prompt: Text, **options: Unpack[AskOptions]) -> str:
        """The id of the entry that `ask` would look for. Needs no weights."""
        struct, _ = asking.make_options(document, prompt, options)
        asking.set_storage(struct, options, model.compute)
        out = ffi.new("fkv_id*")
        with self._handle.use() as store, model._handle.use() as m:
            call(lib.fkv_ask_id, m, store, struct.pointer, out)
        return id_hex(out)

    def _run(
        self, function: Callable[..., int], model: Model, document: Text, prompt: Text, options: AskOptions
    ) -> Answer:
        struct, calls = asking.make_options(document, prompt, options)
        asking.set_storage(struct, options, model.compute)
        with self._handle.use() as store, model._handle.use() as m:
            return asking.run(function, m, store, struct, calls, self.find)

    async def _run_async(
        self, function: Callable[..., int], model: Model, document: Text, prompt: Text, options: AskOptions
    ) -> Answer:
        cancel = options.get("cancel") or Cancel()
        options["cancel"] = cancel
        work = asyncio.ensure_future(asyncio.to_thread(self._run, function, model, document, prompt, options))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            cancel.set()
            await asyncio.wait([work])  # the caller's document and model may go only when the call has ended
            if not work.cancelled():
                work.exception()  # seen: it is the cancelling
            raise

    # Tensors

    def get(self, id: Id, *, device: Any = None) -> KvSet:
        """All of an entry's tensors, checked, in memory that the set owns. Counts as a hit.

        device: "cuda", "cuda:1" or a torch.device brings them straight there, as they are stored (`KvSet.to`)."""
        with self.fetch(id, device=device) as fetch:
            return fetch.finish()

    async def get_async(self, id: Id, *, device: Any = None) -> KvSet:
        """`get` in a thread. A cancelled task does not wait for it: reading goes on to its end and is dropped."""
        return await asyncio.to_thread(self.get, id, device=device)

    def fetch(self, id: Id, *, device: Any = None) -> Fetch:
        """Begins to read an entry: layer l is usable while later ones are read. Counts as a hit. `device` as in `get`;
        a GPU is given each layer once."""
        name = self._id(id)
        out = ffi.new("fkv_fetch**")
        entry = id if isinstance(id, Entry) else self.find(id_hex(name))
        with self._handle.use() as p:
            if device is None:
                call(lib.fkv_store_fetch, p, name, out)
            else:
                with opened(device_name(device)).use() as there:
                    call(lib.fkv_store_fetch_to, p, name, there, out)
        return Fetch(out[0], entry)

    def put(self, request: PutRequest) -> str:
        """Stores a set that another engine made; the id. Its provenance is "client", and only its tenant sees it."""
        return self._put(lib.fkv_store_put, request)

    def put_id(self, request: PutRequest) -> str:
        """The id that `put` would give it."""
        return self._put(lib.fkv_store_put_id, request)

    def _put(self, function: Callable[..., int], request: PutRequest) -> str:
        struct, out = make_put(request), ffi.new("fkv_id*")
        with self._handle.use() as p:
            call(function, p, struct.pointer, out)
        return id_hex(out)

    # Entries

    def resolve(self, prefix: str) -> str:
        """The one id that begins with these 1 to 64 hex digits. InvalidArgument when several do, naming them."""
        return id_hex(self._resolve(prefix))

    def find(self, id: Id) -> Entry:
        """What is known of an entry. NotFound."""
        out = ffi.new("fkv_entry**")
        with self._handle.use() as p:
            call(lib.fkv_store_find, p, self._id(id), out)
        info = Struct("fkv_entry_info")
        try:
            call(lib.fkv_entry_get_info, out[0], info.pointer)
            return Entry.of(info.pointer)
        finally:
            lib.fkv_entry_free(out[0])

    def check(self, id: Id, model: Model) -> None:
        """Nothing when this model made the entry; InvalidArgument that says what differs: the shape, the position
        encoding, the tokenizer, the rest of the configuration, or the weights."""
        name, out = self._id(id), ffi.new("fkv_entry**")
        with self._handle.use() as p:
            call(lib.fkv_store_find, p, name, out)
        try:
            with model._handle.use() as m:
                call(lib.fkv_entry_check_model, out[0], m)
        finally:
            lib.fkv_entry_free(out[0])

    def document(self, id: Id) -> list[int]:
        """The ids of the document's tokens. NotFound also when the entry was stored without them."""
        name, out, count = self._id(id), ffi.new("fkv_tokens**"), ffi.new("size_t*")
        with self._handle.use() as p:
            call(lib.fkv_store_document_tokens, p, name, out)
        try:
            data = lib.fkv_tokens_data(out[0], count)
            return list(ffi.unpack(data, count[0])) if count[0] else []
        finally:
            lib.fkv_tokens_free(out[0])

    def remove(self, id: Id) -> None:
        """NotFound; PermissionDenied for a store opened for reading, or a shared entry without the right."""
        self._on(lib.fkv_store_remove, id)

    def verify(self, id: Id) -> None:
        """Reads all of an entry and checks it. Corrupt."""
        self._on(lib.fkv_store_verify, id)

    def check_model(self, id: Id, model: Model) -> None:
        """InvalidArgument, with the first difference, unless the entry is of this model: shape, position encoding,
        tokenizer, the rest of the configuration, weights."""
        out = ffi.new("fkv_entry**")
        with self._handle.use() as p:
            call(lib.fkv_store_find, p, self._id(id), out)
        try:
            with model._handle.use() as m:
                call(lib.fkv_entry_check_model, out[0], m)
        finally:
            lib.fkv_entry_free(out[0])

    def label(self, id: Id, label: str) -> None:
        """Gives an entry a label of at most 256 bytes."""
        texts = Struct("fkv_store_options")
        self._on(lib.fkv_store_set_label, id, texts.view(label))

    def pin(self, id: Id, pinned: bool = True) -> None:
        """A pinned entry is never evicted."""
        self._on(lib.fkv_store_set_pinned, id, 1 if pinned else 0)

    def expire(self, id: Id, when: datetime | float | None) -> None:
        """When an entry expires: a time (one without a zone is local), seconds since 1970, or None for never."""
        seconds = when.timestamp() if isinstance(when, datetime) else when
        self._on(lib.fkv_store_set_expiry, id, 0 if seconds is None else max(1, round(seconds * 1000)))

    def export_file(self, id: Id, path: PathLike) -> None:
        """Writes an entry into a safetensors file (docs/formats.md): keys before RoPE, origins, identity."""
        texts = Struct("fkv_store_options")
        self._on(lib.fkv_store_export, id, texts.view(os.fsencode(path)))

    def import_file(self, path: PathLike) -> str:
        """Stores what `export_file` wrote; the id. What is there already stays as it is."""
        texts, out = Struct("fkv_store_options"), ffi.new("fkv_id*")
        with self._handle.use() as p:
            call(lib.fkv_store_import, p, texts.view(os.fsencode(path)), out)
        return id_hex(out)

    def stats(self) -> dict[str, int]:
        """Entries, stored_bytes, raw_bytes, hits, unreadable, disk_bytes: this tenant's."""
        out = ffi.new("fkv_text**")
        with self._handle.use() as p:
            call(lib.fkv_store_stats, p, out)
        stats: dict[str, int] = json.loads(take_text(out[0]))
        return stats

    def __iter__(self) -> Iterator[Entry]:
        after: CData = ffi.NULL
        while True:
            page, after = self._page(after)
            yield from page
            if after == ffi.NULL:
                return

    def _page(self, after: CData) -> tuple[list[Entry], CData]:
        out = ffi.new("fkv_listing**")
        with self._handle.use() as p:
            call(lib.fkv_store_list, p, after, _PAGE, out)
        try:
            entries = []
            info = Struct("fkv_entry_info")
            for index in range(lib.fkv_listing_size(out[0])):
                call(lib.fkv_listing_get_info, out[0], index, info.pointer)
                entries.append(Entry.of(info.pointer))
            following = ffi.new("fkv_id*")
            return entries, following if lib.fkv_listing_next(out[0], following) else ffi.NULL
        finally:
            lib.fkv_listing_free(out[0])

    def __contains__(self, id: object) -> bool:
        if not isinstance(id, (str, bytes, Entry, Answer)):
            return False
        try:
            self.find(id)
        except NotFound:
            return False
        return True

    def _id(self, id: Id) -> CData:
        if isinstance(id, (Entry, Answer)):
            id = id.id
        if isinstance(id, bytes):
            if len(id) != 32:
                raise ValueError(f"an id has 32 bytes, not {len(id)}")
            return new_id(id)
        if len(id) != 64:
            return self._resolve(id)
        texts, out = Struct("fkv_store_options"), ffi.new("fkv_id*")
        call(lib.fkv_id_parse, texts.view(id), out)
        return out

    def _resolve(self, prefix: str) -> CData:
        texts, out = Struct("fkv_store_options"), ffi.new("fkv_id*")
        with self._handle.use() as p:
            call(lib.fkv_store_resolve, p, texts.view(prefix), out)
        return out

    def _on(self, function: Callable[..., int], id: Id, *arguments: Any) -> None:
        name = self._id(id)
        with self._handle.use() as p:
            call(function, p, name, *arguments)

    def close(self) -> None:
        """Closes the store when no call uses it any more. Sets that came from it stay valid."""
        self._handle.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<finchkv.Store {self.url!r} {self.mode}{' closed' if self._handle.closed else ''}>"


class Fetch:
    """An entry on its way. Used by one thread at a time; iterating waits for one layer after the other."""

    def __init__(self, pointer: CData, entry: Entry) -> None:
        self._handle = Handle(pointer, lib.fkv_fetch_free, "fetch")
        self.entry = entry

    def layer(self, layer: int) -> KvSet:
        """Waits for one layer: a set that has this layer alone, as its layer 0."""
        out = ffi.new("fkv_kvset**")
        with self._handle.use() as p:
            call(lib.fkv_fetch_layer, p, layer, out)
        return KvSet(out[0], self.entry)

    async def layer_async(self, layer: int) -> KvSet:
        """`layer` in a thread. One at a time: await each before the next."""
        return await asyncio.to_thread(self.layer, layer)

    def __iter__(self) -> Iterator[KvSet]:
        return (self.layer(index) for index in range(self.entry.layers))

    def finish(self) -> KvSet:
        """Waits for all layers. The fetch is of no further use."""
        out = ffi.new("fkv_kvset**")
        with self._handle.use() as p:
            call(lib.fkv_fetch_finish, p, out)
        return KvSet(out[0], self.entry)

    def close(self) -> None:
        self._handle.close()

    def __enter__(self) -> Fetch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
