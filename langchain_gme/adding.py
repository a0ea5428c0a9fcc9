"""Adding text, images, and images with a text to any LangChain store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from langchain_core.vectorstores import VectorStore

from langchain_gme.batches import BATCH_SIZE
from langchain_gme.content import OnError
from langchain_gme.rows import Ids, Metadatas
from langchain_gme.stores import MultimodalStore


def add_multimodal(
    store: VectorStore,
    items: Sequence[Any],
    metadatas: Metadatas | None = None,
    ids: Ids | None = None,
    *,
    embeddings: Sequence[Sequence[float]] | np.ndarray | None = None,
    on_error: OnError | None = None,
    batch_size: int = BATCH_SIZE,
    **kwargs: Any,
) -> list[str]:
    """Add text, images, and images with a text to a store, one embedding an item.

    All items are embedded before the first row is written. What is stored as a document's text is the item's text,
    empty where it has none. The path or the URL of its image is stored in the metadata under "image": a JSON list of
    them where it has several, the empty string where it has none. An entry of that name in ``metadatas`` wins. An image
    in memory leaves nothing behind but its embedding, so give it a metadata entry to be known by.

    An item without an id gets one that is made of its text, the bytes of its images and its metadata: added twice it is
    one row, in every store that can replace or delete rows, and a file that changed is another item.

    Args:
        store: A store whose embeddings are :class:`GMEEmbeddings` themselves, not a cache around them; or a
            :class:`MultimodalStore`.
        items: As for :meth:`GMEEmbeddings.embed_multimodal`. A ``Document`` brings its metadata and its id.
        metadatas: One dictionary an item; it takes the place of what a ``Document`` brings.
        ids: One id an item; rows that the store has under them are replaced.
        embeddings: One embedding an item, of shape (items, dimensions), where they are there already.
        on_error: ``"raise"``; ``"skip"`` leaves out the items that cannot be embedded, and logs a warning that lists
            them.
        batch_size: Rows that are written at once.
        **kwargs: Other arguments of the store's ``add_texts``.

    Returns:
        The ids in the store: one an item, in the same order, without those that were left out.

    Raises:
        InputError: An item cannot be embedded, an id was given twice, or there are more or fewer metadatas, ids or
            embeddings than items. Nothing was written.
        TypeError: The store's embeddings are not :class:`GMEEmbeddings`.
        RuntimeError: The store embeds in a way that cannot take embeddings from outside.
    """
    columns = {"metadatas": metadatas, "ids": ids, "embeddings": embeddings}
    return MultimodalStore(store).add_items(items, **columns, on_error=on_error, batch_size=batch_size, **kwargs)


async def aadd_multimodal(
    store: VectorStore,
    items: Sequence[Any],
    metadatas: Metadatas | None = None,
    ids: Ids | None = None,
    *,
    embeddings: Sequence[Sequence[float]] | np.ndarray | None = None,
    on_error: OnError | None = None,
    batch_size: int = BATCH_SIZE,
    **kwargs: Any,
) -> list[str]:
    """Add to a store without blocking the event loop; see :func:`add_multimodal`."""
    columns = {"metadatas": metadatas, "ids": ids, "embeddings": embeddings}
    return await MultimodalStore(store).aadd_items(items, **columns, on_error=on_error, batch_size=batch_size, **kwargs)
