"""CLIP-SF's texts, against steps of UniIR and of OpenAI's tokenizer that are written out here one by one."""

from __future__ import annotations

import html
import random
import unicodedata
from typing import Any

import pytest
from transformers import CLIPTokenizer

from st_modules import InputError, SentenceTransformer
from st_modules.prompts.uniir_texts import clean, write_sentence
from tests.helpers.paths import GOLDEN
from tests.helpers.references import load_once, reference

START, END = 712, 713
INSTRUCTION = "Find a day-to-day image that matches the given caption"


@pytest.fixture
def model() -> SentenceTransformer:
    return load_once("clip-sf-large", "sdpa")


def ids(model: SentenceTransformer, item: Any, **options: Any) -> list[int]:
    return model.preprocess([item], **options)["input_ids"][0].tolist()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("two dogs", "Two dogs."),
        ("Two dogs.", "Two dogs."),
        ("how many?", "How many?"),
        ("stop!", "Stop!"),
        ("a\r\nb", "A\nb."),
        ("\r\r a \r", "A."),
        ('"a"', "A."),
        ('  "quoted" text  ', 'Quoted" text.'),
        (' " a " ', " a ."),
        ("ßa", "SSa."),
        ("ŉa", "ʼNa."),
        ("1a", "1a."),
        ("a。", "A。."),
        ('a."', "A."),
        ("", ""),
        (' "" ', ""),
        (" \t\n\r", ""),
    ],
)
def test_a_text_becomes_a_sentence(text: str, sentence: str) -> None:
    assert write_sentence(text) == sentence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The dog’s “photo” isn’t ﬁve ＡＢＣ.", "the dog's \"photo\" isn't five abc."),
        ("Tesla &amp; Cybertruck.", "tesla & cybertruck."),
        ("Caf&eacute;, caf&#233; and &LT;b&GT;.", "café, café and <b>."),
        ("CafÃ© schÃ¶n â€œquotedâ€\x9d.", 'café schön "quoted".'),
        ("a\xa0 \u3000\n\n b", "a b"),
        ("a\x00b\x1b[31mc\x7f", "abc"),
        # What looks like HTML keeps its references from ftfy, and is unescaped twice after it.
        ("<b>e&#769;&amp;lt;", "<b>e\u0301<"),
        ("ΟΔΟΣ J\u030c İ", "οδος j\u030c i\u0307"),
        ("<|endoftext|>", "<|endoftext|>"),
        ("&lt;|endoftext|&gt;", "<|endoftext|>"),
    ],
)
def test_a_text_is_cleaned(text: str, expected: str) -> None:
    assert clean(text, "item 0") == expected


def test_a_text_of_ascii_is_what_html_and_white_space_make_of_it() -> None:
    state = random.Random(3)
    for _ in range(300):
        text = "".join(state.choices(["a", "B", " ", "\t", "\n", "&amp;", "&lt;", "&#65;", "<", ".", "&"], k=30))
        unescaped = html.unescape(html.unescape(html.unescape(text)))
        if html.unescape(unescaped) == unescaped:
            found = clean(text, "item 0")
            assert found == clean(found, "item 0").lower()
            assert found.split() == found.split(" ") or not found


def plain_ids(text: str) -> list[int]:
    """The tokens of a clean text by the stock tokenizer, for texts that it has nothing to normalise in."""
    tokenizer = CLIPTokenizer.from_pretrained(GOLDEN / "clip_sf" / "base")
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", ["two dogs in the snow", "Tesla &amp; Cybertruck", "the dog’s “photo” isn’t ﬁve"])
@pytest.mark.parametrize("instruction", [None, INSTRUCTION, '"find it"'])
@pytest.mark.parametrize("task", ["query", "document", None])
def test_an_instruction_is_a_sentence_before_the_sentence(
    model: SentenceTransformer, text: str, instruction: str | None, task: Any
) -> None:
    whole = write_sentence(text)
    if instruction and task != "document":
        whole = write_sentence(f"{write_sentence(instruction)} {text}")
    expected = [START, *plain_ids(clean(whole, "")), END]
    assert ids(model, {"text": text}, prompt=instruction, task=task) == expected


