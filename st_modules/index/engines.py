"""How entries become vectors: what an engine is, its parts, and the one of this process.

An engine is called with entries, some at a time, and yields what became of them, in their order and in whatever pieces
suit it. It knows nothing of the table: which entries are embedded at all, what they are called and when they are
committed is decided by who calls it. It asks for entries only when it has room for them, so what it holds is bounded.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from st_modules.errors import InputError
from st_modules.index.entries import Entry, Loaded, Unreadable
from st_modules.index.read_ahead import read_ahead
from st_modules.inputs.images import ImageSource

if TYPE_CHECKING:
    from st_modules.integrations.embedder import Embedder

Vector: TypeAlias = npt.NDArray[np.floating[Any]]
Known: TypeAlias = Callable[[Sequence[str]], Mapping[str, Vector]]
"""From digests of contents to the vectors that are known of them already."""

_LEAST_AT_ONCE = 256
_BATCHES_AT_ONCE = 8
_MOST_BYTES = 256 * 2**20
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Embedded:
    """What became of an entry.

    Attributes:
        entry: The entry.
        text: Its text, as the table keeps it.
        content: Digest of what was embedded.
        vector: Its vector, float32, normalised and as long as the table's.
        thumbnail: A small JPEG of its picture, where those are asked for.
        reused: Whether the vector was known already.
    """

    entry: Entry
    text: str | None
    content: str
    vector: Vector
    thumbnail: bytes | None = None
    reused: bool = False


class Engine(Protocol):
    """What turns entries into vectors."""

    def __call__(self, chunks: Iterator[list[Entry]]) -> Iterator[list[Embedded | Unreadable]]:
        """Embed entries.

        Args:
            chunks: The entries. It is asked for more in the thread that asks the engine for more.

        Yields:
            For every entry what became of it, in the order of the entries; in pieces of any length. An entry that
            cannot be read or embedded is ``Unreadable``; what else is raised ends the run.
        """
        ...


@dataclass(frozen=True)
class EmbedOptions:
    """How entries are embedded, wherever that is done; it can be pickled.

    Attributes:
        instruction: What the model is told about the documents.
        batch_size: Most items in a batch.
        truncate_dim: How many dimensions of a vector are kept; ``None`` is all.
        thumbnails: How many pixels a thumbnail is wide or high at most; ``None`` makes none.
    """

    instruction: str | None = None
    batch_size: int = 32
    truncate_dim: int | None = None
    thumbnails: int | None = None

    @property
    def at_once(self) -> int:
        """How many items are embedded in one call: enough to fill batches with items of like length."""
        return max(_LEAST_AT_ONCE, _BATCHES_AT_ONCE * self.batch_size)


@dataclass(frozen=True)
class Ready:
    """An entry that has been read.

    Attributes:
        entry: The entry.
        loaded: What is embedded of it.
        thumbnail: A small JPEG of its picture, where those are asked for.
    """

    entry: Entry
    loaded: Loaded
    thumbnail: bytes | None = None


def read_entry(entry: Entry, thumbnails: int | None) -> Ready | Unreadable:
    """Read an entry, and have a small picture made of its own.

    Args:
        entry: The entry.
        thumbnails: As of :class:`EmbedOptions`.
    """
    try:
        loaded = entry.content.load()
        thumbnail = make_thumbnail(loaded.item, thumbnails) if thumbnails else None
    except (InputError, OSError) as error:
        return refuse(entry, error)
    return Ready(entry, loaded, thumbnail)


def embed_ready(
    embedder: Embedder, ready: Sequence[Ready | Unreadable], options: EmbedOptions, known: Known = lambda contents: {}
) -> list[Embedded | Unreadable]:
    """Embed entries that have been read, those of equal content once.

    Args:
        embedder: The model.
        ready: The entries; what could not be read is passed on.
        options: How.
        known: Asked for vectors that need not be computed.
    """
    contents = list(dict.fromkeys(each.loaded.content for each in ready if isinstance(each, Ready)))
    reused = known(contents)
    new = {each.loaded.content: each for each in ready if isinstance(each, Ready) and each.loaded.content not in reused}
    vectors, errors = embedder.encode_valid(
        [each.loaded.item for each in new.values()],
        "document",
        prompt=options.instruction,
        batch_size=options.batch_size,
        truncate_dim=options.truncate_dim,
        normalize_embeddings=True,
        show_progress_bar=False,
    )
    failed = {error.index: error for error in errors}
    found: dict[str, InputError | Vector] = {
        content: failed[place] if place in failed else vectors[place] for place, content in enumerate(new)
    }
    return [_settle(each, found, reused) for each in ready]


def _settle(
    ready: Ready | Unreadable, found: Mapping[str, InputError | Vector], reused: Mapping[str, Vector]
) -> Embedded | Unreadable:
    if isinstance(ready, Unreadable):
        return ready
    content = ready.loaded.content
    vector = reused.get(content) if content in reused else found[content]
    if isinstance(vector, InputError):
        return refuse(ready.entry, vector)
    assert vector is not None
    return Embedded(ready.entry, ready.loaded.text, content, vector, ready.thumbnail, reused=content in reused)


def refuse(entry: Entry, error: Exception) -> Unreadable:
    """Say why an entry cannot be embedded."""
    reason = error.problem if isinstance(error, InputError) else str(error)
    return Unreadable(entry.source, entry.place, reason.removeprefix(f"{entry.place}: "), entry.id, entry.page)


def make_thumbnail(item: Mapping[str, Any], pixels: int) -> bytes | None:
    """Return a small JPEG of an item's picture; ``None`` for an item without one.

    Args:
        item: What is embedded.
        pixels: How wide or high it is at most.

    Raises:
        InputError: The picture cannot be read.
    """
    pictures = list_pictures(item)
    if not pictures:
        return None
    picture = ImageSource(pictures[0]).load().convert("RGB")
    picture.thumbnail((pixels, pixels), Image.Resampling.LANCZOS, reducing_gap=2.0)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


def list_pictures(item: Mapping[str, Any]) -> list[Any]:
    """Return the pictures of an item, in order."""
    picture = item.get("image")
    return list(picture) if isinstance(picture, (list, tuple)) else [picture] if picture is not None else []


class LocalEngine:
    """Embeds in this process; the next entries are read in threads meanwhile.

    Args:
        embedder: The model.
        options: How.
        known: Asked for vectors that need not be computed.
    """

    def __init__(self, embedder: Embedder, options: EmbedOptions, known: Known) -> None:
        self._embedder = embedder
        self._options = options
        self._known = known

    def __call__(self, chunks: Iterator[list[Entry]]) -> Iterator[list[Embedded | Unreadable]]:
        """Embed entries; see :class:`Engine`."""
        ready = read_ahead(
            chain.from_iterable(chunks),
            partial(read_entry, thumbnails=self._options.thumbnails),
            weigh,
            most=2 * self._options.at_once,
            most_bytes=_MOST_BYTES,
        )
        try:
            for piece in _pieces(ready, self._options.at_once):
                yield embed_ready(self._embedder, piece, self._options, self._known)
        finally:
            ready.close()


def _pieces(ready: Iterator[Ready | Unreadable], most: int) -> Iterator[list[Ready | Unreadable]]:
    """Put together what is embedded in one call: so many entries, or so many bytes."""
    piece: list[Ready | Unreadable] = []
    size = 0
    for each in ready:
        piece.append(each)
        size += weigh(each)
        if len(piece) >= most or size >= _MOST_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def weigh(ready: Ready | Unreadable) -> int:
    """Return about how many bytes an entry takes that has been read."""
    if isinstance(ready, Unreadable):
        return 0
    pictures = sum(ImageSource(each).held for each in list_pictures(ready.loaded.item))
    return pictures + len(ready.loaded.text or "") + len(ready.thumbnail or b"")
