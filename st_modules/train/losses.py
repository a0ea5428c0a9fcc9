"""The loss: in-batch ranking, with gradient caching and Matryoshka dimensions where they are asked for."""

from __future__ import annotations

from typing import Any

import sentence_transformers
from pydantic import Field, StrictBool
from pydantic.dataclasses import dataclass
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from torch import nn

from st_modules.train.validation import STRICT, Count, NonNegative


@dataclass(frozen=True, config=STRICT)
class LossSettings:
    """Settings of the ranking loss.

    Attributes:
        scale: Cosines are multiplied by it: one over the temperature.
        symmetric: Whether documents look for their queries too.
        mini_batch_size: Rows that are embedded at a time, by gradient caching (Gao et al. 2021, arXiv:2101.06983):
            memory is that of so many rows, negatives and gradients are those of the whole batch, and a step takes a
            second pass forward. ``None`` embeds the batch as a whole.
        matryoshka_dims: Lengths at which shortened embeddings are trained too (Kusupati et al. 2022,
            arXiv:2205.13147); none where it is empty.
    """

    scale: NonNegative = Field(default=20.0, gt=0)
    symmetric: StrictBool = False
    mini_batch_size: Count | None = None
    matryoshka_dims: tuple[Count, ...] = ()


def build_loss(model: sentence_transformers.SentenceTransformer, settings: LossSettings) -> nn.Module:
    """Put a loss of sentence-transformers together.

    Args:
        model: The model that is trained.
        settings: What the loss is made of.

    Raises:
        ValueError: A Matryoshka dimension is longer than the embeddings.
    """
    ranking = _ranking(model, settings)
    if not settings.matryoshka_dims:
        return ranking
    dimension = model.get_embedding_dimension() or 0
    if too_long := [dim for dim in settings.matryoshka_dims if dim > dimension]:
        raise ValueError(f"matryoshka_dims {too_long}: the embeddings of this model are {dimension} long.")
    return MatryoshkaLoss(model, ranking, list(settings.matryoshka_dims))


def _ranking(model: sentence_transformers.SentenceTransformer, settings: LossSettings) -> nn.Module:
    shared: dict[str, Any] = {"scale": settings.scale}
    if settings.symmetric:
        shared |= {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    if settings.mini_batch_size is None:
        return MultipleNegativesRankingLoss(model, **shared)
    return CachedMultipleNegativesRankingLoss(model, mini_batch_size=settings.mini_batch_size, **shared)
