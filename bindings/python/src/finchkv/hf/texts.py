"""From a document and a prompt to token ids, as finchkv's engine does it (docs: "From text to tokens"), with a
tokenizer of transformers."""

from __future__ import annotations

from typing import Any

INSTRUCTION = "Read the text and answer the question."

# (before the instruction, behind the prompt); only these literals give special tokens.
_TEMPLATES = {
    "chatml": (["<|im_start|>", "user\n"], ["<|im_end|>", "\n", "<|im_start|>", "assistant\n"]),
    "llama3": (
        ["<|start_header_id|>", "user", "<|end_header_id|>", "\n\n"],
        ["<|eot_id|>", "<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"],
    ),
    "mistral": (["[INST]", " "], [" ", "[/INST]"]),
    "plain": ([], ["\nAnswer:"]),
}
TEMPLATES = tuple(_TEMPLATES)


def template_of(tokenizer: Any) -> str:
    """The one whose marks the tokenizer's own template has."""
    text = str(getattr(tokenizer, "chat_template", None) or "")
    for name, mark in (("chatml", "<|im_start|>"), ("llama3", "<|start_header_id|>"), ("mistral", "[INST]")):
        if mark in text:
            return name
    return "plain"


def encode(
    tokenizer: Any, document: str, prompt: str, template: str | None, instruction: str
) -> tuple[list[int], list[int]]:
    """Ids of [BOS where the tokenizer adds one; head; document] and of the prompt with what is around it."""
    name = template or template_of(tokenizer)
    if name not in _TEMPLATES:
        raise ValueError(f"there is no chat template {name!r}: it is one of {', '.join(TEMPLATES)}")
    before, behind = _TEMPLATES[name]
    head = _ids(tokenizer, [*before, f"{instruction}\n\n{document}"], before)
    tail = _ids(tokenizer, [f"\n\nQuestion: {prompt}", *behind], behind)
    bos = getattr(tokenizer, "bos_token_id", None)
    if bos is not None and tokenizer("a").input_ids[:1] == [bos]:
        head.insert(0, bos)
    return head, tail


def _ids(tokenizer: Any, pieces: list[str], literals: list[str]) -> list[int]:
    """Runs of plain text are tokenised as one; a literal that is a special token's name is that token."""
    special = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
    out: list[int] = []
    plain = ""
    for piece in [*pieces, None]:
        if piece is not None and not (piece in literals and piece in special):
            plain += piece
            continue
        if plain:
            out.extend(tokenizer(plain, add_special_tokens=False, split_special_tokens=True).input_ids)
            plain = ""
        if piece is not None:
            out.append(tokenizer.convert_tokens_to_ids(piece))
    return out
