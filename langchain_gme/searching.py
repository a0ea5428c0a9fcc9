"""How a store is searched with a text, an image, or both, by whichever of its methods."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from langchain_core.vectorstores import VectorStore

from langchain_gme.content import text_of, to_item
from langchain_gme.embeddings import GMEEmbeddings
from langchain_gme.precomputed import serve_query
from langchain_gme.quirks import quirks_of
from st_modules import Place

_BY_VECTOR = {
    "similarity_search": "similarity_search_by_vector",
    "max_marginal_relevance_search": "max_marginal_relevance_search_by_vector",
}
"""The methods of a store that take a text and return documents, and those that take an embedding."""


def search(store: VectorStore, embeddings: GMEEmbeddings, method: str, query: Any, **options: Any) -> Any:
    """Return what a method of a store finds for a query.

    A text goes to the method as it is. For any other query the method is given the query's text, empty where there is
    none, and the embeddings answer for it with the embedding of the query: so every store, with all of its options and
    scores, takes pictures.

    Args:
        store: The store.
        embeddings: What the query is embedded with; the store is searched by vector where it says that it has others.
        method: Name of a method that takes a query first, such as ``similarity_search``.
        query: As for :meth:`GMEEmbeddings.embed_query_multimodal`.
        **options: Arguments of the method.

    Raises:
        InputError: The query cannot be embedded.
        NotImplementedError: The store has no such method.
        ValueError: The store would leave the filter out.
        RuntimeError: The store searches in a way that cannot take an embedding from outside.
    """
    _check_options(store, options)
    with _name_missing(store, method):
        if store.embeddings is not None and store.embeddings is not embeddings:
            return getattr(store, _by_vector(store, method))(embeddings.embed_query_multimodal(query), **options)
        if isinstance(query, str):
            return getattr(store, method)(query, **options)
        text = _text_of(query, embeddings)
        with serve_query(embeddings, text, embeddings.embed_query_multimodal(query)):
            return getattr(store, method)(text, **options)


async def asearch(store: VectorStore, embeddings: GMEEmbeddings, method: str, query: Any, **options: Any) -> Any:
    """Search without blocking the event loop; see :func:`search`."""
    _check_options(store, options)
    with _name_missing(store, f"a{method}"):
        if store.embeddings is not None and store.embeddings is not embeddings:
            embedding = await embeddings.aembed_query_multimodal(query)
            return await getattr(store, f"a{_by_vector(store, method)}")(embedding, **options)
        if isinstance(query, str):
            return await getattr(store, f"a{method}")(query, **options)
        text = _text_of(query, embeddings)
        with serve_query(embeddings, text, await embeddings.aembed_query_multimodal(query)):
            return await getattr(store, f"a{method}")(text, **options)


def _check_options(store: VectorStore, options: Mapping[str, Any]) -> None:
    if quirks_of(store).no_filter and options.get("filter") is not None:
        raise ValueError(f"{type(store).__name__} ignores filter: search without one, or use another store.")


def _by_vector(store: VectorStore, method: str) -> str:
    if method not in _BY_VECTOR:
        raise NotImplementedError(
            f"{method} needs a store whose embeddings are those that the query is embedded with, and those of this "
            f"{type(store).__name__} are of type {type(store.embeddings).__name__}."
        )
    return _BY_VECTOR[method]


@contextmanager
def _name_missing(store: VectorStore, method: str) -> Generator[None, None, None]:
    """Say what is missing where a store says nothing."""
    try:
        yield
    except NotImplementedError as error:
        if str(error):
            raise
        raise NotImplementedError(f"{type(store).__name__} does not implement what {method} needs.") from error


def _text_of(query: Any, embeddings: GMEEmbeddings) -> str:
    """Return what a store is told that was searched for."""
    embedder = embeddings.embedder
    return text_of(to_item(query, Place(0, name="query"), embedder.image_limits, takes_video=embedder.takes_video))
