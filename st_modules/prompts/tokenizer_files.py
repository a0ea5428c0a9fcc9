"""What the files of a tokenizer may say, checked before the tokenizer is built of them.

A tokenizer runs what its files say on every text: a regular expression that backtracks, a replacement that doubles a
text forty times, a model that draws tokens at random. The published ones need little of that, and this is all of it.
"""

from __future__ import annotations

import base64
import binascii
import reprlib
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

from st_modules.checkpoints.locate import read_json
from st_modules.errors import CheckpointError

TOKENIZER_FILE = "tokenizer.json"

QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# transformers' own class writes it so.
CLIP_WORDS_AND_CONTROL = rf"<\|startoftext\|>|<\|endoftext\|>|{CLIP_WORDS}"
PATTERNS = frozenset({QWEN2_WORDS, LLAMA3_WORDS, CLIP_WORDS, CLIP_WORDS_AND_CONTROL, r"\s+", " {2,}"})
"""The regular expressions of the catalog's tokenizers; none takes more than linear time."""
STRINGS = frozenset({" ", "▁"})
"""What they replace that is no regular expression."""

# The largest published vocabularies are of 17 (XLM-R) and 33 MB (Gemma).
_MOST_BYTES = 64 * 2**20
_MOST_STEPS = 16
_LONGEST_WORD = 200
_LONGEST_TOKEN = 1024
_LARGEST_ID = 2**24
_LONGEST_REPLACEMENT = 64
_FILES = ("*.json", "*.jinja", "*.model", "vocab.txt", "merges.txt")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_SWITCHES = (
    "split_special_tokens",
    "add_prefix_space",
    "add_bos_token",
    "add_eos_token",
    "do_lower_case",
    "strip_accents",
    "tokenize_chinese_chars",
)
# Arguments of transformers' classes by which callers build a tokenizer; no file of it holds them.
_NOT_IN_FILES = ("tokenizer_object", "tokenizer_truncation", "tokenizer_padding", "post_processor", "gguf_file")


class _Wrong(ValueError):
    """A field has a value that it cannot have; the message names the field."""


def check_tokenizer_files(folder: Path) -> None:
    """Check what the files of a tokenizer say, as far as it decides how texts are read.

    Args:
        folder: Where they are.

    Raises:
        CheckpointError: A file is damaged or too large, or says what no tokenizer of the catalog needs; the message
            names the file and the field.
    """
    for pattern in _FILES:
        for path in folder.glob(pattern):
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"{path}: not a regular file.")
            if status.st_size > _MOST_BYTES:
                raise CheckpointError(
                    f"{path}: {status.st_size} bytes, and a tokenizer's file has {_MOST_BYTES} at most."
                )
    checks = {
        TOKENIZER_FILE: _check_tokenizer,
        "tokenizer_config.json": _check_config,
        "special_tokens_map.json": _check_special_tokens,
        "added_tokens.json": _check_added_ids,
    }
    for name, check in checks.items():
        if (folder / name).is_file():
            try:
                check(read_json(folder / name))
            except (_Wrong, RecursionError) as error:
                problem = str(error) if isinstance(error, _Wrong) else "it is nested too deeply."
                raise CheckpointError(
                    f"{folder / name}: {problem} Use the tokenizer files of the model's repository."
                ) from error


def _check_tokenizer(content: Mapping[str, Any]) -> None:
    model = _take(content, "model", dict)
    for number, token in enumerate(_take(content, "added_tokens", list, [])):
        _check_added(token, f"added_tokens[{number}]", needs_id=True)
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        steps = list(_walk(content.get(name), name))
        if len(steps) > _MOST_STEPS:
            raise _Wrong(f"{name} has {len(steps)} steps, and {_MOST_STEPS} are the most.")
        for field, step in steps:
            _check_step(field, step)
    _check_model(model, "ByteLevel" in {step.get("type") for _, step in _walk(content.get("pre_tokenizer"), "")})


