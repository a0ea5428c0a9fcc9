"""Long texts against tokenising all of them, on the tokenizers of every upstream."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BertTokenizer,
    CLIPTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    XLMRobertaTokenizer,
)

from st_modules import InputError, SentenceTransformer
from st_modules.inputs.items import Item
from st_modules.prompts import long_texts
from st_modules.prompts.charsmap import take_charsmap
from st_modules.prompts.segments import Segment, Text
from st_modules.prompts.templates import Side
from st_modules.prompts.tokenizer import SegmentTokenizer
from tests.helpers.paths import GOLDEN

TOKENIZERS: dict[str, tuple[str, type[PreTrainedTokenizerBase]]] = {
    "qwen2": ("gme/checkpoint", Qwen2Tokenizer),
    "llama2": ("bge_vl_mllm/checkpoint", PreTrainedTokenizerFast),
    "clip": ("bge_vl_clip/checkpoint", CLIPTokenizer),
    "xlm-roberta": ("bge_visualized_m3/bge", XLMRobertaTokenizer),
    "bert": ("bge_visualized_base/bge", BertTokenizer),
}
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ADDED = [
    AddedToken("zq", normalized=True),
    AddedToken("new york", normalized=True),
    AddedToken("qqq", single_word=True, normalized=False),
    AddedToken("thei", lstrip=True, rstrip=True, normalized=False),
]
AROUND = [("", ""), ("find it: ", ""), ("", " \n [/INST]"), ("\n\n", "\nSummary in one word: "), (' "', '" [/INST]')]
ALPHABETS = {
    "letters": "abcdefghijklmnopqrstuvwxyz",
    "words": "thei nrsa",
    "figures": "0123456789",
    "signs": "!?.,-_=*#\"'`/\\\n",
    "white space": "\n \t\r",
    "Chinese and Japanese": "猫が好きです日本語の文章、中国。ｶﾞ",
    "Russian": "Привет мир как дела",
    "Hindi": "नमस्ते दुनिया क्या हाल है",
    "Thai and Korean": "สวัสดีครับน้ำ안녕하세요 ㄱㅏ각\u1100\u1161\u11a8",
    "marks": "ae ox\u0301\u0302\u0323\u0316\u0338",
    "control characters": "\x00\x01\x07\x1f\x7f\u200b\u200d\ufeffab ",
    "tokens that were added": "zq nw ew york",
}
REPEATED = ["a", "ab", " ", "\n", "\n ", "=", "zq", "new  york ", "e\u0301", "don't ", "  x = 1\n"]
REPEATED += ["👩‍👩‍👧", "🇩🇪", "👍🏽"]


def make_texts(seed: int) -> Iterator[str]:
    """Texts of a few hundred characters: one kind of character, one thing repeated, and mixtures."""
    state = random.Random(seed)
    alone = ["".join(state.choices(alphabet, k=400)) for alphabet in ALPHABETS.values()]
    alone += [part * (600 // len(part)) for part in REPEATED]
    yield from alone
    for _ in range(20):
        parts = state.choices(alone, k=4)
        yield "".join(part[: state.randint(1, 200)] for part in parts)


def read_and_trim(tokenizer: Any, segment: Text, max_length: int) -> list[int] | None:
    """All of a text's tokens, and of its end so many dropped that it fits; ``None`` where it cannot."""
    before, user, after = segment.before, segment.user, segment.after
    while True:
        read = tokenizer(before + user + after, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        if len(read["input_ids"]) <= max_length:
            return read["input_ids"]
        if not user:
            return None
        starts = [start for start, _ in read["offset_mapping"] if len(before) <= start < len(before) + len(user)]
        kept = max(0, len(starts) - len(read["input_ids"]) + max_length)
        user = user[: starts[kept] - len(before)] if starts else ""


def render(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    return [Text("", item.text or "")]


@pytest.fixture(scope="module")
def llama3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE that takes words of its vocabulary whole, as Llama 3's."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA3_PATTERN), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*make_texts(1), "the rain in Spain\n\n    stays abababab aaaaaaaaa " * 20], trainer)
    folder = tmp_path_factory.mktemp("llama3")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[*TOKENIZERS, "llama3"])
def encoders(request: pytest.FixtureRequest, llama3: Path) -> tuple[SegmentTokenizer, Any]:
    """A tokenizer that cuts long texts, and the same as transformers has it."""
    path, fallback = TOKENIZERS.get(request.param, ("", PreTrainedTokenizerFast))
    folder = GOLDEN / path if path else llama3
    stock_class = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else fallback
    stock = stock_class.from_pretrained(folder, split_special_tokens=True)
    # What this normalises otherwise is not what is tested here.
    take_charsmap(stock)
    return SegmentTokenizer(folder, fallback, render), stock


@pytest.fixture(scope="module")
def with_added(encoders: tuple[SegmentTokenizer, Any]) -> tuple[SegmentTokenizer, Any]:
    encoder, stock = pickle.loads(pickle.dumps(encoders))
    encoder.tokenizer.add_tokens(ADDED)
    encoder.follow_changes(10**6, "")
    stock.add_tokens(ADDED)
    return encoder, stock


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are cut where they have more characters than tokens are wanted."""
    monkeypatch.setattr(long_texts, "_USUAL_PER_TOKEN", 1)
    monkeypatch.setattr(long_texts, "_USUAL", 20)
    monkeypatch.setattr(long_texts, "_TAIL", 128)


def check(encoder: SegmentTokenizer, stock: Any, seed: int) -> int:
    """Compare with what all of each text says; return how many texts were cut."""
    state, cut = random.Random(seed), 0
    for text in make_texts(seed):
        before, after = state.choice(AROUND)
        max_length = state.choice([1, 2, 3, 10, 30, 100])
        row: list[Segment] = [Text(before, text, after)]
        before, text, after = map(encoder._charsmap or str, (before, text, after))
        expected = read_and_trim(stock, Text(before, text, after), max_length)
        cut += encoder._cut(row, "", max_length) != row
        try:
            (found,) = encoder([row], [[]], ["item"], [max_length])
        except InputError:
            assert expected is None
        else:
            whole = stock(before + text + after, add_special_tokens=False, verbose=False)["input_ids"]
            assert (found.ids, found.trimmed) == (expected, len(whole) > max_length), (text, max_length)
    return cut


@pytest.mark.usefixtures("early")
def test_what_is_left_of_a_long_text_is_what_reading_all_of_it_leaves(encoders: tuple[SegmentTokenizer, Any]) -> None:
    assert check(*encoders, seed=3) > 10


@pytest.mark.usefixtures("early")
def test_tokens_that_were_added_may_lie_over_the_cut(with_added: tuple[SegmentTokenizer, Any]) -> None:
    assert check(*with_added, seed=4) > 10


def count_characters(encoder: SegmentTokenizer, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count the characters that the tokenizers of texts are given."""
    read: list[int] = []
    tokenizer_class = type(encoder._plain)
    call = tokenizer_class.__call__

    def count(self: Any, text: Any, *args: Any, **kwargs: Any) -> Any:
        read.extend(map(len, [text] if isinstance(text, str) else text))
        return call(self, text, *args, **kwargs)

    monkeypatch.setattr(tokenizer_class, "__call__", count)
    return lambda: sum(read)


@pytest.mark.parametrize("part", ["The cat sat. ", "x = 1    \n", "caf\u0065\u0301 a\u0323\u0302 "])
def test_a_book_costs_what_the_tokens_of_a_row_cost(
    encoders: tuple[SegmentTokenizer, Any], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, _ = encoders
    characters = count_characters(encoder, monkeypatch)
    (row,) = encoder([[Text("", part * (3_000_000 // len(part)))]], [[]], ["item"], [64])
    assert row.trimmed
    assert 60 <= len(row.ids) <= 64
    assert characters() < 30_000


@pytest.mark.parametrize("part", ["a", "ab", "猫が好き", " ", "\n", "\n ", "=", "e\u0301", "🎉"])
@pytest.mark.parametrize("name", ["qwen2", "llama2"])
def test_a_word_without_end_costs_what_the_tokens_of_a_row_cost(
    name: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fallback = TOKENIZERS[name]
    encoder = SegmentTokenizer(GOLDEN / path, fallback, render)
    characters = count_characters(encoder, monkeypatch)
    (row,) = encoder([[Text("user\n", part * (3_000_000 // len(part)))]], [[]], ["item"], [64])
    assert row.trimmed
    assert 60 <= len(row.ids) <= 64
    assert characters() < 60_000


@pytest.mark.parametrize("text", ["\u200d" * 3_000_000, "\u0301" * 3_000_000, "\x00" * 3_000_000])
def test_a_long_text_without_tokens_is_an_error_that_names_it(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_texts, "_MOST", 1000)
    encoder = SegmentTokenizer(GOLDEN / "bge_visualized_base/bge", BertTokenizer, render)
    with pytest.raises(InputError, match=r"item 7: a text of 3000000 characters, of which the first \d+ do not"):
        encoder([[Text("", text)]], [[]], ["item 7"], [64])


@pytest.mark.parametrize("side", get_args(Side))
def test_a_long_instruction_is_an_error_without_reading_it(
    side: Side, tiny: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone: Any = tiny[0]
    characters = count_characters(backbone.segment_tokenizer, monkeypatch)
    items = [Item("a", (), None, index) for index in range(3)]
    instruction = "find " * 1_000_000
    if side == "document":  # the template does not read it there
        assert len(backbone.plan(items, instruction, side)) == 3
    else:
        with pytest.raises(InputError, match="item 0: its instruction is over max_length=512"):
            backbone.plan(items, instruction, side)
    assert characters() < 100_000
