"""Tensors of a set: views, rotation, order, dtypes; and sets that the caller brings."""

import gc
import math
import threading

import numpy as np
import pytest

import finchkv


@pytest.fixture
def kv(store, tiny, document, prompt):
    return store.get(store.compress(tiny, document, prompt, keep=64, chunk=64, policy="finch").id)


def turned(keys, rope, base, interleaved_out):
    """Keys [heads, n, d] turned in the plainest way."""
    out = np.array(keys, np.float64)
    half = rope.rotary_dims // 2
    angles = (base + np.arange(keys.shape[1]))[:, None] * np.array(rope.inv_freq)
    pairs = (
        (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if rope.interleaved else (slice(0, half), slice(half, 2 * half))
    )
    a, b = keys[..., pairs[0]].astype(np.float64), keys[..., pairs[1]].astype(np.float64)
    x, y = a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)
    if interleaved_out:
        out[..., 0 : 2 * half : 2], out[..., 1 : 2 * half : 2] = x, y
    else:
        out[..., :half], out[..., half : 2 * half] = x, y
    return out


def test_arrays_are_views_that_cannot_be_written(kv):
    keys, values = kv.numpy(1)
    assert keys.shape == values.shape == (kv.kv_heads, 64, kv.head_dim) and keys.dtype == np.float32
    again = kv.numpy(1)[1]
    assert again.ctypes.data == values.ctypes.data
    with pytest.raises(ValueError):
        values[0, 0, 0] = 1


def test_one_head_is_a_part_of_all(kv):
    keys, values = kv.numpy(0)
    for head in range(kv.kv_heads):
        some, other = kv.numpy(0, head=head)
        assert (some == keys[head]).all() and (other == values[head]).all()


@pytest.mark.parametrize("base", [0, 1000])
def test_keys_are_turned_to_their_positions(kv, base):
    plain, values = kv.numpy(0)
    for order in ("stored", "half", "interleaved"):
        keys, same = kv.numpy(0, rotate=True, base=base, order=order)
        expected = turned(plain, kv.rope, base, kv.rope.interleaved if order == "stored" else order == "interleaved")
        assert np.abs(keys - expected).max() < 1e-5 * np.abs(plain).max() * max(1, math.log2(base + 2))
        assert (same == values).all()


def test_a_narrow_dtype_is_rounded_once(kv):
    wide, values = kv.numpy(2, rotate=True)
    narrow, rounded = kv.numpy(2, rotate=True, dtype="f16")
    assert narrow.dtype == np.float16 and (narrow == wide.astype(np.float16)).all()
    assert (rounded == values.astype(np.float16)).all()


def test_origins_are_ascending_document_positions(kv, document):
    origins = kv.origins(0)
    assert origins.shape == (kv.origin_rows, 64)
    assert (np.diff(origins.astype(int), axis=1) > 0).all() and origins.max() < len(document)


def test_arrays_outlive_set_and_store(tiny, document, prompt):
    store = finchkv.Store("memory:")
    kv = store.get(store.compress(tiny, document, prompt, keep=64).id)
    values = kv.numpy(0)[1]
    copy = values.copy()
    kv.close()
    store.close()
    del kv, store
    gc.collect()
    assert (values == copy).all()


def test_layers_come_one_by_one(store, kv):
    with store.fetch(kv.entry) as fetch:
        for layer in (2, 0):
            one = fetch.layer(layer)
            assert one.layers == 1 and (one.numpy(0)[0] == kv.numpy(layer)[0]).all()
        whole = fetch.finish()
    assert (whole.numpy(1)[1] == kv.numpy(1)[1]).all()


def test_bf16_is_for_torch(store, tiny, document, prompt):
    torch = pytest.importorskip("torch")
    kv = store.get(store.compress(tiny, document, prompt, keep=64, storage_dtype="bf16").id)
    assert kv.dtype == "bf16"
    keys, values = kv.torch(0)
    assert keys.dtype == torch.bfloat16 and values.data_ptr() == kv.torch(0)[1].data_ptr()  # no copy
    wide = kv.numpy(0)[1]
    assert wide.dtype == np.float32 and (torch.from_numpy(wide.copy()) == values.float()).all()
    with pytest.raises(ValueError, match="numpy has no bf16"):
        kv.numpy(0, dtype="bf16")
    with pytest.raises(ValueError, match="int8"):
        kv.torch(0, dtype=torch.int8)
    turned_keys = kv.torch(0, rotate=True, dtype=torch.float32)[0]
    assert turned_keys.dtype == torch.float32


def test_dlpack_says_what_it_does_not_do(kv):
    tensor = kv.dlpack(0, "values")
    for asked in ({"dl_device": (2, 0)}, {"copy": True}, {"stream": 1}):
        with pytest.raises(BufferError):
            tensor.__dlpack__(**asked)
    assert np.from_dlpack(tensor).shape == tensor.shape
    with pytest.raises(BufferError, match="handed out before"):
        tensor.__dlpack__()


