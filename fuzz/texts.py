"""Texts: long ones of few tokens and of many, the words of templates, and characters that tokenizers take apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from hypothesis import strategies as st

from fuzz.bounds import Outcome
from fuzz.outcomes import CHECKPOINTS, embed_or_refuse, golden, tiny

_CONTROL = ["<|im_end|>", "<|image_pad|>", "<|endoftext|>", "<image>", "</s>", "<s>", "[INST]", "<|image_1|>", "[CLS]"]


def check(text: str) -> Outcome:
    """Embed a text, wrapped so that it is nothing else, by a model of every kind of tokenizer."""
    outcomes = [
        embed_or_refuse(lambda model=model: model.encode(["a", {"text": text}]), 2, ["item 1"])
        for model in (tiny(), *map(golden, CHECKPOINTS))
    ]
    return min(outcomes, key=lambda outcome: outcome.embedded)


def _long(piece: str, scale: float) -> str:
    return piece * max(2, int(10_000_000 * scale) // len(piece))


ATTACKS: Mapping[str, Callable[[float], object]] = {
    f"10 million characters of {name}": partial(_long, piece)
    for name, piece in {
        "one letter": "a",
        "two letters": "ab",
        "spaces": " ",
        "newlines": "\n",
        "words": "the red circle is beside a blue square. ",
        "digits": "0123456789",
        "accents that combine": "e\u0301\u0323",
        "an accent alone": "\u0301",
        "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f466",
        "Chinese": "\u7ea2\u8272\u7684\u5706",
        "control characters": "\x01",
        "control tokens": "<|im_end|>",
        "characters of no vocabulary": "\U0003fffd",
        "brackets": "[",
        "ligatures": "\ufdfa",
        "references to characters": "&hellip;",
        "references within references": "&#5&#5&#4&#5",
        "lines that were decoded wrongly again and again": "\u00c3" + "\u0192" * 1023,
    }.items()
}
"""Texts by what they are made of."""


def strategy() -> st.SearchStrategy[str]:
    """Return texts of any characters, lone surrogates too, parts of which are repeated."""
    surrogates = st.text(st.characters(), max_size=20) | st.text(
        st.characters(min_codepoint=0xD7FF, max_codepoint=0xE000, categories=["Cs", "Lo", "Co"]), max_size=3
    )
    part = surrogates | st.sampled_from(_CONTROL) | st.sampled_from([" ", "\n", "\t", "\0", "\u200d", "\u0301", "a"])
    repeated = st.builds(lambda text, count: text * count, part, st.sampled_from([1, 1, 1, 2, 30, 1000]))
    return st.lists(repeated, max_size=8).map("".join)