def test_letters_that_lower_casing_takes_apart_are_not_joined_again(model: SentenceTransformer) -> None:
    # The stock tokenizer makes one letter of the two, which OpenAI's does not.
    apart, joined = plain_ids("\u030c.")[:-1], plain_ids("ǰ")
    found = ids(model, {"text": "J\u030c"})
    assert unicodedata.normalize("NFC", "j\u030c") == "ǰ"
    assert [*joined, *plain_ids(".")] != found[1:-1]
    assert found[-3 - len(apart) + 1 : -2][-1] == apart[-1]


@pytest.mark.parametrize("instruction", [None, INSTRUCTION])
def test_a_text_that_is_cut_keeps_its_first_tokens(model: SentenceTransformer, instruction: str | None) -> None:
    text = "extraordinarily uncharacteristic misunderstandings " * 40
    asked = write_sentence(instruction or "")
    whole = plain_ids(clean(write_sentence(f"{asked} {text}"), ""))
    assert ids(model, {"text": text}, prompt=instruction) == [START, *whole[:75], END]
    long = ids(model, {"text": text * 500}, prompt=instruction)
    assert long == [START, *whole[:75], END]


def test_an_instruction_is_never_cut(model: SentenceTransformer) -> None:
    for instruction in ("find " * 80, "find " * 100_000):
        with pytest.raises(InputError, match="item 0: its instruction is over max_length=77"):
            model.encode([{"text": "a"}], prompt=instruction)
        with pytest.raises(InputError, match="item 0: its instruction is over max_length=77"):
            model.encode([reference("clip-sf-large").images / "small.png"], prompt=instruction)


@pytest.mark.parametrize("text", ["", '""', ' \n "'])
def test_an_empty_text_is_an_error_beside_nothing(model: SentenceTransformer, text: str) -> None:
    picture = reference("clip-sf-large").images / "small.png"
    with pytest.raises(InputError, match="^item 1: a text that is empty"):
        model.encode([{"text": "a"}, {"text": text}])
    with pytest.raises(InputError, match="^item 0: a text that is empty"):
        model.encode_document([{"text": text}], prompt=INSTRUCTION)
    assert (model.encode({"text": text, "image": picture}) == model.encode({"image": picture})).all()
    # UniIR's steps leave a space where quotes were at the end, and put another full stop behind it.
    asked = f"{INSTRUCTION}. ." if text else f"{INSTRUCTION}."
    assert ids(model, {"text": text}, prompt=INSTRUCTION) == ids(model, {"text": asked})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\x01" * 10**6, "of which the first 32768 are 0 when they are clean"),
        ("&amp;" * 3 + "\x01" * 10**5, "are 5 when they are clean|are 3 when they are clean"),
    ],
)
def test_a_text_that_cannot_be_cleaned_is_refused_by_its_place(
    model: SentenceTransformer, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=f"^item 1: .*{message}"):
        model.encode([{"text": "a"}, {"text": text}])


@pytest.mark.parametrize("space", [" ", "\n", " \t\u3000", "\xa0"])
def test_white_space_without_end_is_one_space(model: SentenceTransformer, space: str) -> None:
    assert ids(model, {"text": "a" + space * 500_000 + "b"}) == ids(model, {"text": "a b"})


# Each level of these is one more round of ftfy over all of a line.
@pytest.mark.parametrize("line", ["&" + "amp;" * 250_000, "Ã" + "ƒ" * 1_000_000])
def test_a_line_that_takes_many_rounds_is_read_in_pieces(line: str) -> None:
    assert len(clean(line, "item 0")) > 77 * 25


def test_a_reference_of_very_many_digits_is_no_error_of_python() -> None:
    assert clean("&#" + "1" * 100_000, "item 0").startswith("\ufffd")


def test_a_line_of_any_length_is_what_its_pieces_are() -> None:
    line = "étés à la plage, “très” bien. " * 200
    assert clean(line, "item 0").startswith('étés à la plage, "très" bien. étés'.rstrip())
    assert clean("Line\n" * 100, "item 0") == ("line " * 100).strip()
