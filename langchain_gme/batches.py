"""The items of one call that adds to a store, and their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from reprlib import repr as shorten
from typing import Any

import numpy as np

from langchain_gme.content import OnError, as_list, check_on_error, find_place, name_documents, to_item
from langchain_gme.embeddings import GMEEmbeddings
from langchain_gme.rows import Ids, Metadatas, check_columns
from st_modules import InputError, Place

BATCH_SIZE = 1000
"""Rows that are written at once."""


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
    metadatas: Metadatas | None
    ids: Ids | None
    on_error: OnError
    size: int


@dataclass(frozen=True)
class Encoded:
    """A batch with its embeddings.

    Args:
        batch: The batch.
        embeddings: float32 of shape (items that were embedded, dimensions).
        errors: Why others of the batch's items were not, with their places among ``batch.items``.
        is_given: Whether the caller had the embeddings already.
    """

    batch: Batch
    embeddings: np.ndarray
    errors: list[InputError]
    is_given: bool = False


def parse_batch(
    owner: GMEEmbeddings,
    items: object,
    metadatas: Metadatas | None,
    ids: Ids | None,
    on_error: OnError,
    size: int,
) -> Batch:
    """Check the arguments of a call, and bring its items into the form that ``encode`` takes.

    Args:
        owner: The store's embeddings, which say which files may be opened.
        items: As of ``Batch``, and so are the others.
        metadatas: Likewise.
        ids: Likewise.
        on_error: Likewise.
        size: Likewise.

    Raises:
        InputError: An item is none, or there are more or fewer metadatas or ids than items.
        ValueError: ``on_error`` or ``size`` is none of its values.
    """
    check_on_error(on_error)
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"batch_size={shorten(size)}; pass 1 or more.")
    values = as_list(items, "items")
    metadatas, ids = check_columns(len(values), metadatas, ids)
    parsed: list[Any] = []
    places: list[int] = []
    errors: list[InputError] = []
    for index, value in enumerate(values):
        try:
            place = find_place(value, index, ids[index] if ids else None)
            parsed.append(to_item(value, place, owner.embedder.image_limits, takes_video=owner.embedder.takes_video))
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
        with name_documents(batch.values, batch.ids):
            return Encoded(batch, owner.embedder.encode(batch.items, "document", **options), [])
    return _from_valid(batch, *owner.embedder.embed_valid(batch.items, "document", **options))


async def aencode_batch(owner: GMEEmbeddings, batch: Batch) -> Encoded:
    """Embed a batch off the event loop."""
    options = {**owner.encode_options("document"), "delay": owner.batch_delay}
    if batch.on_error == "raise":
        with name_documents(batch.values, batch.ids):
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
    dimension = owner.encode_options("document").get("truncate_dim") or owner.embedder.dimension
    if dimension and array.shape[1] != dimension:
        raise InputError(
            f"of dimension {array.shape[1]}, where the store's model has {dimension}; embed with that model",
            "embeddings",
        )
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        index = int(finite.argmin())
        raise InputError("it has values that are not finite; embed it again", Place(index, name=f"embeddings[{index}]"))
    return Encoded(batch, array[batch.places], [], is_given=True)


def _from_valid(batch: Batch, embeddings: Sequence[list[float] | None], errors: list[InputError]) -> Encoded:
    return Encoded(batch, np.asarray([each for each in embeddings if each is not None], dtype=np.float32), errors)
