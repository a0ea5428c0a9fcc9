"""Vectors that were computed before: those that ``st-modules embed`` wrote, beside the records that it wrote."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_modules.errors import InputError
from st_modules.index.engines import Embedded, EmbedOptions, Ready, Vector, read_entry
from st_modules.index.entries import Content, Entry, Finished, Loaded, Unreadable, digest
from st_modules.index.model_facts import IndexMismatchError
from st_modules.index.read_ahead import read_ahead
from st_modules.index.sources import Sources

if TYPE_CHECKING:
    from st_modules.integrations.embedder import Embedder

_AHEAD = 256
_MOST_BYTES = 64 * 2**20
# As far as vectors of the same item differ with the batch that it is in, and with the precision of the model.
_SAME = 0.999


@dataclass(frozen=True)
class _Numbered:
    """Content of a record, and which record of its file it is."""

    number: int
    content: Content

    def load(self) -> Loaded:
        return self.content.load()


class Records:
    """The records of a file that ``st-modules embed`` wrote, as a collection.

    Args:
        sources: The file alone.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def __iter__(self) -> Iterator[Entry | Unreadable | Finished]:
        number = 0
        for part in self._sources:
            yield _number(part, number) if isinstance(part, Entry) else part
            number += not isinstance(part, Finished)

    def covers(self, source: str) -> bool:
        """Whether a source is the file."""
        return self._sources.covers(source)

    def estimate(self) -> int | None:
        """Return how many records there are."""
        return self._sources.estimate()


def _number(entry: Entry, number: int) -> Entry:
    # What was in the fields of a record that was embedded is in one field of the record that was written.
    kept = entry.metadata.get("metadata")
    metadata = kept if isinstance(kept, dict) and entry.metadata.keys() == {"metadata"} else entry.metadata
    return dataclasses.replace(entry, content=_Numbered(number, entry.content), metadata=metadata)


def open_vectors(path: str | os.PathLike[str], sources: Any) -> Vector:
    """Open a file of vectors, which stays on the disk.

    Args:
        path: The ``.npy`` file.
        sources: What was passed as the sources: the file of its records alone.

    Raises:
        InputError: It is no such file, or not of these records.
    """
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    if len(given) != 1 or Path(given[0]).suffix != ".jsonl":
        raise InputError(f"{os.fspath(path)}: vectors={os.fspath(path)!r} goes with one source, the .jsonl beside it.")
    try:
        vectors = np.load(path, mmap_mode="r")
    except (EOFError, ValueError) as error:
        raise InputError(f"{os.fspath(path)}: damaged, or no .npy file.") from error
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise InputError(f"{os.fspath(path)}: {vectors.dtype} of shape {vectors.shape}, and not rows of vectors.")
    with Path(given[0]).open("rb") as stream:
        count = sum(1 for line in stream if line.strip())
    if count != len(vectors):
        raise InputError(f"{os.fspath(path)}: {len(vectors)} vectors, and {given[0]} has {count} records.")
    return vectors


class PrecomputedEngine:
    """Takes vectors from a file in the place of embedding; the first one is compared with the model's own.

    What a record names, such as a picture, is read where it is there: its content tells equal items. A page of a PDF
    has its vector without.

    Args:
        vectors: Shape (records, dimensions).
        embedder: The model.
        options: How its vectors are made.
        dimension: How many dimensions the table's vectors have.
    """

    def __init__(self, vectors: Vector, embedder: Embedder, options: EmbedOptions, dimension: int) -> None:
        self._vectors = vectors
        self._embedder = embedder
        self._options = options
        self._dimension = dimension
        self._checked = False
        if vectors.shape[1] < dimension:
            raise IndexMismatchError(f"vectors of {vectors.shape[1]} dimensions for an index of {dimension}.")

    def __call__(self, chunks: Iterator[list[Entry]]) -> Iterator[list[Embedded | Unreadable]]:
        """Give entries their vectors; see :class:`st_modules.index.engines.Engine`."""
        entries = chain.from_iterable(chunks)
        read = partial(_read, thumbnails=self._options.thumbnails)
        ready = read_ahead(entries, read, lambda each: len(each[1] or b""), most=_AHEAD, most_bytes=_MOST_BYTES)
        try:
            for found in ready:
                yield [self._give(*found)]
        finally:
            ready.close()

    def _give(self, entry: Entry, thumbnail: bytes | None, loaded: Loaded | None) -> Embedded | Unreadable:
        assert isinstance(entry.content, _Numbered)
        vector = np.array(self._vectors[entry.content.number, : self._dimension], np.float32)
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or not length:
            return Unreadable(entry.source, entry.place, "its vector is not finite, or zero", entry.id, entry.page)
        vector /= length
        if loaded is not None and not self._checked:
            self._check(entry, loaded, vector)
        content = loaded.content if loaded else digest("vector", vector.tobytes())
        return Embedded(entry, loaded.text if loaded else entry.text, content, vector, thumbnail, reused=True)

    def _check(self, entry: Entry, loaded: Loaded, vector: Vector) -> None:
        own = self._embedder.encode(
            [loaded.item],
            "document",
            prompt=self._options.instruction,
            truncate_dim=self._dimension,
            normalize_embeddings=True,
        )[0]
        if float(own @ vector) < _SAME:
            raise IndexMismatchError(
                f"{entry.place}: its vector is not the one that the model has for it; pass the model, the side "
                "(--document) and the instruction that the vectors were computed with."
            )
        self._checked = True


def _read(entry: Entry, thumbnails: int | None) -> tuple[Entry, bytes | None, Loaded | None]:
    ready = read_entry(entry, thumbnails)
    return (entry, ready.thumbnail, ready.loaded) if isinstance(ready, Ready) else (entry, None, None)
