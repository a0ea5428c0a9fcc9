"""What the embedding functions of stores share: their values as items, and models that are loaded once."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from st_modules.errors import ArgumentError
from st_modules.integrations.embedder import Embedder

_MOST_MODELS = 4


def load_once(model: str, options: Mapping[str, Any]) -> Embedder:
    """Load a model, or return the one that was loaded with the same options: stores make a function again and again.

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


def to_items(values: Sequence[Any], strings: str) -> list[dict[str, Any]]:
    """Return values of a column as items.

    Args:
        values: Strings, images, or dictionaries with ``text``, ``image`` or both.
        strings: What a string is: ``"text"`` or ``"image"``.
    """
    return [_to_item(value, strings) for value in values]


def _to_item(value: Any, strings: str) -> dict[str, Any]:
    if isinstance(value, Mapping) and not value.keys() & {"bytes", "path"}:
        return dict(value)
    return {strings if isinstance(value, str) else "image": value}


def given(**options: Any) -> dict[str, Any]:
    """Return arguments of ``encode`` without those that are ``None``, and without a bar."""
    return {"show_progress_bar": False, **{name: value for name, value in options.items() if value is not None}}
