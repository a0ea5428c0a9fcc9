"""What a store keeps of an item besides its embedding: a text, metadata and an id."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as shorten
from typing import Any, TypeAlias

from langchain_core.documents import Document

from langchain_gme.content import IMAGE_KEYS, VIDEO_KEY, document_images, image_references, text_of, video_reference
from langchain_gme.identify import IMAGE_ID
from langchain_gme.quirks import GIVEN_ID, IDS, Quirks
from st_modules import InputError, Place

Metadatas: TypeAlias = Sequence[Mapping[str, Any] | None]
Ids: TypeAlias = Sequence[str | None]

IMAGE = "image"
"""The metadata entry that every row has, so that a store whose columns are those of its first row keeps pictures.

It is the path or the URL of the item's image, a JSON list of them where it has several, and empty where it has none.
"""

_FILLED = (IMAGE, IMAGE_ID)
"""Entries that are empty where there is no image."""


@dataclass(frozen=True)
class Row:
    """A row of a store.

    Args:
        text: The item's text, empty where it has none.
        metadata: With :data:`IMAGE`.
        id: Its id.
        key: The id that the store takes for it.
        is_named: Whether the caller gave the id; else it is made of the item and its metadata.
    """

    text: str
    metadata: dict[str, Any]
    id: str
    key: str
    is_named: bool


def make_row(
    value: Any,
    item: Any,
    metadata: Mapping[str, Any] | None,
    given_id: str | None,
    identify: Callable[[], str],
    quirks: Quirks,
    place: Place,
) -> Row:
    """Return what a store keeps of an item.

    Args:
        value: The item as the caller passed it. A ``Document`` brings its metadata and its id.
        item: The same as ``to_item`` returned it.
        metadata: What takes the place of the metadata that a ``Document`` brings.
        given_id: The id; made of the item and its metadata where it is left out, so that equal items have equal ids.
        identify: Returns what tells the item from others.
        quirks: How the store is to be treated.
        place: Where the item stands, for errors.

    Raises:
        InputError: The metadata has an image, and the item has none; or an image cannot be read any more.
    """
    if metadata is None:
        metadata = _brought(value, item) if isinstance(value, Document) else {}
    elif image_references(item) == [] and any(
        isinstance(metadata.get(key), str) and metadata[key] for key in IMAGE_KEYS
    ):
        raise InputError(
            'its metadata has an image, which is not embedded; put it into the item: {"text": ..., "image": ...}', place
        )
    own = {key: content for key, content in metadata.items() if key != IMAGE or content not in (None, "")}
    video = video_reference(item)
    # That of a video is in its own row alone: stores had it in none before there were videos.
    kept = {IMAGE: _join(image_references(item) or []), **({} if video is None else {VIDEO_KEY: video}), **own}
    named = given_id or (value.id if isinstance(value, Document) else None)
    # UUIDs, because some stores take no other ids.
    made = named or str(uuid.uuid5(IDS, f"{identify()} {_digest(kept)} {quirks.scope}".rstrip()))
    key = quirks.key_of(made)
    return Row(text_of(item), kept if key == made else {**kept, GIVEN_ID: made}, made, key, named is not None)


def check_columns(count: int, metadatas: object, ids: object) -> tuple[Metadatas | None, Ids | None]:
    """Return the metadatas and ids of items; None in the place of an empty list, which stores take for none.

    Raises:
        InputError: There is not one an item, or one is of another type.
    """
    return (
        _check_column("metadatas", metadatas, count, Mapping, "a dictionary"),
        _check_column("ids", ids, count, str, "a string"),
    )


def _check_column(name: str, given: Any, count: int, kind: type, wanted: str) -> Any:
    if given is None or (isinstance(given, (list, tuple)) and not given):
        return None
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Sequence):
        raise InputError(f"of type {type(given).__name__}; pass a list", name)
    if len(given) != count:
        raise InputError(f"{len(given)} for {count} items; pass one an item", name)
    for index, value in enumerate(given):
        if value is not None and not isinstance(value, kind):
            raise InputError(
                f"of type {type(value).__name__}; pass {wanted}, or None", Place(index, name=f"{name}[{index}]")
            )
    return given


def list_unique(rows: Sequence[Row], places: Sequence[int]) -> list[int]:
    """Return the numbers of the rows without those that repeat an earlier one.

    Args:
        rows: The rows.
        places: The position of each one's item among those of the call.

    Raises:
        InputError: An id was given twice, so that a store would keep one row of two.
    """
    firsts: dict[str, int] = {}
    for number, row in enumerate(rows):
        first = firsts.setdefault(row.key, number)
        if first != number and (row.is_named or rows[first].is_named):
            raise InputError(
                f"its id {shorten(row.id)} is that of item {places[first]} too; give each item its own",
                Place(places[number]),
            )
    return list(firsts.values())


def restore(document: Document) -> Document:
    """Return a document that a store found without the entries that it has for its store's sake."""
    metadata = {key: value for key, value in document.metadata.items() if key not in _FILLED or value != ""}
    image = metadata.get(IMAGE)
    if isinstance(image, str) and image.startswith("[") and len(images := document_images(document)) > 1:
        metadata[IMAGE] = images
    return document.model_copy(update={"metadata": metadata})


def _join(references: Sequence[str]) -> str:
    return json.dumps(references) if len(references) > 1 else "".join(references)


def _brought(document: Document, item: Any) -> dict[str, Any]:
    """The metadata of a document, without images in memory, which no store keeps, and with its images as strings."""
    images = document_images(document)
    references = image_references(item)
    # The data URI of an image is a string, and the document's own to keep.
    kept = images if references is None and all(isinstance(image, str) for image in images) else references
    # A video in memory is kept no more than an image is.
    is_video = isinstance(item, dict) and "video" in item
    own = {
        key: value
        for key, value in document.metadata.items()
        if not (is_video and key == VIDEO_KEY) or isinstance(value, (str, os.PathLike)) or value is None
    }
    if kept is None:
        return {key: value for key, value in own.items() if key not in IMAGE_KEYS}
    image = {IMAGE: _join(kept)} if kept else {}
    strings = {
        key: _join(kept) for key in IMAGE_KEYS if isinstance(document.metadata.get(key), (dict, list, tuple)) and kept
    }
    paths = {key: os.fspath(value) for key, value in own.items() if isinstance(value, os.PathLike)}
    return {**own, **strings, **paths, **image}


def _digest(metadata: Mapping[str, Any]) -> str:
    """Return a hash of metadata that is the same in every process."""
    try:
        text = json.dumps({str(key): value for key, value in metadata.items()}, sort_keys=True, default=_describe)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        problem = f"its values are nested too deeply, or hold themselves ({error}); pass ids, or leave them out"
        raise InputError(problem, "metadata") from error
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _describe(value: Any) -> Any:
    """What stands for a value that JSON does not have."""
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if hasattr(value, "tobytes"):
        return [str(getattr(value, "dtype", "")), list(getattr(value, "shape", ())), value.tobytes().hex()]
    if type(value).__repr__ is object.__repr__:
        problem = f"a value of type {type(value).__name__}, of which no id can be made; pass ids, or leave it out"
        raise InputError(problem, "metadata")
    return repr(value)
