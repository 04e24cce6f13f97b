"""Caches that kvpress compressed: stored, reloaded in a new process, continued. kvpress 0.5.5 wants transformers < 5.3,
so this runs in an environment of its own (docs/python.md) and is skipped where kvpress is not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

kvpress = pytest.importorskip("kvpress")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import finchkv  # noqa: E402
from finchkv import hf  # noqa: E402

DELIMITER = 259  # of FinchPress: an id that the document does not have


def tiny_model():
    torch.manual_seed(11)
    config = transformers.LlamaConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=260,
        intermediate_size=96, max_position_embeddings=1024, initializer_range=0.2, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def smollm2_model(path):
    path = Path(path)
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return model.eval()


def load(path):
    return smollm2_model(path) if path else tiny_model()


@torch.no_grad()
def go_on(model, cache, prompt, count=16):
    """Greedy, by forward passes, as kvpress's own pipeline does it: generate() of these versions of transformers wants
    the ids of what is in the cache too."""
    given, out = hf.inputs(cache, prompt), []
    for _ in range(count):
        out.append(int(model(**given).logits[0, -1].argmax()))
        position = given["position_ids"][:, -1:] + 1
        given = {"input_ids": torch.tensor([out[-1:]]), "position_ids": position, "past_key_values": cache}
    return out


def bits(tensor):
    return tensor.contiguous().view(torch.int32)


def second_process(store, names, prompt, path, out):
    """What the new process does: the tensors of all entries, and what the model says behind them."""
    model, found = load(path), {}
    with finchkv.Store(store, mode="read") as opened:
        for name in names:
            kv = opened.get(name)
            cache = hf.to_cache(kv, model, model_id="pressed")
            tensors = [(layer.keys, layer.values) for layer in cache.layers]
            found[name] = {"tensors": tensors, "text": go_on(model, cache, prompt)}
    torch.save(found, out)


@pytest.fixture(params=["tiny", "smollm2"])
def model_path(request):
    return "" if request.param == "tiny" else str(request.getfixturevalue("smollm2_path"))


def test_pressed_caches_come_back_in_a_new_process(model_path, document, prompt, tmp_path):
    model = load(model_path)
    snap = kvpress.SnapKVPress(compression_ratio=0.6, window_size=16)
    finch = kvpress.FinchPress(compression_ratio=0.6)
    finch.delimiter_token_id = DELIMITER
    expected = {}
    with finchkv.Store(tmp_path / "kv") as store:
        for name, press, ids in (("snapkv", snap, document), ("finchpress", finch, [*document, DELIMITER, *prompt])):
            cache = transformers.DynamicCache()
            with torch.no_grad(), press(model):
                model(torch.tensor([ids]), past_key_values=cache)
            kept = cache.get_seq_length()
            read = len(document) + (len(prompt) if name == "finchpress" else 0)
            assert kept == pytest.approx(0.4 * read, abs=1)
            # SnapKV leaves keys where they were; FinchPress turns them to 0, 1, ...
            after = kept if name == "finchpress" else len(document)
            stored = hf.from_cache(
                store, cache, model, document=document + prompt if name == "finchpress" else document, policy=name,
                model_id="pressed", next_position=after, parameters={"compression_ratio_ppm": 600_000},
            )  # fmt: skip
            tensors = [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]
            cache.finchkv_next_position = after
            expected[stored] = {"tensors": tensors, "text": go_on(model, cache, prompt)}
    arguments = json.dumps([str(tmp_path / "kv"), list(expected), prompt, model_path, str(tmp_path / "out.pt")])
    subprocess.run([sys.executable, __file__, arguments], check=True, timeout=540)
    found = torch.load(tmp_path / "out.pt")
    assert len(found) == len(expected) == 2
    for stored, want in expected.items():
        got = found[stored]
        assert got["text"] == want["text"] and len(got["text"]) == 16
        for ours, theirs in zip(got["tensors"], want["tensors"], strict=True):
            assert torch.equal(bits(ours[0]), bits(theirs[0])) and torch.equal(bits(ours[1]), bits(theirs[1]))


def test_caches_that_need_masks_beside_them_are_refused(document, tmp_path):
    """Head-wise presses remove nothing: they leave masks in the model, which no cache has."""
    model, cache = tiny_model(), transformers.DynamicCache()
    press = kvpress.AdaKVPress(kvpress.SnapKVPress(compression_ratio=0.6, window_size=16))
    with torch.no_grad(), press(model):
        model(torch.tensor([document]), past_key_values=cache)
    with finchkv.Store("memory:") as store, pytest.raises(finchkv.Unsupported, match="has masked keys"):
        hf.from_cache(store, cache, model, document=document, policy="adakv")


if __name__ == "__main__":
    second_process(*json.loads(sys.argv[1]))
