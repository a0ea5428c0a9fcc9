"""Adding text, images and text+image to any LangChain store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from langchain_gme.content import IMAGE_KEYS, as_list, image_reference, text_of, to_item
from langchain_gme.embeddings import GMEEmbeddings
from langchain_gme.precomputed import serve_precomputed
from st_modules import InputError, Place


def add_multimodal(
    store: VectorStore,
    items: Sequence[Any],
    metadatas: Sequence[dict[str, Any]] | None = None,
    ids: Sequence[str] | None = None,
    **kwargs: Any,
) -> list[str]:
    """Add text, images, and images with a text to a store, one embedding an item.

    What is stored as a document's text is the item's text, empty where it has none. The path or the URL of its image is
    stored in the metadata under "image", unless ``metadatas`` has that key; an image in memory leaves nothing behind
    but its embedding, so give it a metadata entry to be known by.

    Args:
        store: A store whose embeddings are :class:`GMEEmbeddings` themselves, not a cache around them.
        items: As for :meth:`GMEEmbeddings.embed_multimodal`. A ``Document`` brings its metadata and its id.
        metadatas: One dictionary an item; it takes the place of what a ``Document`` brings.
        ids: One id an item.
        **kwargs: Other arguments of the store's ``add_texts``.

    Returns:
        The ids in the store.

    Raises:
        InputError: An item cannot be embedded, or there are more or fewer metadatas or ids than items.
        TypeError: The store's embeddings are not :class:`GMEEmbeddings`.
        RuntimeError: The store embeds in a way that cannot take embeddings from outside.
    """
    embeddings = embeddings_of(store)
    if not items:
        return []
    parsed, texts, columns = _entries(items, metadatas, ids)
    with serve_precomputed(embeddings, texts, embeddings.embed_multimodal(parsed)):
        return store.add_texts(texts, **columns, **kwargs)


async def aadd_multimodal(
    store: VectorStore,
    items: Sequence[Any],
    metadatas: Sequence[dict[str, Any]] | None = None,
    ids: Sequence[str] | None = None,
    **kwargs: Any,
) -> list[str]:
    """Add to a store without blocking the event loop; see :func:`add_multimodal`."""
    embeddings = embeddings_of(store)
    if not items:
        return []
    parsed, texts, columns = _entries(items, metadatas, ids)
    with serve_precomputed(embeddings, texts, await embeddings.aembed_multimodal(parsed)):
        return await store.aadd_texts(texts, **columns, **kwargs)


def embeddings_of(store: VectorStore) -> GMEEmbeddings:
    """Return a store's embeddings.

    Raises:
        TypeError: They are not :class:`GMEEmbeddings`.
    """
    if isinstance(store.embeddings, GMEEmbeddings):
        return store.embeddings
    raise TypeError(
        f"The embeddings of this {type(store).__name__} are of type {type(store.embeddings).__name__}; make the store "
        "with GMEEmbeddings. A cache around them would keep images under their text."
    )


def _entries(
    items: Sequence[Any], metadatas: Sequence[dict[str, Any]] | None, ids: Sequence[str] | None
) -> tuple[list[Any], list[str], dict[str, Any]]:
    """Items as ``encode`` takes them, and what a store keeps of them: texts, ``metadatas`` and ``ids`` if any."""
    values = as_list(items, "items")
    for name, given in (("metadatas", metadatas), ("ids", ids)):
        if given is not None and len(given) != len(values):
            raise InputError(f"{len(given)} for {len(values)} items; pass one an item", name)
    parsed = [to_item(value, Place(index)) for index, value in enumerate(values)]
    entries = [
        _metadata(value, item, None if metadatas is None else metadatas[index])
        for index, (value, item) in enumerate(zip(values, parsed, strict=True))
    ]
    kept_ids = [value.id if isinstance(value, Document) else None for value in values] if ids is None else list(ids)
    columns = {"metadatas": entries, "ids": kept_ids}
    kept = {name: column for name, column in columns.items() if any(column)}
    return parsed, [text_of(item) for item in parsed], kept


def _metadata(value: Any, item: Any, given: dict[str, Any] | None) -> dict[str, Any]:
    brought = value.metadata if isinstance(value, Document) else {}
    metadata = {key: content for key, content in brought.items() if key not in IMAGE_KEYS} if given is None else given
    reference = image_reference(item)
    return {"image": reference, **metadata} if reference else {**metadata}
