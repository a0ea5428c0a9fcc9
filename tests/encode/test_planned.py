"""Inputs that are planned first and embedded together later are embedded as by ``encode``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from sentence_transformers.sentence_transformer.modules import BoW

from st_modules import InputError, SentenceTransformer
from st_modules.errors import ArgumentError

RED = Image.new("RGB", (56, 56), "red")
INPUTS: list[Any] = ["a red circle", RED, {"text": "make it blue", "image": RED}]
FIND = "Find an image that matches the given text."


def test_inputs_of_several_calls_are_embedded_as_each_call_has_them(tiny: SentenceTransformer) -> None:
    planned = [
        *tiny.plan(INPUTS),
        *tiny.plan(INPUTS, prompt=FIND, side="query"),
        *tiny.plan(INPUTS, prompt_name="t2i"),
        *tiny.plan(INPUTS, prompt=FIND, side="document"),
    ]
    expected = [
        tiny.encode(INPUTS),
        tiny.encode_query(INPUTS, prompt=FIND),
        tiny.encode(INPUTS, prompt_name="t2i"),
        tiny.encode_document(INPUTS, prompt=FIND),
    ]
    found = tiny.encode_planned(planned)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-5)


@pytest.mark.parametrize("side", ["query", "document"])
@pytest.mark.parametrize("name", ["query", "document", "passage"])
def test_the_prompt_of_a_side_is_found_by_its_name(
    tiny: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, side: Any, name: str
) -> None:
    # On a copy of its prompts, of a template that reads one on every side.
    monkeypatch.setattr(tiny, "prompts", {name: FIND})
    monkeypatch.setattr(tiny[0], "template", "vlm2vec_qwen2vl")
    encode = {"query": tiny.encode_query, "document": tiny.encode_document}[side]
    np.testing.assert_allclose(tiny.encode_planned(tiny.plan(INPUTS, side=side)), encode(INPUTS), atol=1e-5)


def test_a_row_says_how_many_tokens_there_are(tiny: SentenceTransformer) -> None:
    lengths = [each.row.length for each in tiny.plan(INPUTS)]
    assert lengths == tiny.preprocess(INPUTS)["attention_mask"].sum(1).tolist()


def test_nothing_planned_is_nothing_embedded(tiny: SentenceTransformer) -> None:
    assert tiny.encode_planned(tiny.plan([])).shape == (0, 128)


def test_fewer_dimensions_are_those_of_the_model(tiny: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "truncate_dim", 16)
    np.testing.assert_allclose(tiny.encode_planned(tiny.plan(INPUTS)), tiny.encode(INPUTS), atol=1e-5)


def test_a_bad_input_is_named_when_it_is_planned(tiny: SentenceTransformer) -> None:
    with pytest.raises(InputError, match="item 1") as raised:
        tiny.plan(["a", {"image": b"no image"}])
    assert raised.value.index == 1


@pytest.mark.parametrize("wrong", [0, True, "32"])
def test_a_batch_size_that_is_none_is_refused(tiny: SentenceTransformer, wrong: Any) -> None:
    with pytest.raises(ArgumentError, match="batch_size"):
        tiny.encode_planned(tiny.plan(["a"]), batch_size=wrong)


def test_a_model_of_sentence_transformers_plans_nothing() -> None:
    model = SentenceTransformer(modules=[BoW(["a"])])
    with pytest.raises(ValueError, match="models of the catalog"):
        model.plan(["a"])


def test_a_loaded_model_has_its_row_of_the_catalog(tiny: SentenceTransformer) -> None:
    assert tiny.spec is not None
    assert (tiny.spec.name, tiny.spec.least_dimension) == ("tiny", None)
