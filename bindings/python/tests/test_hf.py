"""Sets in transformers: tiny random models of several architectures."""

import copy

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import finchkv  # noqa: E402
from finchkv import hf  # noqa: E402

SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 260}
LLAMA_LIKE = {**SIZES, "intermediate_size": 96, "max_position_embeddings": 1024, "initializer_range": 0.2}


def build(name, seed=1, **changes):
    configs = {
        "llama": lambda: transformers.LlamaConfig(**{**LLAMA_LIKE, "num_key_value_heads": 2, **changes}),
        "qwen2": lambda: transformers.Qwen2Config(**{**LLAMA_LIKE, "num_key_value_heads": 2, **changes}),
        "qwen3": lambda: transformers.Qwen3Config(
            **{**LLAMA_LIKE, "num_key_value_heads": 2, "head_dim": 16, **changes}
        ),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**{**LLAMA_LIKE, "rotary_pct": 0.5, **changes}),
        "cohere": lambda: transformers.CohereConfig(**{**LLAMA_LIKE, "num_key_value_heads": 2, **changes}),
        "gpt2": lambda: transformers.GPT2Config(
            n_embd=48, n_layer=3, n_head=4, vocab_size=260, n_positions=1024, initializer_range=0.2, **changes
        ),
        "mistral": lambda: transformers.MistralConfig(**{**LLAMA_LIKE, "num_key_value_heads": 2, **changes}),
    }
    torch.manual_seed(seed)
    config = configs[name]()
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    return transformers.AutoModelForCausalLM.from_config(config).eval()


ARCHITECTURES = ["llama", "qwen2", "qwen3", "gpt_neox", "cohere", "gpt2"]


@pytest.fixture
def doc(document):
    return document[:90]


def greedy(model, count=12, **given):
    out = model.generate(**given, max_new_tokens=count, do_sample=False, pad_token_id=0)
    return out[0, given["input_ids"].shape[1] :].tolist()


def logits(model, given):
    with torch.no_grad():
        return model(**given).logits[0]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("policy", ["finch", "finch-span"])
def test_a_document_kept_whole_is_continued_as_if_it_had_been_read(store, doc, prompt, name, policy):
    model = build(name)
    whole = torch.tensor([doc + prompt])
    expected = logits(model, {"input_ids": whole})[-len(prompt) :]
    made = hf.compress(model, None, doc, prompt, store=store, keep=len(doc), chunk=len(doc), policy=policy)
    assert made.kv.key_form == ("none" if name == "gpt2" else "pre_rope") and not made.hit
    assert made.kv.rope.interleaved == (name == "cohere")
    got = logits(model, hf.inputs(hf.to_cache(made.kv, model), made.prompt))
    assert (got - expected).abs().max() < 2e-5 * expected.abs().max()
    text = greedy(model, **hf.inputs(hf.to_cache(made.kv, model), made.prompt))
    assert text == greedy(model, input_ids=whole, attention_mask=torch.ones_like(whole))
    assert len(set(text)) > 1 or name == "gpt2"
    again = hf.compress(model, None, doc, prompt, store=store, keep=len(doc), chunk=len(doc), policy=policy)
    assert again.hit and again.id == made.id


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_finch_keeps_what_the_prompts_attention_says(store, doc, prompt, name):
    """One chunk, against the model's own attention probabilities."""
    model = build(name)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(torch.tensor([doc + prompt]), output_attentions=True).attentions
    total, before, keep = len(doc) + len(prompt), len(doc), 20
    made = hf.compress(model, None, doc, prompt, store=store, keep=keep, chunk=before, policy="finch")
    weights = (before + 1 + torch.arange(len(prompt))) / total
    for layer, attention in enumerate(attentions):
        scores = (attention[0, :, before:, :before] * weights[:, None]).sum(dim=(0, 1))
        best = scores.sort(descending=True)
        assert best.values[keep - 1] - best.values[keep] > 1e-5  # else the case says nothing
        assert made.kv.origins(layer).tolist() == [sorted(best.indices[:keep].tolist())]


