"""How documents are told apart by their pictures, where only their text and metadata count."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langchain_core.documents import Document

from langchain_gme.content import document_images
from st_modules import ImageLimits, ImageSource, InputError, Place

IMAGE_ID = "image_sha256"
"""Key of the metadata entry that :func:`identify_images` adds."""


def identify_images(documents: Iterable[Document], limits: ImageLimits | None = None) -> list[Document]:
    """Return copies of documents that are told apart by their pictures.

    ``langchain_core.indexing.index`` knows a document by its text and its metadata, in which a picture is a path: where
    the file changes, the document does not, and the index keeps the embedding of what the file was. This adds the
    SHA-256 of the picture's bytes to the metadata (of the address, for an http(s) URL, which is not fetched). Call it
    on what you hand to ``index``.

    Args:
        documents: The documents; those without a picture are returned as they are.
        limits: What each picture may cost; ``ImageLimits()`` where it is left out.

    Returns:
        The documents, in the same order.

    Raises:
        InputError: Something is no ``Document``.
        ImageError: A picture cannot be read; the message has the document's place.
    """
    return [_identify(document, Place(index), limits) for index, document in enumerate(documents)]


def _identify(document: Any, place: Place, limits: ImageLimits | None) -> Document:
    if not isinstance(document, Document):
        raise InputError(f"of type {type(document).__name__}; pass a Document", place)
    images = document_images(document, place)
    if not images:
        return document
    identities = [ImageSource(image, place, limits).identify("sha256").hex() for image in images]
    return document.model_copy(update={"metadata": {**document.metadata, IMAGE_ID: " ".join(identities)}})
