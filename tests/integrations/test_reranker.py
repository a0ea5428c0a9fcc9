"""What the adapters share of a reranker."""

from __future__ import annotations

import asyncio
import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import CrossEncoder as PlainCrossEncoder

from st_modules import CrossEncoder, ImageLimits, InputError, Reranker, UnknownModelError
from tests.helpers.references import TOLERANCE
from tests.helpers.rerankers import IMAGES

DOCUMENTS: list[Any] = [
    {"text": "a brown dog"},
    {"image": IMAGES / "wide.png"},
    {"text": "a", "image": IMAGES / "tall.png"},
]


def test_scores_are_the_models_own(reranker: CrossEncoder) -> None:
    expected = reranker.predict([({"text": "a dog"}, each) for each in DOCUMENTS]).tolist()
    shared = Reranker(reranker)
    assert shared.score({"text": "a dog"}, DOCUMENTS) == pytest.approx(expected, abs=TOLERANCE)
    assert asyncio.run(shared.ascore({"text": "a dog"}, DOCUMENTS)) == pytest.approx(expected, abs=TOLERANCE)
    assert shared.score({"text": "a dog"}, []) == []
    named = reranker.predict([({"text": "a dog"}, DOCUMENTS[0])], prompt="Find it").tolist()
    assert shared.score({"text": "a dog"}, DOCUMENTS[:1], prompt="Find it") == pytest.approx(named, abs=TOLERANCE)


def test_a_model_is_loaded_by_name_and_keeps_what_pairs_begin_with(reranker_folder: Path) -> None:
    shared = Reranker.load("qwen3-vl-reranker-8b", weights=reranker_folder, device="cpu", remote_images=False)
    assert isinstance(shared.model, CrossEncoder)
    assert shared.model.keep_prefixes
    assert shared.takes_video
    assert shared.image_limits == ImageLimits(remote_images=False)
    assert shared.name == str(reranker_folder)


def test_what_is_no_reranker_is_refused(reranker: CrossEncoder) -> None:
    with pytest.raises(TypeError, match="of type str: pass the name of a reranker"):
        Reranker("x")  # type: ignore[arg-type]
    with pytest.raises(UnknownModelError, match="it is an embedder"):
        Reranker.load("gme-2b")
    with pytest.raises(ValueError, match="device: the model is loaded already"):
        Reranker.load(reranker, device="cpu")


def test_a_model_is_never_copied(reranker: CrossEncoder) -> None:
    shared = Reranker(reranker)
    assert copy.copy(shared) is copy.deepcopy(shared) is shared
    with pytest.raises(TypeError, match="is not pickled"):
        pickle.dumps(shared)


class Counting(torch.nn.Module):
    """A module that scores a pair of strings by the words that they share."""

    def preprocess(self, inputs: list[tuple[str, str]], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        shared = [len({*query.split()} & {*document.split()}) for query, document in inputs]
        return {"shared": torch.tensor(shared, dtype=torch.float32)}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {**features, "scores": features["shared"][:, None]}


def test_other_cross_encoders_are_given_texts_as_strings() -> None:
    shared = Reranker(PlainCrossEncoder(modules=[Counting()], device="cpu", activation_fn=torch.nn.Identity()))
    documents = [{"text": "a brown dog", "image": None}, {"text": "lamp"}]
    assert shared.score({"text": "brown dog"}, documents) == [2, 0]
    assert shared.image_limits == ImageLimits()
    assert not shared.takes_video
    assert shared.name == "CrossEncoder"


def test_errors_have_the_place_of_the_document(reranker: CrossEncoder) -> None:
    with pytest.raises(InputError, match="^pair 1, document: /none.png") as caught:
        Reranker(reranker).score({"text": "a"}, [{"text": "a"}, {"image": "/none.png"}])
    assert caught.value.index == 1
