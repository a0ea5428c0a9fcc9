"""What the embedding functions of stores share: their values as items, and models that are loaded once."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from st_modules.errors import ArgumentError
from st_modules.integrations.embedder import Embedder
from st_modules.prompts.templates import Side

_MOST_MODELS = 4


def load_once(model: str, options: Mapping[str, Any]) -> Embedder:
    """Load a model, or return the one that was loaded with the same options: stores make their functions again and again.

    Args:
        model: Its name.
        options: Arguments of :meth:`Embedder.load`, as JSON has them.

    Raises:
        ArgumentError: Something in the options has no place in JSON.
    """
    return _load(model, to_json(options))


@functools.lru_cache(_MOST_MODELS)
def _load(model: str, options: str) -> Embedder:
    return Embedder.load(model, **json.loads(options))


def to_json(options: Mapping[str, Any]) -> str:
    """Write options as a store keeps them.

    Raises:
        ArgumentError: Something in them has no place in JSON.
    """
    try:
        return json.dumps(options, sort_keys=True)
    except TypeError as error:
        raise ArgumentError(f"{error}: the store keeps these options as JSON.") from error


def embed_values(
    embedder: Embedder, values: Sequence[Any], side: Side, strings: str, options: Mapping[str, Any]
) -> list[np.ndarray]:
    """Embed values of a column.

    Args:
        embedder: The model.
        values: Strings, images, or dictionaries with ``text``, ``image`` or both.
        side: ``"query"`` or ``"document"``.
        strings: What a string is: ``"text"`` or ``"image"``.
        options: Arguments of ``encode``; ``None`` counts as left out.

    Raises:
        InputError: A value cannot be embedded; the message has its place.
    """
    if not values:
        return []
    given = {name: value for name, value in options.items() if value is not None}
    return [*embedder.encode([_to_item(value, strings) for value in values], side, **given)]


def _to_item(value: Any, strings: str) -> dict[str, Any]:
    if isinstance(value, Mapping) and not value.keys() & {"bytes", "path"}:
        return dict(value)
    return {strings if isinstance(value, str) else "image": value}