def test_a_fetch_can_be_gone_through_layer_by_layer(store, kv):
    with store.fetch(kv.entry.id) as fetch:
        for index, one in enumerate(fetch):
            assert (one.numpy(0)[1] == kv.numpy(index)[1]).all()
    assert index == kv.layers - 1


def test_bad_arguments(kv):
    with pytest.raises(finchkv.InvalidArgument, match="no layer 9"):
        kv.numpy(9)
    for bad in ({"head": 99}, {"dtype": "f8"}, {"order": "backwards"}, {"base": -1, "rotate": True}):
        with pytest.raises(ValueError):
            kv.numpy(0, **bad)
    with pytest.raises(ValueError):
        kv.numpy(-1)
    kv.close()
    with pytest.raises(finchkv.InvalidArgument, match="set is closed"):
        kv.numpy(0)


def request(dtype=np.float32, **changes):
    rng = np.random.default_rng(5)
    layers = [
        finchkv.PutLayer(*(rng.standard_normal((2, 5, 8)).astype(dtype) for _ in range(2)), [[0, 3, 4, 30, 39]])
        for _ in range(3)
    ]
    fields = {
        "model": b"\x07" * 32, "document": range(100, 140), "prompt": [1, 2], "layers": layers, "key_form": "rotated",
        "next_position": 40, "policy": "snapkv", "rope": finchkv.Rope(rotary_dims=8), "label": "brought",
    }  # fmt: skip
    return finchkv.PutRequest(**{**fields, **changes})


def test_what_is_put_comes_back_verbatim(store):
    for dtype in (np.float32, np.float16):
        put = request(dtype)
        name = store.put(put)
        assert name == store.put_id(put)
        kv = store.get(name)
        for index, layer in enumerate(put.layers):
            keys, values = kv.numpy(index)
            assert keys.tobytes() == layer.keys.tobytes() and values.tobytes() == layer.values.tobytes()
            assert kv.origins(index).tolist() == [[0, 3, 4, 30, 39]]
        assert (kv.key_form, kv.next_position, kv.entry.provenance, kv.entry.label) == (
            "rotated",
            40,
            "client",
            "brought",
        )
        assert kv.rope.inv_freq[1] == pytest.approx(10000 ** (-2 / 8))
        with pytest.raises(finchkv.InvalidArgument, match="rotated"):
            kv.numpy(0, rotate=True)


def test_all_that_names_a_set_counts_in_its_id(store):
    same = store.put_id(request())
    assert same == store.put_id(request(label="other", pinned=True))
    for change in (
        {"model": b"\x08" * 32}, {"weights": b"\x01" * 32}, {"prompt": [1]}, {"document": range(100, 141)}, {"keep": 6},
        {"policy": "knorm"}, {"parameters": {"window": 64}}, {"numeric": "fast"}, {"storage_dtype": "q8"},
    ):  # fmt: skip
        assert store.put_id(request(**change)) != same, change


@pytest.mark.parametrize(
    "change",
    [
        {"model": bytes(32)}, {"model": b"short"}, {"layers": []}, {"key_form": "sideways"}, {"document": []},
        {"layers": [finchkv.PutLayer(np.zeros((2, 5, 8)), np.zeros((2, 5, 8)))]},
        {"layers": [finchkv.PutLayer(np.zeros((2, 5, 8), np.float32), np.zeros((2, 4, 8), np.float32))]},
        {"layers": [finchkv.PutLayer(*(np.zeros((2, 5, 8), np.float32),) * 2, [[9, 3, 4, 5, 6]])]},
        {"rope": finchkv.Rope(rotary_dims=8, inv_freq=(1.0,))},
    ],
)  # fmt: skip
def test_sets_that_do_not_hold_together_are_refused(store, change):
    with pytest.raises(ValueError):  # finchkv.InvalidArgument is one
        store.put(request(**change))


def test_many_fetches_from_many_threads(store, kv):
    expected = kv.numpy(0)[1].tobytes()
    failures = []

    def work():
        for _ in range(50):
            got = store.get(kv.entry.id)
            if got.numpy(0)[1].tobytes() != expected:
                failures.append("differs")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_processor_is_a_device_too(store, kv):
    assert kv.device == "cpu" and kv.to("cpu") is kv
    there = store.get(kv.entry, device="cpu")
    assert there.device == "cpu" and all((a == b).all() for a, b in zip(there.numpy(1), kv.numpy(1), strict=True))
    with store.fetch(kv.entry, device="cpu") as fetch:
        assert (fetch.layer(2).numpy(0)[1] == kv.numpy(2)[1]).all()
    torch = pytest.importorskip("torch")
    plain, named = kv.torch(0), kv.torch(0, device=torch.device("cpu"))
    assert [t.data_ptr() for t in plain] == [t.data_ptr() for t in named]


def test_devices_that_are_not_there(store, kv):
    for bad in ("tpu", "cuda:x", "cuda:-1"):
        with pytest.raises(ValueError, match="there is no device"):
            kv.to(bad)
    with pytest.raises((finchkv.Unavailable, finchkv.Unsupported, finchkv.InvalidArgument), match="CUDA|GPU"):
        store.get(kv.entry, device="cuda:999")