def _walk(step: Any, field: str, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The steps of a normalizer, a pre-tokenizer or a decoder, each with its field."""
    if step is None:
        return
    if not isinstance(step, dict):
        raise _Wrong(f"{field} is of type {type(step).__name__}; an object is needed.")
    step = cast("dict[str, Any]", step)
    _take(step, "type", str, field=f"{field}.type")
    yield field, step
    for name in ("normalizers", "pretokenizers", "decoders"):
        if name in step:
            if depth == _MOST_STEPS:
                raise _Wrong(f"{field} is nested too deeply.")
            for number, inner in enumerate(_take(step, name, list, field=f"{field}.{name}")):
                yield from _walk(inner, f"{field}.{name}[{number}]", depth + 1)


def _check_step(field: str, step: Mapping[str, Any]) -> None:
    if "pattern" in step:
        pattern = _take(step, "pattern", dict, field=f"{field}.pattern")
        if not (pattern.get("Regex") in PATTERNS or pattern.get("String") in STRINGS) or len(pattern) != 1:
            raise _Wrong(f"{field}.pattern is {_show(pattern)}, which no model of the catalog has; none other is run.")
    for name in ("content", "prepend"):
        # Longer ones double a text with each step.
        if name in step and len(_take(step, name, str, field=f"{field}.{name}")) > 1:
            raise _Wrong(f"{field}.{name} is {_show(step[name])}; one character is the most.")
    if step.get("type") == "Precompiled":
        _check_charsmap(f"{field}.precompiled_charsmap", step.get("precompiled_charsmap"))


def _check_charsmap(field: str, encoded: Any) -> None:
    """Check the table of SentencePiece's normalization, which is searched without looking at its bounds."""
    try:
        table = base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise _Wrong(f"{field} is no base64.") from error
    size = int.from_bytes(table[:4], "little")
    replacements = table[4 + size :]
    if len(table) < 4 or not 0 < size <= len(table) - 4 or size % 1024:
        raise _Wrong(f"{field} is damaged.")
    if max(map(len, replacements.split(b"\0"))) > _LONGEST_REPLACEMENT:
        raise _Wrong(f"{field} replaces a character by more than {_LONGEST_REPLACEMENT} bytes.")
    # A double array of Darts: the node that a unit leads to is in the block of 256 that its offset names; a unit with
    # the highest bit is a value, the place of a replacement.
    units = np.frombuffer(table[4 : 4 + size], dtype="<u4").astype(np.int64)
    leads_to = np.arange(len(units)) ^ ((units >> 10) << ((units & 512) >> 6))
    is_value = units >> 31 == 1
    # The search begins at the first, whatever it is.
    is_value[0] = False
    ends = [place + 1 for place, byte in enumerate(replacements) if byte == 0]
    starts = {0, *ends[:-1]} if ends else set[int]()
    ends_in = leads_to[~is_value & (units & 256 == 256)]
    values = units[np.minimum(ends_in, len(units) - 1)] & 0x7FFFFFFF
    if (leads_to[~is_value] | 255).max(initial=0) >= len(units) or not set(values.tolist()) <= starts:
        raise _Wrong(f"{field} is damaged.")
    try:
        replacements.decode()
    except UnicodeDecodeError as error:
        raise _Wrong(f"{field} is damaged.") from error


def _check_model(model: Mapping[str, Any], byte_level: bool) -> None:
    if model.get("dropout"):
        raise _Wrong(f"model.dropout is {model['dropout']!r}, by which the tokens of a text are drawn at random.")
    longest = model.get("max_input_chars_per_word", 100)
    if type(longest) is not int or not 0 < longest <= _LONGEST_WORD:
        raise _Wrong(f"model.max_input_chars_per_word is {_show(longest)}; pass a number from 1 to {_LONGEST_WORD}.")
    vocabulary: Any = model.get("vocab")
    if not isinstance(vocabulary, (dict, list)) or not vocabulary:
        raise _Wrong("model.vocab is missing or empty.")
    try:
        # A Unigram model has a score with each.
        tokens = {entry if isinstance(vocabulary, dict) else entry[0] for entry in cast("Iterable[Any]", vocabulary)}
        too_long = max(map(len, tokens)) > _LONGEST_TOKEN
    except (TypeError, KeyError, IndexError) as error:
        raise _Wrong("model.vocab has an entry that is no token.") from error
    if too_long:
        raise _Wrong(f"model.vocab has a token of more than {_LONGEST_TOKEN} characters.")
    _check_unknown(model, tokens, byte_level)


def _check_unknown(model: Mapping[str, Any], tokens: set[str], byte_level: bool) -> None:
    """Make sure that there is a token for what a vocabulary does not have; it would be left out of texts."""
    if model.get("type", "BPE") == "Unigram":
        if type(model.get("unk_id")) is not int:
            raise _Wrong("model.unk_id is missing, the number of the token of what the vocabulary does not have.")
        return
    unknown = model.get("unk_token")
    if unknown is not None and unknown not in tokens:
        raise _Wrong(f"model.unk_token is {_show(unknown)}, which is not in model.vocab.")
    complete = byte_level and set(ByteLevel.alphabet()) <= tokens
    complete |= bool(model.get("byte_fallback")) and {f"<0x{byte:02X}>" for byte in range(256)} <= tokens
    if unknown is None and not complete:
        raise _Wrong("model.unk_token is missing, and model.vocab lacks some of the bytes: texts would lose them.")


def _check_config(content: Mapping[str, Any]) -> None:
    if found := [name for name in _NOT_IN_FILES if content.get(name) is not None]:
        raise _Wrong(f"{found[0]} is no option of a file.")
    if content.get("init_inputs"):
        raise _Wrong("init_inputs is not read.")
    longest = content.get("model_max_length")
    if longest is not None and (isinstance(longest, bool) or not isinstance(longest, (int, float))):
        raise _Wrong(f"model_max_length is {_show(longest)}; a number is needed.")
    for name in ("padding_side", "truncation_side"):
        if content.get(name, "right") not in ("left", "right"):
            raise _Wrong(f'{name} is {_show(content[name])}; "left" or "right" is needed.')
    for name in _SWITCHES:
        if content.get(name) is not None and not isinstance(content[name], bool):
            raise _Wrong(f"{name} is {_show(content[name])}; true or false is needed.")
    for number, token in _take(content, "added_tokens_decoder", dict, {}).items():
        field = f"added_tokens_decoder[{_show(number)}]"
        if not number.isdecimal() or int(number[:20]) >= _LARGEST_ID:
            raise _Wrong(f"{field}: a number under {_LARGEST_ID} is needed.")
        _check_added(token, field)
    _check_special_tokens(content)


def _check_special_tokens(content: Mapping[str, Any]) -> None:
    for name, value in content.items():
        if name.endswith("_token") and name not in _SWITCHES and value is not None:
            _check_token(value, name)
    for name in ("extra_special_tokens", "additional_special_tokens"):
        value = content.get(name)
        if isinstance(value, dict):
            value = list(cast("dict[str, Any]", value).values())
        elif value is not None and not isinstance(value, list):
            raise _Wrong(f"{name} is of type {type(value).__name__}; a list of tokens is needed.")
        for number, token in enumerate(cast("list[Any]", value or [])):
            _check_token(token, f"{name}[{number}]")


def _check_added_ids(content: Mapping[str, Any]) -> None:
    for token, number in content.items():
        if type(number) is not int or not 0 <= number < _LARGEST_ID or not 0 < len(token) <= _LONGEST_TOKEN:
            raise _Wrong(f"{_show(token)}: a token and a number under {_LARGEST_ID} are needed.")


def _check_token(token: Any, field: str) -> None:
    if not isinstance(token, str):
        _check_added(token, field)
    elif not 0 < len(token) <= _LONGEST_TOKEN:
        raise _Wrong(f"{field} has {len(token)} characters; from 1 to {_LONGEST_TOKEN} are needed.")


def _check_added(token: Any, field: str, needs_id: bool = False) -> None:
    if not isinstance(token, dict):
        raise _Wrong(f"{field} is of type {type(token).__name__}; a token with its content is needed.")
    token = cast("dict[str, Any]", token)
    content, number = token.get("content"), token.get("id", None if needs_id else 0)
    if not isinstance(content, str) or not 0 < len(content) <= _LONGEST_TOKEN:
        raise _Wrong(f"{field}.content: a text of 1 to {_LONGEST_TOKEN} characters is needed.")
    if type(number) is not int or not 0 <= number < _LARGEST_ID:
        raise _Wrong(f"{field}.id is {_show(number)}; a number under {_LARGEST_ID} is needed.")
    for flag in _FLAGS:
        if not isinstance(token.get(flag, False), bool):
            raise _Wrong(f"{field}.{flag} is {_show(token[flag])}; true or false is needed.")


def _take(content: Mapping[str, Any], name: str, kind: type, default: Any = None, field: str = "") -> Any:
    value = content.get(name)
    value = default if value is None else value
    if not isinstance(value, kind):
        needed = {dict: "an object", list: "a list", str: "a string"}[kind]
        what = "missing" if value is None else f"of type {type(value).__name__}"
        raise _Wrong(f"{field or name} is {what}; {needed} is needed.")
    return value


def _show(value: object) -> str:
    return reprlib.repr(value)