@pytest.mark.parametrize("policy", ["finch", "finch-span"])
def test_chunks_share_the_budget_and_entries_stay_in_order(store, document, prompt, policy):
    model, seen = build("llama"), []
    made = hf.compress(
        model, None, document, prompt, store=store, keep=30, chunk=64, policy=policy,
        on_progress=lambda *at: seen.append(at),
    )  # fmt: skip
    assert seen == [(64, 300), (128, 300), (192, 300), (256, 300), (300, 300)]
    assert made.kv.kept == (30, 30, 30) and made.kv.next_position == 30
    rows = 1 if policy == "finch" else 2
    for layer in range(3):
        origins = made.kv.origins(layer).astype(int)
        assert origins.shape == (rows, 30) and (origins[:, 1:] > origins[:, :-1]).all()
    assert len(greedy(model, **hf.inputs(hf.to_cache(made.kv, model), made.prompt))) == 12
    with pytest.raises(finchkv.Unavailable):
        hf.compress(model, None, document, prompt, store=store, keep=31, on_progress=lambda *_: False)


def test_what_went_through_a_file_is_still_the_models_own(store, doc, prompt, tmp_path):
    model = build("cohere")  # interleaved pairs
    made = hf.compress(model, None, doc, prompt, store=store, keep=30)
    store.export_file(made.id, tmp_path / "entry.safetensors")
    with finchkv.Store("memory:") as other:
        kv = other.get(other.import_file(tmp_path / "entry.safetensors"))
    ours, theirs = hf.to_cache(made.kv, model), hf.to_cache(kv, model)
    for one, two in zip(ours.layers, theirs.layers, strict=True):
        assert torch.equal(one.keys, two.keys) and torch.equal(one.values, two.values)


def test_bf16_models_keep_bf16(store, doc, prompt):
    model = build("qwen2").to(torch.bfloat16)
    made = hf.compress(model, None, doc, prompt, store=store, keep=40, chunk=32)
    assert made.kv.dtype == "bf16" and made.kv.entry.numeric == "fast"
    cache = hf.to_cache(made.kv, model)
    assert cache.layers[1].values.data_ptr() == made.kv.torch(1)[1].data_ptr()  # no copy
    assert cache.layers[0].keys.dtype == torch.bfloat16
    assert len(greedy(model, **hf.inputs(cache, made.prompt))) == 12


def test_caches_of_transformers_go_back_verbatim(store, doc, prompt):
    for name in ("llama", "gpt2"):
        model = build(name)
        with torch.no_grad():
            cache = model(torch.tensor([doc]), use_cache=True).past_key_values
        tensors = [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]
        made = hf.from_cache(store, cache, model, document=doc, policy="full", model_id=name)
        kv = store.get(made)
        assert kv.key_form == ("none" if name == "gpt2" else "rotated") and kv.next_position == len(doc)
        back = hf.to_cache(kv, model, model_id=name)
        for layer, (keys, values) in zip(back.layers, tensors, strict=True):
            assert torch.equal(layer.keys, keys) and torch.equal(layer.values, values)
        whole = torch.tensor([doc + prompt])
        assert greedy(model, **hf.inputs(back, prompt)) == greedy(
            model, input_ids=whole, attention_mask=torch.ones_like(whole)
        )


