"""Sets on a GPU: the numbers of those in host memory, on any stream, and caches that never were on the host as tensors.
On machines without an NVIDIA GPU these are skipped."""

import gc
import itertools
import time

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("there is no usable NVIDIA GPU here", allow_module_level=True)

import finchkv  # noqa: E402

GPU = "cuda:0"
DTYPES = (None, "f32", "f16", "bf16")


@pytest.fixture(params=["f32", "f16", "bf16", "q8", "q4"])
def entry(request, store, tiny, document, prompt):
    return store.compress(
        tiny, document, prompt, keep=64, chunk=64, policy="finch", storage_dtype=request.param
    ).id  # fmt: skip


def same(there, here):
    assert there.device == torch.device(GPU) and there.dtype == here.dtype and there.shape == here.shape
    return torch.equal(there.cpu().view(torch.uint8), here.contiguous().view(torch.uint8))


@pytest.mark.parametrize("straight", [False, True])
def test_every_tensor_is_that_of_the_host(store, entry, straight):
    here = store.get(entry)
    there = store.get(entry, device=GPU) if straight else here.to(GPU)
    assert (there.device, there.kept, there.dtype, there.rope) == (GPU, here.kept, here.dtype, here.rope)
    assert (there.origins(1) == here.origins(1)).all()
    turns = itertools.product((False, True), (0, 700), ("stored", "half", "interleaved"), DTYPES, (None, 1))
    for rotate, base, order, dtype, head in turns:
        how = {"rotate": rotate, "base": base, "order": order, "dtype": dtype, "head": head}
        for layer in (0, 2):
            for got, expected in zip(there.torch(layer, **how), here.torch(layer, **how), strict=True):
                assert same(got, expected), how


def test_as_stored_there_is_no_copy(store, entry):
    there = store.get(entry, device=GPU)
    first, again = there.torch(1), there.torch(1)
    assert [t.data_ptr() for t in first] == [t.data_ptr() for t in again]
    assert there.torch(1, head=1)[1].data_ptr() == first[1][1].data_ptr()


def test_layers_come_one_by_one(store, entry):
    here = store.get(entry)
    with store.fetch(entry, device=GPU) as fetch:
        for layer in range(here.layers):
            with fetch.layer(layer) as one:
                keys, values = one.torch(0, rotate=True)
            expected = here.torch(layer, rotate=True)
            assert same(keys, expected[0]) and same(values, expected[1])


def test_tensors_outlive_set_and_store(tiny, document, prompt):
    store = finchkv.Store("memory:")
    kv = store.get(store.compress(tiny, document, prompt, keep=64).id)
    keys, values = kv.torch(0, device=GPU, rotate=True)
    expected = [t.clone() for t in kv.torch(0, rotate=True)]
    kv.close()
    store.close()
    del kv, store
    gc.collect()
    assert same(keys, expected[0]) and same(values, expected[1])


def test_a_slow_reader_on_a_stream_of_its_own(store, entry):
    """What it reads stays, although the tensor is gone and others want its memory."""
    here = store.get(entry)
    there = here.to(GPU)
    stream = torch.cuda.Stream(GPU)
    work = torch.empty(1 << 26, device=GPU)
    for base in range(12):
        with torch.cuda.stream(stream):
            keys = there.torch(0, rotate=True, base=base)[0]
            for i in range(4 * base):
                work.fill_(i)
            copy = torch.empty_like(keys)
            copy.copy_(keys)
            del keys
        others = [there.torch(0, rotate=True, base=5000 + i)[0] for i in range(4)]
        stream.synchronize()
        assert same(copy, here.torch(0, rotate=True, base=base)[0])
        del others


def test_another_stream_than_it_was_made_for_is_refused(store, entry):
    there = store.get(entry, device=GPU)
    tensor = there.dlpack(0, "values", stream=1)
    assert tensor.__dlpack_device__() == (2, 0)
    with pytest.raises(BufferError, match="stream 1"):
        tensor.__dlpack__(stream=12345)
    for_all = there.dlpack(0, "values")
    assert same(torch.utils.dlpack.from_dlpack(for_all), store.get(entry).torch(0)[1])


