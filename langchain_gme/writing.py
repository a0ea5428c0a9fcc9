"""How items get into a store: all are embedded, then rows are written in batches, each with its embeddings."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from langchain_gme.content import as_list, to_item
from langchain_gme.embeddings import GMEEmbeddings
from langchain_gme.precomputed import PrecomputedError, serve_documents
from langchain_gme.quirks import Quirks, quirks_of
from langchain_gme.rows import Row, check_columns, list_unique, make_row
from st_modules import InputError, Place

OnError: TypeAlias = Literal["raise", "skip"]

logger = logging.getLogger(__name__)

_MOST_LISTED = 1000


@dataclass(frozen=True)
class Batch:
    """The items of one call.

    Args:
        values: The items as they were passed.
        items: What ``to_item`` returned for those that it can bring into a form that ``encode`` takes.
        places: The position of each of ``items`` among ``values``.
        errors: Why the others cannot be embedded, in order.
        metadatas: One a value, or None.
        ids: One a value, or None.
        on_error: What becomes of values that cannot be embedded.
        size: Rows that are written at once.
    """

    values: list[Any]
    items: list[Any]
    places: list[int]
    errors: list[InputError]
    metadatas: Sequence[Mapping[str, Any] | None] | None
    ids: Sequence[str | None] | None
    on_error: OnError
    size: int


@dataclass(frozen=True)
class Encoded:
    """A batch with its embeddings.

    Args:
        batch: The batch.
        embeddings: float32 of shape (items that were embedded, dimensions).
        errors: Why others of the batch's items were not, with their places among ``batch.items``.
    """

    batch: Batch
    embeddings: np.ndarray
    errors: list[InputError]


@dataclass(frozen=True)
class Part:
    """Rows that are written at once.

    Args:
        rows: The rows.
        embeddings: float32 of shape (rows, dimensions).
    """

    rows: Sequence[Row]
    embeddings: np.ndarray

    @classmethod
    def empty(cls) -> Part:
        """Return a part without rows."""
        return cls([], np.empty((0, 0), dtype=np.float32))

    @property
    def texts(self) -> list[str]:
        """The texts of the rows."""
        return [row.text for row in self.rows]

    @property
    def columns(self) -> dict[str, Any]:
        """The arguments of ``add_texts`` besides the texts."""
        return {"metadatas": [dict(row.metadata) for row in self.rows], "ids": self.keys}

    @property
    def keys(self) -> list[str]:
        """The ids that the store takes for the rows."""
        return [row.key for row in self.rows]


@dataclass(frozen=True)
class Plan:
    """What is written, and which row is which item's.

    Args:
        parts: The rows, each once.
        rows: The row of each item that was embedded, in the items' order.
        skipped: Why others were left out, in order.
        count: How many items there were.
    """

    parts: list[Part]
    rows: list[Row]
    skipped: list[InputError]
    count: int

    def answer(self, written: Sequence[str]) -> list[str]:
        """Return the id of each item that was embedded, from what the store returned for each row."""
        in_store = dict(zip((key for part in self.parts for key in part.keys), written, strict=True))
        return [in_store[row.key] if row.key == row.id else row.id for row in self.rows]

    def report_skipped(self) -> None:
        """Log which items were left out, and why."""
        if not self.skipped:
            return
        listed = "\n".join(map(str, self.skipped[:_MOST_LISTED]))
        more = len(self.skipped) - _MOST_LISTED
        logger.warning(
            "%d of %d items cannot be embedded and were left out:\n%s%s",
            len(self.skipped),
            self.count,
            listed,
            f"\nand {more} more" if more > 0 else "",
        )


def check_owner(embeddings: object, store: VectorStore | type[VectorStore]) -> GMEEmbeddings:
    """Return the embeddings of a store.

    Args:
        embeddings: The embeddings.
        store: The store, or the class of one that is to be made.

    Raises:
        TypeError: They are not :class:`GMEEmbeddings`.
    """
    if isinstance(embeddings, GMEEmbeddings):
        return embeddings
    name = (store if isinstance(store, type) else type(store)).__name__
    if embeddings is None:
        raise TypeError(
            f"This {name} does not say what its embeddings are; if they are GMEEmbeddings, pass the same: "
            "MultimodalStore(store, embeddings=embeddings)."
        )
    raise TypeError(
        f"The embeddings of this {name} are of type {type(embeddings).__name__}; make the store with GMEEmbeddings. "
        "A cache around them would keep images under their text."
    )


def parse_batch(
    items: object,
    metadatas: Sequence[Mapping[str, Any] | None] | None,
    ids: Sequence[str | None] | None,
    on_error: OnError,
    size: int,
) -> Batch:
    """Check the arguments of a call, and bring its items into the form that ``encode`` takes.

    Raises:
        InputError: An item is none, or there are more or fewer metadatas or ids than items.
        ValueError: ``on_error`` or ``size`` is none of its values.
    """
    if on_error not in get_args(OnError):
        raise ValueError(f'on_error={on_error!r}; pass "raise" or "skip".')
    if size < 1:
        raise ValueError(f"batch_size={size}; pass 1 or more.")
    values = as_list(items, "items")
    check_columns(len(values), metadatas, ids)
    parsed: list[Any] = []
    places: list[int] = []
    errors: list[InputError] = []
    for index, value in enumerate(values):
        try:
            parsed.append(to_item(value, Place(index)))
            places.append(index)
        except InputError as error:
            if on_error == "raise":
                raise
            errors.append(error)
    return Batch(values, parsed, places, errors, metadatas, ids, on_error, size)


def encode_batch(owner: GMEEmbeddings, batch: Batch) -> Encoded:
    """Embed a batch."""
    options = owner.encode_options("document")
    if batch.on_error == "raise":
        return Encoded(batch, owner.embedder.encode(batch.items, "document", **options), [])
    return _from_valid(batch, *owner.embedder.embed_valid(batch.items, "document", **options))


async def aencode_batch(owner: GMEEmbeddings, batch: Batch) -> Encoded:
    """Embed a batch off the event loop."""
    options = {**owner.encode_options("document"), "delay": owner.batch_delay}
    if batch.on_error == "raise":
        return Encoded(batch, await owner.embedder.aencode(batch.items, "document", **options), [])
    return _from_valid(batch, *await owner.embedder.aembed_valid(batch.items, "document", **options))


def check_embeddings(owner: GMEEmbeddings, batch: Batch, embeddings: Any) -> Encoded | None:
    """Return a batch with the embeddings that the caller has of its values; None where there are none.

    Raises:
        InputError: They are not one a value, not finite, or of another dimension than the model's.
    """
    if embeddings is None:
        return None
    try:
        array = np.asarray(embeddings, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"no array of numbers ({error}); pass one list of floats an item", "embeddings") from error
    if array.ndim != 2 or len(array) != len(batch.values):
        raise InputError(f"of shape {array.shape} for {len(batch.values)} items; pass one an item", "embeddings")
    dimension = owner.encode_options("document").get("truncate_dim") or owner.client.get_embedding_dimension()
    if dimension is not None and array.shape[1] != dimension:
        raise InputError(
            f"of dimension {array.shape[1]}, where the store's model has {dimension}; embed with that model",
            "embeddings",
        )
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        index = int(finite.argmin())
        raise InputError("it has values that are not finite; embed it again", Place(index, name=f"embeddings[{index}]"))
    return Encoded(batch, array[batch.places], [])


def make_plan(owner: GMEEmbeddings, encoded: Encoded, quirks: Quirks) -> Plan:
    """Return the rows of what was embedded.

    Raises:
        InputError: An id was given twice, or an image cannot be read any more.
    """
    batch = encoded.batch
    left_out = {error.index for error in encoded.errors}
    numbers = [number for number in range(len(batch.items)) if number not in left_out]
    rows = [_make_row(owner, batch, number, quirks) for number in numbers]
    unique = list_unique(rows, [batch.places[number] for number in numbers])
    chunks = (unique[start : start + batch.size] for start in range(0, len(unique), batch.size))
    moved = [
        error.shift(batch.places[error.index] - error.index) for error in encoded.errors if error.index is not None
    ]
    return Plan(
        parts=[Part([rows[number] for number in chunk], encoded.embeddings[chunk]) for chunk in chunks],
        rows=rows,
        skipped=sorted([*batch.errors, *moved], key=lambda error: error.index or 0),
        count=len(batch.values),
    )


def write(store: VectorStore, owner: GMEEmbeddings, part: Part, **kwargs: Any) -> list[str]:
    """Write rows in the place of those that the store has under their ids; return the ids in the store."""
    _remove(store, part.keys)
    returned: Sequence[str] | None = None
    try:
        with serve_documents(owner, part.texts, part.embeddings):
            returned = store.add_texts(part.texts, **part.columns, **kwargs)
        return _check_returned(returned, part)
    except PrecomputedError as error:
        raise PrecomputedError(f"{error} {_clean_up(store, [*part.keys, *(returned or ())])}") from error


async def awrite(store: VectorStore, owner: GMEEmbeddings, part: Part, **kwargs: Any) -> list[str]:
    """Write rows without blocking the event loop; see :func:`write`."""
    await _aremove(store, part.keys)
    returned: Sequence[str] | None = None
    try:
        with serve_documents(owner, part.texts, part.embeddings):
            returned = await store.aadd_texts(part.texts, **part.columns, **kwargs)
        return _check_returned(returned, part)
    except PrecomputedError as error:
        raise PrecomputedError(f"{error} {await _aclean_up(store, [*part.keys, *(returned or ())])}") from error


def create(store_class: type[VectorStore], owner: GMEEmbeddings, part: Part, **kwargs: Any) -> VectorStore:
    """Make a store of rows."""
    # One that is being made may embed a text of its own, to learn the dimension.
    with serve_documents(owner, part.texts, part.embeddings, probes=True):
        return store_class.from_texts(part.texts, owner, **part.columns, **kwargs)


def _from_valid(batch: Batch, embeddings: Sequence[list[float] | None], errors: list[InputError]) -> Encoded:
    return Encoded(batch, np.asarray([each for each in embeddings if each is not None], dtype=np.float32), errors)


def _make_row(owner: GMEEmbeddings, batch: Batch, number: int, quirks: Quirks) -> Row:
    place, item = batch.places[number], batch.items[number]
    try:
        return make_row(
            batch.values[place],
            item,
            batch.metadatas[place] if batch.metadatas is not None else None,
            batch.ids[place] if batch.ids is not None else None,
            lambda: owner.embedder.identify([item])[0],
            quirks,
        )
    except InputError as error:
        raise error.shift(place) from error


def _remove(store: VectorStore, keys: Sequence[str]) -> None:
    """Remove the rows that a store has under these ids: some stores would add to them, or refuse the ids."""
    try:
        found = store.get_by_ids(keys)
    except NotImplementedError:
        _try_delete(store, keys)  # what there is to delete is not known
        return
    if present := _present(store, keys, found):
        store.delete(ids=present)


async def _aremove(store: VectorStore, keys: Sequence[str]) -> None:
    """Remove rows as :func:`_remove` does, by the methods for an event loop: a store may have no others."""
    try:
        found = await store.aget_by_ids(keys)
    except NotImplementedError:
        await _atry_delete(store, keys)
        return
    if present := _present(store, keys, found):
        await store.adelete(ids=present)


def _present(store: VectorStore, keys: Sequence[str], found: Sequence[Document]) -> list[str]:
    """Return the ids of what was found, where the store says which they are; else all, where anything was found."""
    present = {quirks_of(store).find_key(document) for document in found}
    return [key for key in keys if key in present or None in present]


def _try_delete(store: VectorStore, keys: Sequence[str]) -> bool:
    """Whether a store deleted rows, some of which may not exist: many stores raise then, each another exception."""
    try:
        return store.delete(ids=list(keys)) is not False
    except Exception as error:
        logger.debug("%s.delete: %s", type(store).__name__, error)
        return False


async def _atry_delete(store: VectorStore, keys: Sequence[str]) -> bool:
    try:
        return await store.adelete(ids=list(keys)) is not False
    except Exception as error:
        logger.debug("%s.adelete: %s", type(store).__name__, error)
        return False


def _clean_up(store: VectorStore, keys: Sequence[str]) -> str:
    """Delete what a store may have written with embeddings that are not its rows', and say so."""
    return _describe_clean_up(_try_delete(store, keys), keys)


async def _aclean_up(store: VectorStore, keys: Sequence[str]) -> str:
    return _describe_clean_up(await _atry_delete(store, keys), keys)


def _describe_clean_up(is_clean: bool, keys: Sequence[str]) -> str:
    if is_clean:
        return "What it had written was deleted."
    return f"Delete what it may have written: the rows with the ids {reprlib.repr(list(keys))}."


def _check_returned(returned: Sequence[str] | None, part: Part) -> list[str]:
    """Return the ids in a store.

    Raises:
        PrecomputedError: There are fewer of them than rows.
    """
    written = list(returned or part.keys)
    if len(written) != len(part.rows) or len(set(written)) != len(written):
        raise PrecomputedError(
            f"The store kept {len(set(written))} rows of {len(part.rows)}: it has ids of its own, such as a hash of "
            "the text, which images with no text share. Use another store, or give each item a text of its own."
        )
    return written
