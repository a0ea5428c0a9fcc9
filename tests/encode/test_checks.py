"""What a call asks for is checked before its inputs are, in each way in which ``encode`` is called."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch

from st_modules import InputError, SentenceTransformer

NOTHING: list[Any] = [None]
"""No input: an error about anything else was there before inputs were looked at."""
WRONG: dict[str, list[Any]] = {
    "batch_size": [0, -1, 1.5, True, "8", None, math.nan, [8]],
    "chunk_size": [0, 1.5, "8", True],
    "truncate_dim": [0, -1, 1.5, True, "8", 129, 10**9, math.nan],
    "output_value": ["foo", "", 5, "input_ids", ["sentence_embedding"]],
    "normalize_embeddings": ["false", 1, None],
    "convert_to_numpy": ["False", 0, None],
    "convert_to_tensor": ["False", 0, None],
    "show_progress_bar": ["False", 0],
    "task": ["querry", "Query", "", 5, ["query"]],
    "prompt": [5, 0, True, ["a"], {"query": "a"}],
    "device": ["foo", "meta", "cpu:x", 1.5, True, [], ["cpu", "foo"], ""],
}
CASES = [(name, value) for name in WRONG for value in WRONG[name]]


@pytest.mark.parametrize(("name", "value"), CASES)
@pytest.mark.parametrize("inputs", [NOTHING, []], ids=["an input", "none"])
def test_a_wrong_argument_is_told_before_anything_else(
    tiny: SentenceTransformer, name: str, value: Any, inputs: list[Any]
) -> None:
    shown = value[-1] if name == "device" and value == ["cpu", "foo"] else value
    with pytest.raises(ValueError) as error:  # noqa: PT011 - what it says is compared below
        tiny.encode(inputs, **{name: value})
    assert not isinstance(error.value, InputError)
    assert str(error.value).startswith(f"{name}={shown!r}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["encode_query", "encode_document"])
@pytest.mark.parametrize(("name", "value"), [(name, WRONG[name][0]) for name in WRONG if name != "task"])
def test_the_sides_check_their_arguments_too(tiny: SentenceTransformer, method: str, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}={value!r}: "):
        getattr(tiny, method)(NOTHING, **{name: value})


@pytest.mark.parametrize("precision", ["int8", "binary"])
def test_dictionaries_have_no_precision(tiny: SentenceTransformer, precision: Any) -> None:
    with pytest.raises(ValueError, match=f"precision='{precision}': with output_value=None"):
        tiny.encode(NOTHING, output_value=None, precision=precision)


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": np.int64(1)},
        {"truncate_dim": 128},
        {"truncate_dim": np.int32(128)},
        {"device": torch.device("cpu")},
        {"device": "cpu:0"},
        {"task": None},
        {"prompt": ""},
        {"precision": None},
    ],
    ids=repr,
)
def test_what_means_the_default_gives_it(tiny: SentenceTransformer, arguments: dict[str, Any]) -> None:
    assert (tiny.encode("a red circle", **arguments) == tiny.encode("a red circle")).all()


def test_arguments_are_checked_by_position_too(tiny: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="batch_size='8'"):
        tiny.encode(NOTHING, None, None, "8")  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_the_signature_is_that_of_sentence_transformers() -> None:
    theirs, ours = sentence_transformers.SentenceTransformer.encode, SentenceTransformer.encode
    assert inspect.signature(ours) == inspect.signature(theirs)


@pytest.mark.parametrize("task", ["querry", "passage", 5, ""])
def test_a_batch_of_features_has_a_known_side(tiny: SentenceTransformer, task: Any) -> None:
    with pytest.raises(ValueError, match=f"task={task!r}: pass one of 'query', 'document', None"):
        tiny.preprocess(["a"], task=task)


@pytest.mark.parametrize("max_length", [0, 1.5, True, "512", 64.0, 4097])
def test_a_batch_of_features_has_a_length(tiny: SentenceTransformer, max_length: Any) -> None:
    with pytest.raises(ValueError, match=f"^max_length={max_length!r}: "):
        tiny.preprocess(["a"], max_length=max_length)
