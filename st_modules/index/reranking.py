"""The order of another model, which reads the query and each item that was found together."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from st_modules.errors import ArgumentError, InputError, in_one_line, shorten
from st_modules.index.hits import Hit
from st_modules.index.pictures import open_kept_picture
from st_modules.inputs.limits import ImageLimits
from st_modules.integrations.reranker import to_side

logger = logging.getLogger(__name__)


class Reranker(Protocol):
    """A model that scores pairs of a query and a document, as ``sentence_transformers.CrossEncoder`` does."""

    def predict(self, inputs: Any, /) -> Any:
        """Return a number for each pair, which is higher the better the document answers the query."""
        ...


def rerank_hits(reranker: Reranker, item: Any, hits: Sequence[Hit], limits: ImageLimits) -> list[Hit]:
    """Score hits anew and put them in the order of these scores.

    Args:
        reranker: Scores pairs.
        item: The query, as it was searched for.
        hits: What was found. A hit with a text alone is passed as that string where the model may be one of texts, and
            else as a dictionary, which no text makes the name of a picture.
        limits: What a picture may cost, and where it may come from.

    Raises:
        ArgumentError: It is no reranker, or does not give one number a pair.
        InputError: A picture cannot be read, the index has no thumbnail of it, and there is no text.
    """
    if not callable(getattr(reranker, "predict", None)):
        raise ArgumentError("rerank: pass a model with predict(pairs), as st_modules.CrossEncoder(name).")
    if not hits:
        return []
    query = to_side(reranker, dict(item) if isinstance(item, Mapping) else item)
    scores = reranker.predict([(query, to_side(reranker, _as_document(hit, limits))) for hit in hits])
    scores = [_as_number(score) for score in scores]
    if len(scores) != len(hits):
        raise ArgumentError(f"rerank: {len(scores)} scores for {len(hits)} pairs.")
    scored = [dataclasses.replace(hit, score=score) for hit, score in zip(hits, scores, strict=True)]
    return sorted(scored, key=lambda hit: (-hit.score, hit.id))


def _as_document(hit: Hit, limits: ImageLimits) -> dict[str, Any]:
    try:
        picture = open_kept_picture(hit, limits, page_pixels=limits.max_pixels)
    except (InputError, OSError) as error:
        if not hit.text:
            raise
        logger.warning("%s is reranked by its text alone: %s", shorten(hit.id), in_one_line(error))
        picture = None
    if picture is None:
        if hit.text is None:
            raise InputError("neither a text nor a picture to rerank by", hit.id)
        return {"text": hit.text}
    return {"text": hit.text, "image": picture} if hit.text else {"image": picture}


def _as_number(score: Any) -> float:
    try:
        number = float(score)
    except (TypeError, ValueError) as error:
        raise ArgumentError("rerank: the model gives more than one number a pair; pass one with one label.") from error
    if not math.isfinite(number):
        raise ArgumentError(f"rerank: a score of {number}.")
    return number
