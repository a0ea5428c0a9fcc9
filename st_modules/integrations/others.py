"""What models of sentence-transformers take that are none of this package's, for callers that hand over any items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sentence_transformers
from sentence_transformers.base.modality import infer_modality


def encode_with_others(
    model: sentence_transformers.SentenceTransformer, encode: Callable[[list[Any]], Any], items: Sequence[Any]
) -> np.ndarray[Any, Any]:
    """Embed items by a model that has no backbone of this package.

    Many of its modules know a text as a string alone, and one that cannot read messages takes texts and images in calls
    of their own.

    Args:
        model: The model.
        encode: One of its methods that embed, which returns an array.
        items: What is embedded.

    Returns:
        Vectors of shape (items, dimension), in the same order.
    """
    supported = model.modalities
    values = [_simplify(item) if supported == ["text"] else item for item in items]
    if "message" in supported:
        return encode(values)
    groups: dict[Any, list[int]] = {}
    for place, value in enumerate(values):
        groups.setdefault(infer_modality(value, supported_modalities=supported), []).append(place)
    vectors = np.concatenate([encode([values[place] for place in places]) for places in groups.values()])
    return vectors[np.argsort([place for places in groups.values() for place in places])]


def _simplify(item: Any) -> Any:
    # A string is always a text to a model that knows nothing else, also where it is the address of an image.
    return item["text"] if isinstance(item, dict) and item.keys() == {"text"} else item
