"""Any LangChain store, searched with text, images, and images with a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from langchain_gme.embeddings import GMEEmbeddings
from langchain_gme.quirks import quirks_of
from langchain_gme.rows import restore
from langchain_gme.searching import asearch, search
from langchain_gme.writing import check_owner


class SearchableStore(VectorStore):
    """What :class:`MultimodalStore` reads of the store that it is around: every search, and documents by their ids.

    Args:
        store: The store.
        embeddings: What queries are embedded with; the store's own where they are left out.

    Raises:
        TypeError: It is no store of LangChain's, or there are no :class:`GMEEmbeddings`.
    """

    def __init__(self, store: VectorStore, embeddings: GMEEmbeddings | None) -> None:
        if not isinstance(store, VectorStore):
            raise TypeError(f"{store!r}: pass a store of LangChain's, such as Chroma(embedding_function=embeddings).")
        self.store = store
        self._quirks = quirks_of(self.store)
        self._embeddings = check_owner(self.store.embeddings if embeddings is None else embeddings, self.store)

    @property
    def embeddings(self) -> GMEEmbeddings:
        """What queries are embedded with."""
        return self._embeddings

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents of these ids, as the store does it."""
        return self._restore(self.store.get_by_ids(self._keys(ids)))

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents of these ids without blocking the event loop."""
        return self._restore(await self.store.aget_by_ids(self._keys(ids)))

    def similarity_search(self, query: Any, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the documents that are nearest to a query.

        Args:
            query: A text, an image, or both, as for :meth:`GMEEmbeddings.embed_query_multimodal`.
            k: How many.
            **kwargs: Other arguments of the store's method of this name, such as ``filter``.

        Raises:
            InputError: The query cannot be embedded.
        """
        return self._restore(search(self.store, self.embeddings, "similarity_search", query, k=k, **kwargs))

    async def asimilarity_search(self, query: Any, k: int = 4, **kwargs: Any) -> list[Document]:
        """Search without blocking the event loop; see :meth:`similarity_search`."""
        return self._restore(await asearch(self.store, self.embeddings, "similarity_search", query, k=k, **kwargs))

    def similarity_search_with_score(self, query: Any, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """Return the nearest documents and the store's own scores of them; see :meth:`similarity_search`."""
        found = search(self.store, self.embeddings, "similarity_search_with_score", query, k=k, **kwargs)
        return self._restore_pairs(found)

    async def asimilarity_search_with_score(
        self, query: Any, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Search without blocking the event loop; see :meth:`similarity_search_with_score`."""
        found = await asearch(self.store, self.embeddings, "similarity_search_with_score", query, k=k, **kwargs)
        return self._restore_pairs(found)

    def similarity_search_with_relevance_scores(
        self, query: Any, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return the nearest documents and their relevance from 0 to 1.

        Args:
            query: As for :meth:`similarity_search`.
            k: How many at most.
            **kwargs: ``score_threshold``, and other arguments of the store's method of this name.

        Raises:
            NotImplementedError: The store does not say how its scores are read.
        """
        if isinstance(self.store, InMemoryVectorStore):
            return super().similarity_search_with_relevance_scores(query, k, **kwargs)
        found = search(self.store, self.embeddings, "similarity_search_with_relevance_scores", query, k=k, **kwargs)
        return self._restore_pairs(found)

    async def asimilarity_search_with_relevance_scores(
        self, query: Any, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Search without blocking the event loop; see :meth:`similarity_search_with_relevance_scores`."""
        if isinstance(self.store, InMemoryVectorStore):
            return await super().asimilarity_search_with_relevance_scores(query, k, **kwargs)
        method = "similarity_search_with_relevance_scores"
        return self._restore_pairs(await asearch(self.store, self.embeddings, method, query, k=k, **kwargs))

    def max_marginal_relevance_search(
        self, query: Any, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Return documents that are near to a query and unlike each other.

        Args:
            query: As for :meth:`similarity_search`.
            k: How many.
            fetch_k: Among how many of the nearest.
            lambda_mult: From 0, as unlike each other as can be, to 1, as near to the query as can be.
            **kwargs: Other arguments of the store's method of this name.
        """
        options = {"k": k, "fetch_k": fetch_k, "lambda_mult": lambda_mult, **kwargs}
        return self._restore(search(self.store, self.embeddings, "max_marginal_relevance_search", query, **options))

    async def amax_marginal_relevance_search(
        self, query: Any, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Search without blocking the event loop; see :meth:`max_marginal_relevance_search`."""
        options = {"k": k, "fetch_k": fetch_k, "lambda_mult": lambda_mult, **kwargs}
        return self._restore(
            await asearch(self.store, self.embeddings, "max_marginal_relevance_search", query, **options)
        )

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the documents that are nearest to an embedding, as the store does it."""
        return self._restore(self.store.similarity_search_by_vector(embedding, k=k, **kwargs))

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """Search without blocking the event loop; see :meth:`similarity_search_by_vector`."""
        return self._restore(await self.store.asimilarity_search_by_vector(embedding, k=k, **kwargs))

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Return documents that are near to an embedding and unlike each other, as the store does it."""
        options = {"k": k, "fetch_k": fetch_k, "lambda_mult": lambda_mult, **kwargs}
        return self._restore(self.store.max_marginal_relevance_search_by_vector(embedding, **options))

    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Search without blocking the event loop; see :meth:`max_marginal_relevance_search_by_vector`."""
        options = {"k": k, "fetch_k": fetch_k, "lambda_mult": lambda_mult, **kwargs}
        return self._restore(await self.store.amax_marginal_relevance_search_by_vector(embedding, **options))

    def _keys(self, ids: Sequence[str]) -> list[str]:
        return [self._quirks.key_of(each) for each in ids]

    def _restore(self, documents: list[Document]) -> list[Document]:
        return [restore(self._quirks.restore(document)) for document in documents]

    def _restore_pairs(self, found: list[tuple[Document, float]]) -> list[tuple[Document, float]]:
        return list(zip(self._restore([document for document, _ in found]), [score for _, score in found], strict=True))

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        # Asked for InMemoryVectorStore, which has cosine similarities as scores and no relevance.
        return lambda score: min(max(score, 0.0), 1.0)