def test_thinned_caches_go_on_at_their_positions(store, doc, prompt):
    """A press keeps keys where they were: what follows goes on behind the document, not behind the entries."""
    model = build("llama")
    with torch.no_grad():
        cache = model(torch.tensor([doc]), use_cache=True).past_key_values
    chosen = torch.arange(0, len(doc), 3)
    thin = [(layer.keys[:, :, chosen], layer.values[:, :, chosen]) for layer in cache.layers]
    origins = [chosen[None].numpy()] * 3
    made = hf.from_cache(store, thin, model, document=doc, policy="every-third", origins=origins)
    assert store.get(made).origins(1).tolist() == [chosen.tolist()]
    with pytest.raises(finchkv.InvalidArgument, match="origins for 2 layers"):
        hf.from_cache(store, thin, model, document=doc, policy="every-third", origins=origins[:2])
    given = hf.inputs(hf.to_cache(store.get(made), model), prompt)
    got = logits(model, given)
    mask = torch.full((len(prompt), len(doc) + len(prompt)), float("-inf"))
    mask[:, chosen] = 0
    mask[:, len(doc) :] = torch.full((len(prompt), len(prompt)), float("-inf")).triu(1)
    with torch.no_grad():
        whole = model(torch.tensor([doc]), use_cache=True).past_key_values
        expected = model(
            torch.tensor([prompt]), past_key_values=whole, attention_mask=mask[None, None],
            position_ids=torch.arange(len(doc), len(doc) + len(prompt))[None],
        ).logits[0]  # fmt: skip
    assert (got - expected).abs().max() < 2e-5 * expected.abs().max()
    assert given["position_ids"][0, 0] == len(doc)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_generate_goes_on_without_hf_inputs_where_the_prompt_follows_the_entries(store, doc, prompt, name):
    model = build(name)
    made = hf.compress(model, None, doc, prompt, store=store, keep=20)
    ids = torch.tensor([made.prompt])
    seen = torch.ones((1, 20 + len(prompt)), dtype=torch.long)
    cache = hf.to_cache(made.kv, model)
    plain = greedy(model, input_ids=ids, attention_mask=seen, past_key_values=cache)
    assert plain == greedy(model, **hf.inputs(hf.to_cache(made.kv, model), prompt))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_several_prompts_behind_one_set(store, doc, prompt, name):
    model = build(name)
    made = hf.compress(model, None, doc, prompt, store=store, keep=20)
    prompts = [prompt, prompt[3:8], [7]]
    alone = [greedy(model, **hf.inputs(hf.to_cache(made.kv, model), one)) for one in prompts]
    given = hf.inputs(hf.to_cache(made.kv, model), prompts)
    out = model.generate(**given, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert out[:, len(prompt) :].tolist() == alone
    with pytest.raises(ValueError, match="sequences already"):
        hf.inputs(given["past_key_values"], prompts)
    with pytest.raises(ValueError, match="no tokens"):
        hf.inputs(hf.to_cache(made.kv, model), [])


def test_a_model_that_changed_its_dtype_is_looked_at_again(store, doc, prompt):
    model = build("llama")
    hf.compress(model, None, doc, prompt, store=store, keep=20)
    made = hf.compress(model.to(torch.bfloat16), None, doc, prompt, store=store, keep=20)
    assert made.kv.dtype == "bf16"
    hf.to_cache(made.kv, model)  # its RoPE is the model's of now


def test_sets_and_models_that_do_not_belong_together(store, doc, prompt):
    model = build("llama")
    kv = hf.compress(model, None, doc, prompt, store=store, keep=20).kv

    def refused(other, sentence, **options):
        with pytest.raises(finchkv.InvalidArgument, match=sentence):
            hf.to_cache(kv, other, **options)

    refused(build("llama", seed=2), "weights whose samples hash")
    refused(build("llama", num_hidden_layers=2), "the set has 3 layers and the model 2")
    refused(build("llama", num_key_value_heads=4), "the set has 2 KV heads and the model 4")
    refused(build("llama", head_dim=16), "the set has 12 dimensions a head and the model 16")
    other_theta = build("llama", rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    refused(other_theta, "RoPE theta is 10000 and the model's 5000")
    refused(build("gpt2"), "the set has 2 KV heads and the model 4")
    refused(model, "model_id", model_id="another")
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.model.layers[1].mlp.down_proj.weight.mul_(1.001)
    refused(changed, "weights whose samples hash")
    refused(model.to(torch.bfloat16), "RoPE frequency 1 is")  # .to() rounds those too


def test_entries_of_the_engine_need_their_file(store, tiny, document, prompt):
    kv = store.get(store.compress(tiny, document, prompt, keep=20).id)
    description = tiny.describe()
    shape = {
        "num_hidden_layers": description["layers"], "num_attention_heads": description["heads"],
        "num_key_value_heads": description["kv_heads"], "head_dim": description["head_dim"],
        "hidden_size": description["heads"] * description["head_dim"], "vocab_size": description["vocab"],
        "rope_parameters": {"rope_type": "default", "rope_theta": kv.rope.theta},
    }  # fmt: skip
    other = build("llama", **shape)
    with pytest.raises(finchkv.InvalidArgument, match="name the file that it was loaded from"):
        hf.to_cache(kv, other)
    pytest.importorskip("gguf")
    with pytest.raises(finchkv.InvalidArgument, match="have other weights: token_embd.weight"):
        hf.to_cache(kv, other, gguf=tiny)


def test_models_and_calls_that_are_refused_by_name(store, doc, prompt):
    t5 = transformers.T5ForConditionalGeneration(
        transformers.T5Config(d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4, vocab_size=100)
    ).eval()
    with pytest.raises(finchkv.Unsupported, match="T5ForConditionalGeneration is an encoder-decoder model"):
        hf.compress(t5, None, doc, prompt, store=store, keep=20)
    windows = build("mistral", sliding_window=16)
    with pytest.raises(finchkv.Unsupported, match="MistralForCausalLM"):
        hf.compress(windows, None, doc, prompt, store=store, keep=20)
    dynamic = build("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    with pytest.raises(finchkv.Unsupported, match="'dynamic'"):
        hf.compress(dynamic, None, doc, prompt, store=store, keep=20)
    model = build("llama")
    for options, sentence in (
        ({"keep": 0}, "at least 1"),
        ({"keep": 2, "ratio": 4}, "both given"),
        ({"keep": 20, "chunk": 5000}, "do not fit the 1024 positions"),
        ({"keep": 20, "policy": "snapkv"}, "no policy 'snapkv'"),
    ):
        with pytest.raises(finchkv.InvalidArgument, match=sentence):
            hf.compress(model, None, doc, prompt, store=store, **options)
    with pytest.raises(finchkv.InvalidArgument, match="the document has no tokens"):
        hf.compress(model, None, [], prompt, store=store, keep=20)
    with pytest.raises(finchkv.InvalidArgument, match="training mode"):
        hf.compress(model.train(), None, doc, prompt, store=store, keep=20)


def test_layers_of_unequal_counts_are_refused_with_their_numbers(store, doc):
    model = build("llama")
    layers = [(torch.randn(1, 2, n, 12), torch.randn(1, 2, n, 12)) for n in (5, 7, 5)]
    made = hf.from_cache(store, layers, model, document=doc, policy="pyramid")
    with pytest.raises(finchkv.Unsupported, match="layer 1 keeps 7 entries and layer 0 5"):
        hf.to_cache(store.get(made), model)
    batch = [(torch.randn(2, 2, 5, 12), torch.randn(2, 2, 5, 12))] * 3
    with pytest.raises(finchkv.InvalidArgument, match="one sequence"):
        hf.from_cache(store, batch, model, document=doc, policy="pyramid")


def test_the_model_is_left_as_it_was(store, doc, prompt):
    model = build("gpt_neox")
    before = logits(model, {"input_ids": torch.tensor([doc])})
    implementation = model.config._attn_implementation
    hf.compress(model, None, doc, prompt, store=store, keep=20)
    assert model.config._attn_implementation == implementation
    assert torch.equal(logits(model, {"input_ids": torch.tensor([doc])}), before)
