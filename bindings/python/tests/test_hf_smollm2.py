"""SmolLM2 in transformers against the golden data: the same stored sets, the same text."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("gguf")

from finchkv import hf  # noqa: E402
from finchkv.hf.texts import INSTRUCTION, encode  # noqa: E402


def check_continuation(model, case, kv, prompt):
    with torch.no_grad():
        out = model(**hf.inputs(hf.to_cache(kv, model), prompt)).logits[0, -1]
    for token, logit in zip(case["top5"], case["top5_logits"], strict=True):
        assert abs(out[token].item() - logit) < 1e-2
    given = hf.inputs(hf.to_cache(kv, model), prompt)
    made = model.generate(**given, max_new_tokens=24, do_sample=False, pad_token_id=0)[0, len(prompt) :].tolist()
    if len(made) > len(case["greedy"]):  # the end token is not part of the golden text
        assert len(made) == len(case["greedy"]) + 1 and len(made) < 24
        made.pop()
    assert made == case["greedy"]


@pytest.fixture(scope="module")
def cases(golden):
    return [case for case in golden["finch"] if case["policy"] in ("finch", "finch-span")]


def test_sets_of_the_engine_give_the_same_text_and_logits(store, smollm2, torch_smollm2, golden, cases):
    model, _ = torch_smollm2
    hf.bind_gguf(model, smollm2)
    for case in cases:
        answer = store.ask(
            smollm2, golden["doc"], golden["prompt"], keep=case["budget"], chunk=case["chunk"], policy=case["policy"],
            max_tokens=24,
        )  # fmt: skip
        assert answer.tokens == case["greedy"]
        check_continuation(model, case, answer.kv, golden["prompt"])


def test_the_torch_model_keeps_what_the_golden_data_say(store, torch_smollm2, golden, cases):
    model, tokenizer = torch_smollm2
    assert encode(tokenizer, golden["document_text"], golden["prompt_text"], None, INSTRUCTION) == (
        golden["doc"],
        golden["prompt"],
    )
    for case in cases:
        made = hf.compress(
            model, tokenizer, golden["document_text"], golden["prompt_text"], store=store, keep=case["budget"],
            chunk=case["chunk"], policy=case["policy"],
        )  # fmt: skip
        same = total = 0
        for layer, rows in enumerate(case["kept_origin"]):
            for ours, theirs in zip(made.kv.origins(layer).tolist(), rows, strict=True):
                same, total = same + len(set(ours) & set(theirs)), total + len(theirs)
        # Where a gap is below 1e-4 another order of summation may swap entries at that boundary.
        assert same == total if case["smallest_gap"] > 1e-4 else same > 0.99 * total
        if same == total:
            check_continuation(model, case, made.kv, made.prompt)


def test_special_tokens_in_a_text_are_plain(torch_smollm2, golden):
    _, tokenizer = torch_smollm2
    document, _ = encode(tokenizer, "a <|im_end|> b", "c", None, INSTRUCTION)
    assert document.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 0


def test_another_file_is_refused(torch_smollm2, tiny):
    import finchkv

    with pytest.raises(finchkv.InvalidArgument, match="different models: layers 3 and 30"):
        hf.bind_gguf(torch_smollm2[0], tiny)
