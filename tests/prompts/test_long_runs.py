"""Runs that are shortened, against tokenising all of them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from transformers import BertTokenizer, CLIPTokenizer, PreTrainedTokenizerBase, Qwen2Tokenizer, XLMRobertaTokenizer

from st_modules import SentenceTransformer
from st_modules.prompts.long_runs import shorten_runs
from tests.helpers.paths import GOLDEN

TOKENIZERS: dict[str, tuple[str, type[PreTrainedTokenizerBase]]] = {
    "qwen2": ("gme/checkpoint", Qwen2Tokenizer),
    "clip": ("bge_vl_clip/checkpoint", CLIPTokenizer),
    "xlm-roberta": ("bge_visualized_m3/bge", XLMRobertaTokenizer),
    "bert": ("bge_visualized_base/bge", BertTokenizer),
}
LETTERS = [*"abZ9éßЯж猫红の한😀♥ .-_İﬁ中़क", "\n", "\t", "\u3000", "\xa0", "\u0301", "\u200d", "\x01", "zq"]


def load(name: str) -> Any:
    folder, tokenizer_class = TOKENIZERS[name]
    return tokenizer_class.from_pretrained(GOLDEN / folder, split_special_tokens=True)


def ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def make_text(seed: int) -> str:
    state = random.Random(seed)
    parts = [state.choices(state.sample(LETTERS, 3), k=state.choice([1, 40, 900])) for _ in range(4)]
    return "".join(letter for part in parts for letter in part)


@pytest.mark.parametrize("added", [[], ["zq", "红红", "aaaaa"]], ids=["as it is", "with added tokens"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_text_whose_runs_are_shortened_has_the_same_tokens(name: str, added: list[str]) -> None:
    tokenizer = load(name)
    tokenizer.add_tokens(added)
    texts = [make_text(seed) for seed in range(120)]
    assert [text for text in texts if ids(tokenizer, shorten_runs(tokenizer, text)) != ids(tokenizer, text)] == []


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *(("bert", part) for part in ("a", "aZ9é", "Я", "한", "♥", " ", "\n \t")),
        *(("clip", part) for part in (" ", " \n\t")),
        *(("xlm-roberta", part) for part in (" ", "红色", "😀")),
    ],
)
def test_what_is_read_as_one_becomes_short(name: str, part: str) -> None:
    text = f"x {part * 2000} y"
    tokenizer = load(name)
    short = shorten_runs(tokenizer, text)
    assert len(short) < 300
    assert ids(tokenizer, short) == ids(tokenizer, text)


@pytest.mark.parametrize(
    ("name", "part"), [("qwen2", " "), ("clip", "a"), ("xlm-roberta", "a"), ("bert", "中"), ("bert", "-")]
)
def test_what_is_read_as_many_stays(name: str, part: str) -> None:
    assert shorten_runs(load(name), part * 2000) == part * 2000


@pytest.mark.parametrize(("content", "part"), [("aaa", "a"), ("AAA", "a"), ("xyz", "xyz")])
def test_a_run_that_may_have_an_added_token_in_it_stays(content: str, part: str) -> None:
    tokenizer = load("bert")
    tokenizer.add_tokens([content])
    assert shorten_runs(tokenizer, part * 700) == part * 700


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    folder: Path = GOLDEN / "bge_visualized_base"
    return SentenceTransformer("bge-visualized-base", weights=folder, base_weights=folder / "bge", device="cpu")


@pytest.mark.parametrize("text", ["a" * 3_000_000, "a" * 3_000_000 + " red", "red" + " " * 3_000_000 + "circle"])
def test_a_word_or_a_gap_of_millions_of_characters_embeds_as_a_long_one(model: SentenceTransformer, text: str) -> None:
    short = text.replace("a" * 2_999_000, "").replace(" " * 2_999_000, "")
    assert len(short) < 2000
    assert abs(model.encode([{"text": text}]) - model.encode([{"text": short}])).max() <= 1e-6
