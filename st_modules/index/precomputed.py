"""Vectors that were computed before: those that ``st-modules embed`` wrote, beside the records that it wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_modules.errors import InputError
from st_modules.files.records import check_fields, resolve_image
from st_modules.index.engines import Embedded, EmbedOptions, Ready, Vector, read_entry
from st_modules.index.entries import Entry, Finished, Loaded, Unreadable, digest
from st_modules.index.model_facts import IndexMismatchError
from st_modules.index.read_ahead import read_ahead
from st_modules.index.sources.items import load_item
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits

if TYPE_CHECKING:
    from st_modules.integrations.embedder import Embedder

_AHEAD = 256
_MOST_BYTES = 64 * 2**20
# As far as vectors of the same item differ with the batch that it is in, and with the precision of the model.
_SAME = 0.999


@dataclass(frozen=True)
class _Record:
    """What a record embeds, and which one of its file it is."""

    number: int
    place: str
    folder: Path
    text: str | None
    images: tuple[str, ...]
    limits: ImageLimits

    def load(self) -> Loaded:
        encoded = [self._read(each) for each in self.images]
        return load_item(self.place, self.text, encoded, self.limits)

    def _read(self, image: str) -> bytes:
        source = resolve_image(image, self.folder).source
        with ImageSource(source, self.place, self.limits).open() as stream:
            return stream.read()


class Records:
    """The records of a file that ``st-modules embed`` wrote, as a collection.

    Args:
        path: The file.
        limits: What the pictures may cost that it names, and where they may come from.
    """

    def __init__(self, path: Path, limits: ImageLimits) -> None:
        self._path = path
        self._source = os.path.abspath(path)
        self._limits = limits

    def __iter__(self) -> Iterator[Entry | Unreadable | Finished]:
        with self._path.open("rb") as stream:
            for number, line in enumerate(stream):
                yield self._read(number, line)
        yield Finished(self._source)

    def covers(self, source: str) -> bool:
        """Whether a source is the file."""
        return source == self._source

    def estimate(self) -> int | None:
        """Return how many records there are."""
        return count_records(self._path)

    def _read(self, number: int, line: bytes) -> Entry | Unreadable:
        place = f"{self._path}:{number + 1}"
        try:
            row = json.loads(line)
            id, text, image = str(row["id"]), row.get("text"), row.get("image")
            images = tuple(image) if isinstance(image, list) else () if image is None else (image,)
            check_fields({**row["metadata"], "id": id, "text": text, "image": image}, place)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = error.problem if isinstance(error, InputError) else "not a record that `st-modules embed` wrote"
            return Unreadable(self._source, place, reason)
        content = _Record(number, place, self._path.parent, text, images, self._limits)
        kept = json.dumps(image, ensure_ascii=False) if len(images) > 1 else next(iter(images), None)
        return Entry(
            self._source, place, digest("record", self._source, row), content, id, text, kept, metadata=row["metadata"]
        )


def count_records(path: Path) -> int:
    """Return how many lines a file has."""
    with path.open("rb") as stream:
        return sum(1 for _ in stream)


def find_records(sources: Any) -> Path:
    """Return the file of the records that vectors are of.

    Args:
        sources: What was passed as the sources: this file alone.

    Raises:
        InputError: It is something else.
    """
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    if len(given) != 1 or Path(given[0]).suffix != ".jsonl":
        raise InputError("vectors= goes with one source, the .jsonl that is beside them.")
    return Path(given[0])


def open_vectors(path: str | os.PathLike[str], records: Path) -> Vector:
    """Open a file of vectors, which stays on the disk.

    Args:
        path: The ``.npy`` file.
        records: The file of their records.

    Raises:
        InputError: It is no such file, or not of these records.
    """
    try:
        vectors = np.load(path, mmap_mode="r")
    except (EOFError, ValueError) as error:
        raise InputError(f"{os.fspath(path)}: damaged, or no .npy file.") from error
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise InputError(f"{os.fspath(path)}: {vectors.dtype} of shape {vectors.shape}, and not rows of vectors.")
    if (count := count_records(records)) != len(vectors):
        raise InputError(f"{os.fspath(path)}: {len(vectors)} vectors, and {records} has {count} records.")
    return vectors


class PrecomputedEngine:
    """Takes vectors from a file in the place of embedding; the first one is compared with the model's own.

    A picture is read where it is there: its content tells equal items. A record has its vector without, too, such as
    that of a page of a PDF.

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
        assert isinstance(entry.content, _Record)
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
