"""SentencePiece's normalisation, beside a brute force over the table of BGE-M3's tokenizer."""

from __future__ import annotations

import base64
import json
import pickle
import unicodedata
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from st_modules import InputError
from st_modules.prompts.charsmap import Charsmap, take_charsmap
from tests.helpers.paths import GOLDEN
from tests.helpers.references import TOLERANCE, load_once

FOLDER = GOLDEN / "bge_visualized_m3" / "bge"
NORMALIZER = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))["normalizer"]
ENCODED = base64.b64decode(NORMALIZER["normalizers"][0]["precompiled_charsmap"])


@pytest.fixture(scope="module")
def charsmap() -> Charsmap:
    return Charsmap(ENCODED)


def by_brute_force(text: str) -> str:
    """Look every beginning of what is left up in the trie from its root, byte by byte."""
    size = int.from_bytes(ENCODED[:4], "little")
    units = np.frombuffer(ENCODED[4 : 4 + size], dtype="<u4").astype(int)
    values = ENCODED[4 + size :]

    def look_up(key: bytes) -> bytes | None:
        node = (units[0] >> 10) << ((units[0] & 512) >> 6)
        unit = units[0]
        for byte in key:
            node ^= byte
            unit = units[node]
            if unit & 0x800000FF != byte:
                return None
            node ^= (unit >> 10) << ((unit & 512) >> 6)
        start = units[node] & 0x7FFFFFFF
        return values[start : values.index(0, start)] if unit & 256 else None

    made = b""
    while text:
        matches = ((length, look_up(text[:length].encode())) for length in range(6, 0, -1))
        length, value = next(((length, value) for length, value in matches if value is not None), (1, text[0].encode()))
        made, text = made + value, text[length:]
    return made.decode()


TEXTS = [
    "plain words, and more of them.",
    "두 마리의 개",
    unicodedata.normalize("NFD", "두 마리의 개가 눈 속에"),
    unicodedata.normalize("NFD", "Những con chó trong tuyết"),
    unicodedata.normalize("NFD", "naïve Ünïcödé"),
    "ﬁne ﷲ\u064e ½\u0301 a\u00a0\u200db",
    "ＦＵＬＬ　ｗｉｄｔｈ，１２３",
    "tab\there\nand\r\nthere\x00\x07",
    "e\u0301\u0327\u0301 x\u0301",
    "😀👩\u200d👩\u200d👧 🇩🇪",
    "ends with an accent e\u0301",
    "\u0301begins with one",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_normalised_as_by_brute_force(charsmap: Charsmap, text: str) -> None:
    assert charsmap(text) == by_brute_force(text)


def test_random_characters_are_normalised_as_by_brute_force(charsmap: Charsmap) -> None:
    draw = np.random.default_rng(3)
    pools = [range(32, 127), range(0xA0, 0x250), range(0x300, 0x340), range(0x1100, 0x1200), range(0xFB00, 0xFB50)]
    letters = [chr(number) for pool in pools for number in pool]
    for _ in range(200):
        text = "".join(draw.choice(letters, 12))
        assert charsmap(text) == by_brute_force(text)


@pytest.mark.parametrize(
    "text", ["두 마리의 개가 눈 속에", "Những con chó trong tuyết", "naïve Ünïcödé", "ﬁne ½ １２３"]
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_and_syllables_in_parts_have_the_vector_of_whole_ones(text: str, form: Any) -> None:
    """The table is of a composing form (NFKC): by SentencePiece's own longest match both forms become the same."""
    model = load_once("bge-visualized-m3", "sdpa")
    vectors = model.encode([{"text": unicodedata.normalize(form, text)}, {"text": text}])
    assert np.abs(vectors[0] - vectors[1]).max() <= TOLERANCE


def test_the_library_alone_reads_some_texts_otherwise() -> None:
    """Without this, nothing here would be needed."""
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    text = "½\u0301 cat"
    found = load_once("bge-visualized-m3", "sdpa").preprocess([{"text": text}])["input_ids"][0].tolist()
    assert found == tokenizer.encode(by_brute_force(text)).ids != tokenizer.encode(text).ids


def test_spaces_alone_are_stripped_from_the_end_of_a_text() -> None:
    """The library strips U+0085 too, of which SentencePiece makes an unknown token."""
    unknown = Tokenizer.from_file(str(FOLDER / "tokenizer.json")).token_to_id("<unk>")
    model = load_once("bge-visualized-m3", "sdpa")
    ids = [model.preprocess([{"text": text}])["input_ids"][0].tolist() for text in ("cat  ", "cat\x85", "cat\x85  ")]
    assert ids[1] == ids[2]
    assert ids[1][-2] == unknown != ids[0][-2]


def test_a_tokenizer_without_the_table_is_left_alone() -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(GOLDEN / "bge_vl_mllm" / "checkpoint")
    before = tokenizer.backend_tokenizer.to_str()
    assert take_charsmap(tokenizer) is None
    assert tokenizer.backend_tokenizer.to_str() == before


def test_a_pickled_copy_normalises_the_same(charsmap: Charsmap) -> None:
    assert [pickle.loads(pickle.dumps(charsmap))(text) for text in TEXTS] == [charsmap(text) for text in TEXTS]


def test_a_text_of_which_nothing_is_left_is_an_error_that_names_the_item() -> None:
    model = load_once("bge-visualized-m3", "sdpa")
    with pytest.raises(InputError, match="^item 1: a text of 4000000 characters, of which the first"):
        model.encode([{"text": "a"}, {"text": "\x01" * 4_000_000}])
