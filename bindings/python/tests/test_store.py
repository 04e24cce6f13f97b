"""Stores: opening, asking, entries, errors."""

import asyncio
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from conftest import DATA

import finchkv

OPTIONS = {"keep": 64, "chunk": 64, "policy": "finch", "max_tokens": 8}


@pytest.fixture
def asked(store, tiny, document, prompt):
    return store.ask(tiny, document, prompt, label="a label", **OPTIONS)


def test_a_second_asking_is_a_hit_with_the_same_answer(store, tiny, document, prompt, asked):
    again = store.ask(tiny, document, prompt, **OPTIONS)
    assert not asked.hit and again.hit
    assert again.id == asked.id == store.ask_id(tiny, document, prompt, **OPTIONS)
    assert again.tokens == asked.tokens and len(asked.tokens) > 0
    assert asked.ms["compress"] > 0 and again.ms["compress"] == 0
    assert asked.kv.kept == (64, 64, 64)
    assert asked.kv.entry.id == asked.id


def test_an_entry_says_how_it_was_made(store, tiny, asked, document, prompt):
    entry = store.find(asked.id)
    assert (entry.label, entry.policy, entry.reader, entry.keep, entry.chunk) == ("a label", "finch", "chunks", 64, 64)
    assert (entry.doc_tokens, entry.prompt_tokens, entry.max_kept) == (len(document), len(prompt), 64)
    assert (entry.dtype, entry.storage_dtype, entry.key_form, entry.numeric) == ("f32", "f32", "pre_rope", "reference")
    assert entry.provenance == "computed" and entry.model.hex() == tiny.describe()["model_fingerprint"]
    assert entry.weights.hex() == tiny.describe()["weights_fingerprint"]
    assert datetime.now(timezone.utc) - entry.created < timedelta(minutes=5)
    assert entry.expires is None


def test_iterating_pages_through_all_entries_in_order(store, tiny, document, prompt):
    ids = [store.compress(tiny, document[: 20 + i], prompt, keep=4).id for i in range(5)]
    store_module = __import__("finchkv.store", fromlist=["store"])
    page, store_module._PAGE = store_module._PAGE, 2
    try:
        assert [entry.id for entry in store] == sorted(ids)
    finally:
        store_module._PAGE = page
    assert ids[0] in store and store.find(ids[0]) in store
    assert "00" * 32 not in store and 7 not in store
    assert store.stats()["entries"] == 5


def test_labels_pins_expiry_and_removal(store, asked):
    store.label(asked, "another")
    store.pin(asked)
    when = datetime.now(timezone.utc) + timedelta(hours=1)
    store.expire(asked, when)
    entry = store.find(asked)
    assert entry.label == "another" and entry.pinned
    assert abs(entry.expires - when) < timedelta(milliseconds=2)
    store.pin(asked, False)
    store.expire(asked, None)
    entry = store.find(bytes.fromhex(asked.id))
    assert not entry.pinned and entry.expires is None
    store.verify(asked.id[:10])
    store.remove(asked.id)
    with pytest.raises(finchkv.NotFound):
        store.find(asked.id)


def test_what_is_exported_can_be_imported(store, asked, tmp_path):
    path = tmp_path / "entry.safetensors"
    store.export_file(asked.id, path)
    with finchkv.Store("memory:") as other:
        assert other.import_file(path) == asked.id
        assert (other.get(asked.id).numpy(1)[0] == asked.kv.numpy(1)[0]).all()
        assert other.find(asked.id).provenance == "imported"


