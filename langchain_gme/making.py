"""How a store is made of documents, by the class of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from langchain_gme.batches import BATCH_SIZE, Batch, parse_batch
from langchain_gme.content import OnError
from langchain_gme.embeddings import GMEEmbeddings
from langchain_gme.plans import Part, Plan
from langchain_gme.precomputed import PrecomputedError, serve_documents
from langchain_gme.quirks import check_mode
from langchain_gme.writing import IDS_OF_ITS_OWN, check_owner, describe_misfit
from st_modules import InputError


def prepare_to_make(
    store: object, embedding: Embeddings, documents: list[Document], ids: list[str] | None, on_error: OnError | None
) -> tuple[GMEEmbeddings, Batch]:
    """Return the embeddings of a store that is to be made, and the documents that it is made of."""
    if not (isinstance(store, type) and issubclass(store, VectorStore)):
        raise TypeError(f"store={store!r}: pass a store of LangChain's, or the class of one, such as Chroma.")
    owner = check_owner(embedding, store)
    return owner, parse_batch(owner, documents, None, ids, on_error or "raise", BATCH_SIZE)


def divide(plan: Plan, batch: Batch) -> tuple[Part, Plan]:
    """Return the rows that a store is made of, and what is written into it afterwards."""
    plan.report_skipped()
    if batch.values and not plan.parts:
        raise InputError(f"none of {len(batch.values)} documents can be embedded; the log lists why", "documents")
    first, *others = plan.parts or [Part([], np.empty((0, 0), dtype=np.float32))]
    return first, dataclasses.replace(plan, parts=others)


def create(store_class: type[VectorStore], owner: GMEEmbeddings, part: Part, **kwargs: Any) -> VectorStore:
    """Make a store of rows.

    Raises:
        PrecomputedError: As :func:`write`.
    """
    check_mode(store_class)
    with serve_documents(owner, part.texts, part.embeddings, store_class):
        store = store_class.from_texts(part.texts, owner, **part.columns, **kwargs)
    try:
        found = store.get_by_ids(part.keys)
    except NotImplementedError:
        return store
    _check_found(found, part)
    return store


async def acreate(store_class: type[VectorStore], owner: GMEEmbeddings, part: Part, **kwargs: Any) -> VectorStore:
    """Make a store of rows without blocking the event loop; see :func:`create`."""
    check_mode(store_class)
    with serve_documents(owner, part.texts, part.embeddings, store_class):
        store = await store_class.afrom_texts(part.texts, owner, **part.columns, **kwargs)
    try:
        found = await store.aget_by_ids(part.keys)
    except NotImplementedError:
        return store
    _check_found(found, part)
    return store


def _check_found(found: Sequence[Document], part: Part) -> None:
    if len(found) < len(part.rows):
        error = PrecomputedError(IDS_OF_ITS_OWN.format(found=len(found), count=len(part.rows)))
        raise describe_misfit(error, False, part.keys)
