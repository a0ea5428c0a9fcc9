"""Vectors as the APIs write them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np

from st_modules.serve.problems import Problem


def _as_floats(vectors: np.ndarray) -> list[Any]:
    return vectors.tolist()


def _as_base64(vectors: np.ndarray) -> list[Any]:
    return [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]


def _as_unsigned_bits(vectors: np.ndarray) -> list[Any]:
    return np.packbits(vectors > 0, axis=1).tolist()


def _as_signed_bits(vectors: np.ndarray) -> list[Any]:
    return (np.packbits(vectors > 0, axis=1).astype(np.int16) - 128).tolist()


_WRITERS: dict[str, Callable[[np.ndarray], list[Any]]] = {
    "float": _as_floats,
    "base64": _as_base64,
    "ubinary": _as_unsigned_bits,
    "binary": _as_signed_bits,
}
VECTOR_SCHEMA = {
    "description": "Numbers, or the base64 of little-endian float32.",
    "anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string"}],
}


def write_vectors(vectors: np.ndarray, kind: str) -> list[Any]:
    """Return vectors in one of the ways that APIs have a name for, one each.

    Args:
        vectors: float32 of shape (items, dimensions).
        kind: ``"float"``; ``"base64"`` of little-endian float32; ``"ubinary"``, a bit for whether a component is
            positive, eight to a byte; or ``"binary"``, the same less 128.

    Raises:
        Problem: The name is another.
    """
    if kind not in _WRITERS:
        raise Problem("input", f"Embeddings come as {', '.join(_WRITERS)}, and as nothing else.")
    return _WRITERS[kind](vectors)
