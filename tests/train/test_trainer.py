"""Training shares ``preprocess`` and ``forward``: gradients reach every weight, and batches split by rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)

from st_modules import SentenceTransformer
from tests.helpers.paths import GOLDEN

GOLDEN_GME = GOLDEN / "gme"
IMAGES = [GOLDEN_GME / "images" / name for name in ("square.png", "wide.png", "small.png", "gray.png")]
ANCHORS: list[Any] = ["a car", {"text": "make it blue", "image": IMAGES[0]}, "a cat", {"image": IMAGES[:2]}]
POSITIVES: list[Any] = [IMAGES[1], "a blue car", {"image": IMAGES[2], "text": "cat"}, IMAGES[3]]


@pytest.fixture
def model() -> SentenceTransformer:
    return SentenceTransformer(
        "gme-2b", weights=GOLDEN_GME / "checkpoint", device="cpu", min_image_tokens=4, max_image_tokens=16
    )


def gradients(model: SentenceTransformer, loss: torch.nn.Module) -> dict[str, torch.Tensor]:
    model.zero_grad()
    columns = [model.preprocess(ANCHORS, prompt="Find it."), model.preprocess(POSITIVES, task="document")]
    loss(columns, None).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, gradient in found.items() if gradient is None] == []
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


def test_gradients_reach_every_weight(model: SentenceTransformer) -> None:
    found = gradients(model, MultipleNegativesRankingLoss(model))
    assert [name for name, gradient in found.items() if not gradient.abs().sum() > 0] == []


@pytest.mark.parametrize("rows", [1, 3])
def test_a_batch_split_by_rows_has_the_same_gradients(model: SentenceTransformer, rows: int) -> None:
    expected = gradients(model, MultipleNegativesRankingLoss(model))
    found = gradients(model, CachedMultipleNegativesRankingLoss(model, mini_batch_size=rows))
    assert max((found[name] - gradient).abs().max().item() for name, gradient in expected.items()) <= 1e-5
