"""Sets as llama.cpp's sequence states."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import finchkv
from finchkv import llama

DATA = Path(__file__).resolve().parents[3] / "tests" / "data"


@pytest.fixture
def kv(tiny, store, document, prompt):
    made = store.compress(tiny, document, prompt, policy="finch", keep=32, chunk=64, storage_dtype="f32")
    return store.get(made.id)


@pytest.mark.parametrize("flash_attention", [True, False])
@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32"])
def test_what_goes_out_comes_back(tiny, kv, document, dtype, flash_attention):
    file = llama.to_state(kv, dtype=dtype, flash_attention=flash_attention, document=document)
    assert file.next_position == 32 and file.data[:4] == b"qsgg"
    read, tokens = llama.from_state(file.data, tiny)
    assert len(tokens) == 32 and read.key_form == "rotated" and read.dtype == dtype and read.next_position == 32
    again = llama.to_state(read, dtype=dtype, flash_attention=flash_attention, tokens=tokens)
    assert again.data == file.data
    if dtype == "f32":
        for layer in range(kv.layers):
            keys, values = kv.numpy(layer, rotate=True)
            assert np.array_equal(read.numpy(layer)[0], keys) and np.array_equal(read.numpy(layer)[1], values)


def test_data_has_no_tokens(tiny, kv):
    state = llama.to_state(kv, base=5)
    assert state.next_position == 37
    read, tokens = llama.from_state(state.data, tiny)
    assert tokens == [] and read.origins(0)[0].tolist() == list(range(5, 37))
    ids = list(range(37))
    assert llama.from_state(state.data, tiny, tokens=ids)[1] == ids


def test_what_does_not_fit_is_refused(tiny, kv):
    state = llama.to_state(kv)
    with pytest.raises(finchkv.InvalidArgument, match="up to position 31 and 2 tokens"):
        llama.from_state(state.data, tiny, tokens=[1, 2])
    with pytest.raises(finchkv.Corrupt, match="ends before"):
        llama.from_state(state.data[:-1], tiny)


def changed(tmp_path, what):
    """tiny-llama's file with one bit of its weights, or one piece of its tokenizer, changed."""
    file = bytearray((DATA / "tiny-llama" / "model.gguf").read_bytes())
    if what == "weights":
        file[-1] ^= 1
    else:
        key = b"tokenizer.ggml.tokens"
        # Behind the key: the value's type, the elements' type, their number and the first one's length.
        piece = file.index(key) + len(key) + 4 + 4 + 8 + 8
        file[piece] = ord("z") if file[piece] == ord("q") else ord("q")
    path = tmp_path / f"{what}.gguf"
    path.write_bytes(file)
    return path


@pytest.mark.parametrize(
    ("what", "sentence"),
    [("shape", "layers of"), ("weights", "the weights are others"), ("tokenizer", "another tokenizer")],
)
def test_a_model_that_a_set_is_not_of_is_named(tiny, store, kv, tmp_path, what, sentence):
    llama.check_model(kv, tiny)
    store.check_model(kv.entry, tiny)
    path = DATA / "tiny-qwen3" / "model.gguf" if what == "shape" else changed(tmp_path, what)
    with finchkv.Model(path, device="cpu") as other:
        with pytest.raises(finchkv.InvalidArgument, match=f"is not of .*{sentence}"):
            llama.check_model(kv, other)
        with pytest.raises(finchkv.InvalidArgument, match=f"is not of .*{sentence}"):
            store.check_model(kv.entry, other)
        llm = SimpleNamespace(model_path=str(path), lora_path=None)  # refused before llama.cpp is asked
        with pytest.raises(finchkv.InvalidArgument, match=f"is not of .*{sentence}"):
            llama.restore(kv, llm)
    with pytest.raises(finchkv.InvalidArgument, match="with the adapter tone.gguf"):
        llama.restore(kv, SimpleNamespace(model_path=tiny.path, lora_path="tone.gguf"))


def test_another_model_is_refused(smollm2, kv):
    with pytest.raises(finchkv.InvalidArgument, match="the state has 3 layers, the model has 30"):
        llama.from_state(llama.to_state(kv).data, smollm2)


def test_llama_cpp_decodes_along_the_golden_text(smollm2, smollm2_path, store, golden):
    llama_cpp = pytest.importorskip("llama_cpp")
    llm = llama_cpp.Llama(str(smollm2_path), n_ctx=1024, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False)
    prompt = golden["prompt"]
    same = total = 0
    for case in golden["finch"]:
        made = store.compress(smollm2, golden["doc"], prompt, policy=case["policy"], keep=case["budget"],
                              chunk=case["chunk"], storage_dtype="f32")  # fmt: skip
        at = llama.restore(store.get(made.id), llm, model=smollm2)
        assert at == case["budget"] and llm.n_tokens == at
        llm.eval(prompt + case["greedy"][:-1])
        top = llm.scores[at + len(prompt) - 1 : llm.n_tokens].argmax(1).tolist()
        same += sum(a == b for a, b in zip(top, case["greedy"], strict=True))
        total += len(case["greedy"])
    assert same / total >= 0.95


def test_a_prompt_that_was_asked_before_does_not_go_on_from_a_set(smollm2, smollm2_path, store, golden):
    """llama-cpp-python keeps what is in its cache that a prompt begins with; what a set is, no prompt begins with."""
    llama_cpp = pytest.importorskip("llama_cpp")
    llm = llama_cpp.Llama(str(smollm2_path), n_ctx=1024, n_threads=1, n_threads_batch=1, verbose=False)

    def first(ids, **how):
        return [token for token, _ in zip(llm.generate(ids, temp=0, **how), range(8), strict=False)]

    other = llm.tokenize(b"The capital of France is Paris. The capital of Italy is")
    alone = first(other)
    made = store.compress(smollm2, golden["doc"], golden["prompt"], keep=64)
    at = llama.restore(store.get(made.id), llm)
    assert first(other) == alone
    assert llama.restore(store.get(made.id), llm) == at == 64
    from_set = first(golden["prompt"], reset=False)
    assert llama.restore(store.get(made.id), llm) == at and first(golden["prompt"], reset=False) == from_set