def test_errors_have_the_codes_of_the_c_abi(store, tiny, tmp_path, prompt):
    with pytest.raises(finchkv.NotFound) as error:
        store.find("00" * 32)
    assert error.value.code == 2 and error.value.name == "not_found" and "0000" in str(error.value)
    assert isinstance(error.value, LookupError) and isinstance(error.value, finchkv.Error)
    with pytest.raises(finchkv.InvalidArgument, match="not the start of a cache id"):
        store.find("not hex")
    with pytest.raises(finchkv.InvalidArgument, match="document"):
        store.ask(tiny, [], prompt)
    with pytest.raises(finchkv.Unsupported):
        finchkv.Store("tcp://127.0.0.1:1")
    with pytest.raises(finchkv.Error):
        finchkv.Store(tmp_path / "nothing here", mode="read")
    with pytest.raises(finchkv.NotFound):
        finchkv.Model(tmp_path / "nothing.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(finchkv.Error):
        finchkv.Model(tmp_path / "bad.gguf")


@pytest.mark.parametrize(
    "options", [{"kep": 3}, {"storage_dtype": "f64"}, {"ttl": -1}, {"policy": "none"}, {"keep": -1}, {"stop": 7}]
)
def test_options_that_there_are_not(store, tiny, document, prompt, options):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        store.compress(tiny, document, prompt, **options)


def test_token_ids_that_are_none(store, tiny, prompt):
    for bad in ([1.5], [[1, 2]], [-1], [1 << 40]):
        with pytest.raises(ValueError):
            store.compress(tiny, bad, prompt)


def test_progress_and_text_come_while_it_works(store, tiny, document, prompt):
    progress, pieces = [], []
    answer = store.ask(
        tiny, document, prompt, on_progress=lambda *at: progress.append(at), on_text=pieces.append, **OPTIONS
    )
    assert progress[-1] == (len(document), len(document)) and len(progress) > 2
    assert "".join(pieces) == answer.answer


def test_callbacks_stop_the_call(store, tiny, document, prompt):
    with pytest.raises(finchkv.Unavailable):
        store.compress(tiny, document, prompt, on_progress=lambda *_: False, **OPTIONS)

    class Mine(Exception):
        pass

    def fails(*_):
        raise Mine

    with pytest.raises(Mine):
        store.compress(tiny, document, prompt, on_progress=fails, **OPTIONS)
    cancel = finchkv.Cancel()
    cancel.set()
    with pytest.raises(finchkv.Unavailable):
        store.compress(tiny, document, prompt, cancel=cancel, **OPTIONS)
    assert len(list(store)) == 0


def test_asyncio(store, tiny, document, prompt):
    async def both():
        answer = await store.ask_async(tiny, document, prompt, **OPTIONS)
        kv = await store.get_async(answer.id)
        return answer, kv

    answer, kv = asyncio.run(both())
    assert kv.entry.id == answer.id and answer.tokens

    async def cancelled():
        began = threading.Event()
        task = asyncio.create_task(
            store.compress_async(tiny, document * 40, prompt, keep=8, chunk=16, on_progress=lambda *_: began.set())
        )
        await asyncio.to_thread(began.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert len(list(store)) == 1

    async def given_none():
        return await store.compress_async(tiny, document, prompt, cancel=None, **OPTIONS)

    assert asyncio.run(given_none()).hit

    async def layers():
        with store.fetch(answer.id) as fetch:
            return [await fetch.layer_async(index) for index in range(3)]

    assert [one.kept for one in asyncio.run(layers())] == [(64,)] * 3


def test_other_threads_run_while_the_library_works(store, tiny, document, prompt):
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    spans = []
    thread.start()
    try:
        for i in range(5):
            began = time.perf_counter()
            store.compress(tiny, document * 8, prompt, keep=64, chunk=256, seed=0, label=str(i), refresh=True)
            spans.append((began, time.perf_counter()))
    finally:
        stop.set()
        thread.join()
    inside = sum(any(a < t < b for a, b in spans) for t in ticks)
    assert inside >= 5


def test_a_reader_sees_what_another_handle_writes(tiny, document, prompt, tmp_path):
    with finchkv.Store(tmp_path / "kv") as writer:
        answer = writer.compress(tiny, document, prompt, **OPTIONS)
        with finchkv.Store(tmp_path / "kv", mode="read") as reader:
            kv = reader.get(answer.id)
            with pytest.raises(finchkv.PermissionDenied):
                reader.remove(answer.id)
            second = writer.compress(tiny, document[:100], prompt, **OPTIONS)
            assert second.id in reader
        keys = kv.numpy(0)[0]
    assert (keys == answer.kv.numpy(0)[0]).all()


def test_tenants_do_not_see_each_other(tiny, document, prompt, tmp_path):
    with finchkv.Store(tmp_path / "kv", tenant="a", tenant_key=b"0123456789abcdef") as mine:
        answer = mine.compress(tiny, document, prompt, **OPTIONS)
        assert answer.id in mine
    with finchkv.Store(tmp_path / "kv") as other:
        assert answer.id not in other


def test_an_answer_keeps_no_closed_store_open(tiny, document, prompt, tmp_path):
    with finchkv.Store(tmp_path / "kv") as store:
        answer = store.ask(tiny, document, prompt, **OPTIONS)
    with finchkv.Store(tmp_path / "kv") as again, answer:
        assert answer.kv.kept == (64, 64, 64) and answer.kv.entry is None
        assert (again.get(answer.id).numpy(0)[0] == answer.kv.numpy(0)[0]).all()


def test_entries_say_whether_a_model_made_them_and_of_what(store, tiny, asked, document, prompt):
    store.check(asked, tiny)
    with finchkv.Model(DATA / "tiny-qwen2" / "model.gguf", compute="f32", device="cpu") as other:
        with pytest.raises(finchkv.InvalidArgument):
            store.check(asked, other)
    assert store.document(asked.id) == document
    bare = store.compress(tiny, document[:50], prompt, keep=8, document_tokens=False)
    with pytest.raises(finchkv.NotFound):
        store.document(bare)


def test_closed_handles_say_so(tiny, tmp_path):
    store = finchkv.Store("memory:")
    with store:
        pass
    store.close()
    with pytest.raises(finchkv.InvalidArgument, match="store is closed"):
        store.stats()
    assert "closed" in repr(store)


def test_closing_waits_for_calls_in_other_threads(tiny, document, prompt):
    for _ in range(20):
        store = finchkv.Store("memory:")
        failures = []

        def use(opened=store, failed=failures):
            try:
                for _ in range(50):
                    opened.stats()
            except finchkv.InvalidArgument:
                pass
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        store.close()
        for thread in threads:
            thread.join()
        assert not failures


def test_a_model_describes_itself_and_tokenizes(smollm2, golden):
    description = smollm2.describe()
    assert (description["layers"], description["kv_heads"], description["template"]) == (30, 3, "chatml")
    for text, ids in golden["tokenize"]:
        assert smollm2.tokenize(text, parse_special=True) == ids
    for text, ids in golden["tokenize_plain"]:
        assert smollm2.tokenize(text) == ids
        assert smollm2.detokenize(ids) == text


def test_smollm2_answers_as_the_golden_data_say(smollm2, golden, store):
    case = golden["finch"][0]
    pieces = []
    answer = store.ask(
        smollm2, golden["document_text"], golden["prompt_text"], keep=case["budget"], chunk=case["chunk"],
        policy=case["policy"], max_tokens=24, on_text=pieces.append,
    )  # fmt: skip
    assert answer.tokens == case["greedy"] and answer.answer == case["text"] == "".join(pieces)


def test_a_model_gives_the_ids_that_asking_makes(store, smollm2, golden):
    document, prompt = golden["document_text"], golden["prompt_text"]
    ids = smollm2.encode(document, prompt)
    assert ids == (golden["doc"], golden["prompt"])
    assert smollm2.encode_prompt(prompt) == golden["prompt"]
    assert store.ask_id(smollm2, *ids, keep=64) == store.ask_id(smollm2, document, prompt, keep=64)
    assert smollm2.encode_prompt(prompt, chat_template="plain") != golden["prompt"]
    with pytest.raises(finchkv.InvalidArgument, match="the prompt is empty"):
        smollm2.encode_prompt("")


@pytest.mark.parametrize("name", ["keep", "chunk", "seed", "max_tokens"])
def test_a_negative_number_is_named(store, tiny, document, prompt, name):
    with pytest.raises(ValueError, match=f"{name} is -1: it must be 0 or more"):
        store.ask(tiny, document, prompt, **{name: -1})
