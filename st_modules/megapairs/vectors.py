"""Embeddings of a collection, on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from st_modules.errors import STModulesError, name_inputs
from st_modules.files.arrays import ArrayFile
from st_modules.megapairs.encoders import Encoder
from st_modules.megapairs.pictures import Collection

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
_ROWS_AT_ONCE = 1024
_SAME = 0.99


def embed(
    collection: Collection,
    encoder: Encoder,
    path: Path,
    *,
    float16: bool = False,
    device: str | None = None,
    report: Callable[[int], object] = int,
) -> ArrayFile:
    """Embed every picture of a collection, or those that a stopped run has left.

    Args:
        collection: The pictures, of which the encoder can read one at least.
        encoder: The model, and what it reads of them.
        path: Where the vectors go, or are.
        float16: Whether to store float16, half the size; cosines then have an error of about 0.001.
        device: Where a model that is not loaded yet runs.
        report: Called with the number of pictures that are done, again and again.

    Returns:
        Unit vectors of shape (n, d), and zeros where the encoder has nothing to read.

    Raises:
        InputError: A picture cannot be embedded.
        STModulesError: The vectors at ``path`` are another model's, or a vector is not finite.
    """
    _check_state(encoder, path)
    if isinstance(encoder.model, str) and is_complete(path):
        return ArrayFile(path)
    model = encoder.load(device)
    file = _open(collection, encoder, model, path, float16)
    while not file.complete:
        numbers = range(file.filled, min(file.filled + _ROWS_AT_ONCE, len(collection)))
        file.append(_unit_vectors(collection, encoder, model, numbers, file.rows.shape[1]))
        report(file.filled)
    return file


def is_complete(path: Path) -> bool:
    """Whether all vectors of a file are there."""
    return ArrayFile.exists(path) and ArrayFile(path).complete


def find_readable(collection: Collection, encoder: Encoder) -> npt.NDArray[np.bool_]:
    """Which pictures the encoder has something to read of, of shape (n,)."""
    return np.array([encoder.item(picture, Path()) is not None for picture in collection.pictures])


def _open(collection: Collection, encoder: Encoder, model: Any, path: Path, float16: bool) -> ArrayFile:
    """The file at ``path`` if its vectors are the model's, or a new one of the model's dimension."""
    first = int(np.argmax(find_readable(collection, encoder)))
    vector = _encode(collection, encoder, model, [first])[0]
    if not ArrayFile.exists(path):
        _state_file(path).write_text(encoder.state)
        return ArrayFile.create(path, (len(collection), len(vector)), "float16" if float16 else "float32")
    file = ArrayFile(path)
    if file.filled > first and float(file.rows[first].astype("float32") @ vector) < _SAME:
        raise _of_another(path, encoder)
    return file


def _check_state(encoder: Encoder, path: Path) -> None:
    """Raise where the vectors at a path were made by the model in another state, as before it was trained on."""
    before = _state_file(path)
    if ArrayFile.exists(path) and before.is_file() and encoder.state not in ("", before.read_text()):
        raise _of_another(path, encoder)


def _state_file(path: Path) -> Path:
    return path.with_suffix(".model")


def _of_another(path: Path, encoder: Encoder) -> STModulesError:
    return STModulesError(f"{path}: it has vectors of another model called {encoder.name!r}; delete it, or rename.")


def _unit_vectors(collection: Collection, encoder: Encoder, model: Any, numbers: range, dimension: int) -> Floats:
    """Vectors of some pictures, and zeros for those of which there is nothing to read."""
    given = [number for number in numbers if encoder.item(collection.pictures[number], Path()) is not None]
    rows = np.zeros((len(numbers), dimension), dtype=np.float32)
    if given:
        rows[[number - numbers.start for number in given]] = _encode(collection, encoder, model, given)
    return rows


def _encode(collection: Collection, encoder: Encoder, model: Any, numbers: Sequence[int]) -> Floats:
    items = [encoder.item(collection.pictures[number], collection.path(number)) for number in numbers]
    with name_inputs(lambda place: collection.pictures[numbers[place]].name):
        vectors = np.asarray(model.encode(items, convert_to_numpy=True, show_progress_bar=False), dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        name = collection.pictures[numbers[bad[0]]].name
        raise STModulesError(f"{encoder.label}: its vector of {name} has no direction (it is zero, or not finite).")
    return vectors / lengths
