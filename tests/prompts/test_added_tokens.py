"""Tokens that are added to a model's tokenizer are read in texts, and other changes of it are refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers.models import BPE, Unigram
from tokenizers.normalizers import Lowercase
from tokenizers.processors import TemplateProcessing

from st_modules import SentenceTransformer
from tests.helpers.references import reference

NAMES = [
    "gme-2b",
    "qwen3-vl-embedding-2b",
    "vlm2vec-qwen2vl-2b",
    "bge-vl-mllm-s1",
    "bge-vl-base",
    "bge-visualized-base",
    "bge-visualized-m3",
]
TEXTS = ["zq cat", "a zq", "zq"]


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> SentenceTransformer:
    model = reference(request.param).load(request.param)
    model.encode(TEXTS)
    return model


def language(model: SentenceTransformer) -> Any:
    backbone: Any = model[0]
    return backbone.model.get_submodule(backbone.towers.language)


def add(model: SentenceTransformer, *tokens: str) -> None:
    model.tokenizer.add_tokens(list(tokens))
    embeddings = language(model).get_input_embeddings().num_embeddings
    language(model).resize_token_embeddings(max(embeddings, len(model.tokenizer)), mean_resizing=False)


def ids(model: SentenceTransformer, text: str) -> list[int]:
    backbone: Any = model[0]
    return backbone.plan(model.parse([text]))[0].ids


@pytest.mark.parametrize("tokens", [["zq"], ["zq", "cat"]])
def test_added_tokens_are_read_in_texts(model: SentenceTransformer, tokens: list[str]) -> None:
    before = ids(model, "zq cat")
    add(model, *tokens)
    after = ids(model, "zq cat")
    assert set(model.tokenizer.convert_tokens_to_ids(tokens)) <= set(after)
    assert set(model.tokenizer.convert_tokens_to_ids(["zq"])).isdisjoint(before)
    assert after.count(model.tokenizer.convert_tokens_to_ids("zq")) == 1


def test_embeddings_follow_the_embedding_of_an_added_token(model: SentenceTransformer) -> None:
    add(model, "zq")
    before = model.encode([*TEXTS, "a dog"])
    weights = language(model).get_input_embeddings().weight.data
    weights[model.tokenizer.convert_tokens_to_ids("zq")] += torch.linspace(-1, 1, weights.shape[1])
    differences = np.abs(model.encode([*TEXTS, "a dog"]) - before).max(1)
    assert differences[:3].min() > 1e-4
    assert differences[3] <= 1e-6


def test_a_model_with_added_tokens_is_saved_whole(model: SentenceTransformer, tmp_path: Path) -> None:
    add(model, "zq", "cat")
    expected = model.encode(TEXTS)
    model.save_pretrained(str(tmp_path))
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    assert [ids(loaded, text) for text in TEXTS] == [ids(model, text) for text in TEXTS]
    assert np.array_equal(loaded.encode(TEXTS), expected)


def test_training_and_inference_read_the_same(model: SentenceTransformer) -> None:
    add(model, "zq")
    trained = model(model.preprocess(TEXTS))["sentence_embedding"].detach().numpy()
    assert np.abs(trained - model.encode(TEXTS)).max() <= 1e-5


def test_a_copy_reads_what_was_added_to_it_alone(model: SentenceTransformer) -> None:
    other = copy.deepcopy(model)
    before = ids(model, "zq <s></s>[CLS]")
    assert ids(other, "zq <s></s>[CLS]") == before
    add(other, "zq")
    number = other.tokenizer.convert_tokens_to_ids("zq")
    assert number in ids(other, "zq")
    assert ids(copy.deepcopy(other), "zq") == ids(other, "zq")
    for each in (other, copy.deepcopy(other)):
        each.max_seq_length = len(ids(each, "zq"))
        assert ids(each, "zq zq zq zq").count(number) == 1
    assert ids(model, "zq <s></s>[CLS]") == before


def test_tokens_without_an_embedding_are_refused_with_what_to_call(model: SentenceTransformer, tmp_path: Path) -> None:
    count = language(model).get_input_embeddings().num_embeddings
    model.tokenizer.add_tokens([f"zq{number}" for number in range(count)])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"resize_token_embeddings\(\d+\)"):
            model.encode(["a cat"])
    with pytest.raises(ValueError, match=r"resize_token_embeddings\(\d+\)"):
        model.save_pretrained(str(tmp_path / "saved"))
    assert not (tmp_path / "saved").exists()


CHANGES: dict[str, Callable[[Any], object]] = {
    "special tokens": lambda tokenizer: tokenizer.add_special_tokens({"additional_special_tokens": ["<object>"]}),
    "another normalizer": lambda tokenizer: setattr(tokenizer.backend_tokenizer, "normalizer", Lowercase()),
    "another post-processor": lambda tokenizer: setattr(
        tokenizer.backend_tokenizer, "post_processor", TemplateProcessing("$A $A")
    ),
    "another token for padding": lambda tokenizer: setattr(tokenizer, "pad_token", "a"),
    "another token at the end": lambda tokenizer: setattr(tokenizer, "eos_token", "a"),
}


@pytest.mark.parametrize("name", ["gme-2b", "bge-vl-mllm-s1", "bge-vl-base", "bge-visualized-m3"])
@pytest.mark.parametrize("change", CHANGES)
def test_other_changes_of_the_tokenizer_are_refused(name: str, change: str) -> None:
    model = reference(name).load(name)
    CHANGES[change](model.tokenizer)
    with pytest.raises(ValueError, match="add_tokens"):
        model.encode(["a cat"])


@pytest.mark.parametrize("name", ["gme-2b", "bge-visualized-m3"])
def test_a_vocabulary_that_was_changed_is_not_saved(name: str, tmp_path: Path) -> None:
    model = reference(name).load(name)
    backend: Any = model.tokenizer.backend_tokenizer
    written = json.loads(backend.to_str())["model"]
    if "merges" in written:
        backend.model = BPE(written["vocab"], [tuple(merge) for merge in written["merges"][:-5]])
    else:
        backend.model = Unigram([(token, -1.0) for token, _ in written["vocab"]], 3, False)
    with pytest.raises(ValueError, match="add_tokens"):
        model.save_pretrained(str(tmp_path / "saved"))
    assert not (tmp_path / "saved").exists()


def test_another_tokenizer_is_refused_when_it_is_set() -> None:
    model = reference("gme-2b").load("gme-2b")
    with pytest.raises(ValueError, match="cannot be replaced"):
        model.tokenizer = copy.deepcopy(model.tokenizer)