def test_what_wants_host_memory_says_so(store, entry):
    there = store.get(entry, device=GPU)
    with pytest.raises(ValueError, match="host memory only"):
        there.numpy(0)
    with pytest.raises(finchkv.InvalidArgument, match="on GPU 0"):
        there.to("cpu")
    with pytest.raises(finchkv.Error):
        store.get(entry, device="cuda:99")


@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_on_the_gpu_goes_on_from_a_set(store, document, prompt, monkeypatch, straight, dtype):
    """The same logits as behind a cache made on the host and copied over; no tensor of the set is made on the host."""
    transformers = pytest.importorskip("transformers")
    from finchkv import hf

    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=260,
        intermediate_size=96, max_position_embeddings=1024, initializer_range=0.2,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).eval().to(dtype)
    made = hf.compress(model, None, document[:90], prompt, store=store, keep=40, chunk=40, policy="finch", model_id="x")
    slow = hf.to_cache(made.kv, model, model_id="x", device="cpu")
    model.to(GPU)
    kv = store.get(made.id, device=GPU) if straight else store.get(made.id)
    seen = []
    given = finchkv.KvSet.torch
    monkeypatch.setattr(
        finchkv.KvSet, "torch", lambda self, *a, **k: (seen.append(self.device), given(self, *a, **k))[1]
    )
    cache = hf.to_cache(kv, model, model_id="x")
    assert seen == [GPU] * 3
    kv.close()
    for fast, host in zip(cache.layers, slow.layers, strict=True):
        assert same(fast.keys[0], host.keys[0]) and same(fast.values[0], host.values[0])
        host.keys, host.values, host.device = host.keys.to(GPU), host.values.to(GPU), torch.device(GPU)
    with torch.no_grad():
        logits = model(**hf.inputs(cache, made.prompt)).logits
        expected = model(**hf.inputs(slow, made.prompt)).logits
    assert torch.equal(logits, expected)
    out = model.generate(
        **hf.inputs(hf.to_cache(store.get(made.id), model, model_id="x"), made.prompt),
        max_new_tokens=8, min_new_tokens=8, do_sample=False, pad_token_id=0,
    )  # fmt: skip
    assert out.shape[1] == len(made.prompt) + 8


def test_how_long_it_takes(store, capsys):
    """A figure, not a bar: 128 MiB in bf16, to turned tensors on the GPU; over the host and straight."""
    import numpy as np

    layers, heads, kept, dim = 16, 8, 2048, 128
    rng = np.random.default_rng(1)
    numbers = rng.standard_normal((heads, kept, dim), np.float32)
    tensor = torch.from_numpy(numbers).to(torch.bfloat16)
    rope = finchkv.Rope(theta=10000.0, rotary_dims=dim)
    put = finchkv.PutRequest(
        model=b"\1" * 32, document=list(range(4096)), policy="test", keep=kept, key_form="pre_rope", rope=rope,
        layers=[finchkv.PutLayer(tensor, tensor)] * layers, next_position=kept,
    )  # fmt: skip
    id_ = store.put(put)
    size = 2 * layers * tensor.numel() * 2

    def over_the_host():
        kv = store.get(id_)
        return [[t.to(GPU) for t in kv.torch(layer, rotate=True)] for layer in range(layers)]

    def straight():
        with store.get(id_, device=GPU) as kv:
            return [kv.torch(layer, rotate=True) for layer in range(layers)]

    results = {}
    for make in (over_the_host, straight):
        times = []
        for _ in range(6):
            torch.cuda.synchronize()
            start = time.perf_counter()
            made = make()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
            results[make.__name__] = [[t.cpu() for t in pair] for pair in made]
            del made
        best = sorted(times)[len(times) // 2]
        with capsys.disabled():
            print(
                f"\n{make.__name__}: {best * 1e3:.1f} ms, {size / best / 1e9:.1f} GB/s, first {times[0] * 1e3:.1f} ms"
            )
    for one, other in zip(*results.values(), strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
