"""How documents are told apart by their pictures, where only their text and metadata count."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.documents import Document

from langchain_gme.content import OnError, check_documents, check_on_error, document_images, find_place
from st_modules import ImageLimits, ImageSource, InputError

IMAGE_ID = "image_sha256"
"""Key of the metadata entry that :func:`identify_images` adds."""

logger = logging.getLogger(__name__)


def identify_images(
    documents: Iterable[Document], limits: ImageLimits | None = None, *, on_error: OnError = "raise"
) -> list[Document]:
    """Return copies of documents that are told apart by their pictures.

    ``langchain_core.indexing.index`` knows a document by its text and its metadata, in which a picture is a path: where
    the file changes, the document does not, and the index keeps the embedding of what the file was. This adds the
    SHA-256 of the picture's bytes to the metadata (of the address, for an http(s) URL, which is not fetched), and the
    empty string where there is no picture, because some stores have the columns of their first row. Call it on what you
    hand to ``index``.

    Args:
        documents: The documents.
        limits: What each picture may cost; ``ImageLimits()`` where it is left out.
        on_error: ``"raise"``, or ``"skip"``, which leaves the identity of a picture that cannot be read empty, for a
            store with ``on_error="skip"`` to leave out and to list.

    Returns:
        The documents, in the same order.

    Raises:
        InputError: Something is no ``Document``.
        ImageError: A picture cannot be read; the message has the document's place.
    """
    check_on_error(on_error)
    if isinstance(documents, (str, Document)):
        raise InputError(f"of type {type(documents).__name__}; pass a list", "documents")
    return [_identify(each, limits, on_error, place) for place, each in enumerate(check_documents(list(documents)))]


def report_unidentified(documents: Sequence[Any]) -> None:
    """Log where documents have pictures that they are not told apart by."""
    if any(
        isinstance(each, Document) and IMAGE_ID not in each.metadata and document_images(each) for each in documents
    ):
        logger.warning(
            "index knows these documents by their text and metadata, in which a picture is a path: a picture that "
            "changes goes unnoticed. Pass it langchain_gme.identify_images(documents)."
        )


def _identify(document: Document, limits: ImageLimits | None, on_error: OnError, index: int) -> Document:
    try:
        place = find_place(document, index)
        images = document_images(document, place)
        identities = [ImageSource(image, place, limits).identify("sha256").hex() for image in images]
    except InputError:
        if on_error == "raise":
            raise
        identities = []
    return document.model_copy(update={"metadata": {**document.metadata, IMAGE_ID: " ".join(identities)}})
