"""What a tokenizer's files may say: that of every upstream, and nothing that costs more or reads texts at random."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split
from transformers import CLIPTokenizer, Qwen2Tokenizer

from st_modules import CheckpointError, SentenceTransformer
from st_modules.prompts import tokenizer_files
from st_modules.prompts.segments import Text
from st_modules.prompts.templates import render_gme
from st_modules.prompts.tokenizer import SegmentTokenizer
from st_modules.prompts.tokenizer_files import PATTERNS, check_tokenizer_files
from tests.helpers.paths import GOLDEN

QWEN2, XLM_R = GOLDEN / "gme/checkpoint", GOLDEN / "bge_visualized_m3/bge"
Change = Callable[[dict[str, Any]], Any]


def copy(source: Path, folder: Path, name: str = "", change: Change | None = None) -> Path:
    """Copy the files of a tokenizer, one of them changed."""
    for path in (*source.glob("*token*.json"), *source.glob("vocab.*"), *source.glob("merges.txt")):
        shutil.copy(path, folder / path.name)
    if change:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))
    return folder


def use(field: str, value: object) -> Change:
    """Put a value in the place of a field, written as in ``model.vocab``."""
    *parents, last = field.split(".")

    def change(content: Any) -> None:
        for name in parents:
            content = content[int(name) if isinstance(content, list) else name]
        content[int(last) if isinstance(content, list) else last] = value

    return change


def added(**changes: object) -> Change:
    return lambda content: content["added_tokens"].append({"id": 600, "content": "zq", **changes})


def without(field: str, name: str) -> Change:
    return lambda content: content["model"][field].pop(name)


def charsmap(*units: int, replacements: bytes = b"a\0") -> str:
    table = b"".join(unit.to_bytes(4, "little") for unit in units)
    return base64.b64encode(len(table).to_bytes(4, "little") + table + replacements).decode()


SLOW = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
DOUBLING = {"type": "Replace", "pattern": {"String": " "}, "content": "  "}
NESTED: Any = {"type": "NFC"}
for _ in range(30):
    NESTED = {"type": "Sequence", "normalizers": [NESTED]}

TOKENIZER: dict[str, tuple[Change, str]] = {
    "a slow pattern": (
        use("pre_tokenizer.pretokenizers.0", SLOW),
        r"pre_tokenizer\.pretokenizers\[0\]\.pattern is .*a\+",
    ),
    "a slow pattern alone": (use("pre_tokenizer", SLOW), r"pre_tokenizer\.pattern is"),
    "a slow replacement": (use("normalizer", {**SLOW, "type": "Replace", "content": ""}), r"normalizer\.pattern is"),
    "a slow decoder": (use("decoder", {**SLOW, "type": "Replace", "content": ""}), r"decoder\.pattern is"),
    "a string that is replaced": (use("normalizer", {**DOUBLING, "pattern": {"String": "aa"}}), r"normalizer\.pattern"),
    "a replacement that doubles": (use("normalizer", DOUBLING), r"normalizer\.content is '  '; one character"),
    "a long prefix": (use("normalizer", {"type": "Prepend", "prepend": "x" * 10**6}), r"normalizer\.prepend is 'xxx"),
    "many steps": (
        use("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 40}),
        "normalizer has 41 steps",
    ),
    "deep steps": (use("normalizer", NESTED), r"normalizer\.normalizers\[0\].* is nested too deeply"),
    "steps of another type": (use("normalizer", "NFC"), "normalizer is of type str; an object"),
    "a step of another type": (use("pre_tokenizer.type", []), r"pre_tokenizer\.type is of type list; a string"),
    "random tokens": (use("model.dropout", 0.1), r"model\.dropout is 0\.1.*at random"),
    "long words": (use("model.max_input_chars_per_word", 10**9), r"model\.max_input_chars_per_word is 1000000000"),
    "words of another type": (
        use("model.max_input_chars_per_word", "100"),
        r"model\.max_input_chars_per_word is '100'",
    ),
    "no model": (use("model", None), "model is missing; an object is needed"),
    "no vocabulary": (use("model.vocab", {}), r"model\.vocab is missing or empty"),
    "a vocabulary of another type": (use("model.vocab", [1, 2]), r"model\.vocab has an entry that is no token"),
    "a long token": (use("model.vocab." + "x" * 2000, 7), r"model\.vocab has a token of more than 1024"),
    "bytes that are left out": (without("vocab", "!"), r"model\.unk_token is missing, .* texts would lose them"),
    "an unknown unknown": (use("model.unk_token", "<unk>"), r"model\.unk_token is '<unk>', which is not in"),
    "added tokens of another type": (use("added_tokens", {}), "added_tokens is of type dict; a list"),
    "an added token of another type": (use("added_tokens.0", "zq"), r"added_tokens\[0\] is of type str"),
    "a large number": (added(id=2**31), r"added_tokens\[14\]\.id is 2147483648; a number under"),
    "a number of another type": (added(id="7"), r"added_tokens\[14\]\.id is '7'"),
    "no content": (added(content=""), r"added_tokens\[14\]\.content"),
    "long content": (added(content="x" * 2000), r"added_tokens\[14\]\.content: a text of 1 to 1024"),
    "a flag of another type": (added(lstrip="yes"), r"added_tokens\[14\]\.lstrip is 'yes'"),
}
CONFIG: dict[str, tuple[Change, str]] = {
    "a length of another type": (use("model_max_length", "512"), "model_max_length is '512'; a number"),
    "a side": (use("padding_side", "middle"), "padding_side is 'middle'"),
    "a switch": (use("split_special_tokens", "no"), "split_special_tokens is 'no'; true or false"),
    "numbers of added tokens": (
        use("added_tokens_decoder", {"x": {"content": "zq"}}),
        r"added_tokens_decoder\['x'\]: a n",
    ),
    "large numbers": (use("added_tokens_decoder", {"9" * 5000: {"content": "zq"}}), r"added_tokens_decoder\['999"),
    "added tokens": (use("added_tokens_decoder", {"600": 7}), r"added_tokens_decoder\['600'\] is of type int"),
    "a list of added tokens": (use("added_tokens_decoder", [1]), "added_tokens_decoder is of type list"),
    "a token": (use("pad_token", 7), "pad_token is of type int"),
    "extra tokens": (use("extra_special_tokens", 7), "extra_special_tokens is of type int"),
    "an extra token": (use("extra_special_tokens", ["a", 7]), r"extra_special_tokens\[1\] is of type int"),
    "arguments": (use("init_inputs", [1]), "init_inputs is not read"),
    "another end": (use("tokenizer_truncation", {"max_length": 3}), "tokenizer_truncation is no option of a file"),
}
CHARSMAPS = {
    "no base64": "é",
    "of another type": 7,
    "empty": "",
    "without its units": charsmap(),
    "too few units": charsmap(0, 0),
    "units that lead out of it": charsmap(*[0x7FFFFC00] * 256),
    "values that lead out of it": charsmap(*[256] * 256, replacements=b"a"),
    "a first unit that leads out of it": charsmap(*[0xFFFFFFFF] * 256),
    "values at the end of it": charsmap(256 | 1 << 10, 2 | 1 << 31, *[0] * 254),
    "long replacements": charsmap(*[1 << 31] * 256, replacements=b"x" * 1000),
    "damaged replacements": charsmap(*[1 << 31] * 256, replacements=b"\xff\0"),
}


def refuse(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        SegmentTokenizer(folder, Qwen2Tokenizer, render_gme)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("case", TOKENIZER)
def test_what_no_upstream_has_in_its_tokenizer_is_refused_by_its_field(case: str, tmp_path: Path) -> None:
    change, message = TOKENIZER[case]
    refuse(copy(QWEN2, tmp_path, "tokenizer.json", change), rf"tokenizer\.json: {message}")


@pytest.mark.parametrize("case", CONFIG)
def test_an_option_of_another_type_is_refused_by_its_name(case: str, tmp_path: Path) -> None:
    change, message = CONFIG[case]
    refuse(copy(QWEN2, tmp_path, "tokenizer_config.json", change), rf"tokenizer_config\.json: {message}")


@pytest.mark.parametrize("case", CHARSMAPS)
def test_a_damaged_table_of_normalization_is_refused(case: str, tmp_path: Path) -> None:
    change = use("normalizer.normalizers.0.precompiled_charsmap", CHARSMAPS[case])
    refuse(copy(XLM_R, tmp_path, "tokenizer.json", change), r"normalizer\.normalizers\[0\]\.precompiled_charsmap")


def test_a_unigram_model_needs_a_token_for_what_it_does_not_know(tmp_path: Path) -> None:
    refuse(copy(XLM_R, tmp_path, "tokenizer.json", use("model.unk_id", None)), r"model\.unk_id is missing")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "[]"),
        ("tokenizer.json", '{"a":' * 100_000),
        ("tokenizer_config.json", "7"),
        ("special_tokens_map.json", '{"pad_token": 7}'),
        ("special_tokens_map.json", '{"pad_token": ""}'),
        ("added_tokens.json", '{"zq": -1}'),
    ],
)
def test_a_damaged_file_is_refused_by_its_name(name: str, content: str, tmp_path: Path) -> None:
    copy(QWEN2, tmp_path)
    (tmp_path / name).write_text(content)
    refuse(tmp_path, name)


def test_a_file_over_the_bound_is_refused_unread(tmp_path: Path) -> None:
    copy(QWEN2, tmp_path)
    os.truncate(tmp_path / "tokenizer.json", tokenizer_files._MOST_BYTES + 1)
    refuse(tmp_path, r"tokenizer\.json: \d+ bytes, and a tokenizer's file has \d+ at most")


def test_what_is_no_file_is_refused_unread(tmp_path: Path) -> None:
    copy(QWEN2, tmp_path)
    (tmp_path / "chat_template.jinja").symlink_to("/dev/zero")
    refuse(tmp_path, "not a regular file")


def test_a_token_that_the_model_has_no_embedding_for_is_an_error(tmp_path: Path) -> None:
    shutil.copytree(QWEN2, tmp_path, dirs_exist_ok=True)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    tokens = [{"id": 514 + number, "content": f"z{letter}", **flags} for number, letter in enumerate("qrs")]
    copy(QWEN2, tmp_path, "tokenizer.json", lambda content: content["added_tokens"].extend(tokens))
    model = SentenceTransformer("gme-2b", weights=tmp_path)
    with pytest.raises(CheckpointError, match="a token of the number 516, and the model has embeddings for 516"):
        model.encode(["a zs"])
    assert len(model.encode(["a"])) == 1


@pytest.mark.parametrize("section", ["truncation", "padding"])
def test_limits_and_padding_of_a_file_change_no_tokens(section: str, tmp_path: Path) -> None:
    sections = {
        "truncation": {"direction": "Left", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 50},
            "direction": "Left",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "!",
        },
    }
    changed = copy(QWEN2, tmp_path, "tokenizer.json", use(section, sections[section]))
    row = [Text("", "the hours of a long day")]
    expected, found = (
        SegmentTokenizer(folder, Qwen2Tokenizer, render_gme)([row], [[]], ["item"], [8])[0].ids
        for folder in (QWEN2, changed)
    )
    assert found == expected


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
@pytest.mark.parametrize("text", ["a" * 20_000, " " * 20_000 + "a", "\n " * 10_000, "'" * 20_000, "1" * 20_000])
def test_the_patterns_are_those_of_linear_time(pattern: str, text: str) -> None:
    # One that backtracks would not end within the test's time.
    assert Split(Regex(pattern), "isolated").pre_tokenize_str(text)


def test_what_transformers_writes_of_its_own_tokenizers_is_accepted(tmp_path: Path) -> None:
    CLIPTokenizer.from_pretrained(GOLDEN / "bge_vl_clip/checkpoint").save_pretrained(tmp_path / "clip")
    Qwen2Tokenizer.from_pretrained(QWEN2).save_pretrained(tmp_path / "qwen2")
    for name in ("clip", "qwen2"):
        check_tokenizer_files(tmp_path / name)
