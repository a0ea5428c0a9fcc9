"""Filters of what a retriever found, by embeddings of documents with their pictures.

LangChain's own filters, whose fields these have, embed a document's text alone: to them all pictures without one are
the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, BaseDocumentTransformer, Document
from pydantic import BaseModel, ConfigDict, Field, model_validator

from langchain_gme.embeddings import GMEEmbeddings


class MultimodalFilter(BaseDocumentCompressor):
    """Keeps the documents that are most similar to a query; LangChain's ``EmbeddingsFilter`` with pictures.

    A document's picture is in its metadata, as for :meth:`GMEEmbeddings.embed_multimodal`. Documents are returned as
    they are: the most similar first, or in their own order where ``k`` is ``None``.

    Args:
        embeddings: What documents and queries are embedded with.
        k: How many documents are kept; ``None`` for all within the threshold.
        similarity_threshold: The cosine similarity to the query above which documents are kept.

    Raises:
        ValueError: Both ``k`` and ``similarity_threshold`` are ``None``.

    Example:
        >>> from langchain_classic.retrievers import ContextualCompressionRetriever
        >>> best = MultimodalFilter(embeddings=embeddings, k=3)
        >>> ContextualCompressionRetriever(base_compressor=best, base_retriever=retriever).invoke({"image": "a.png"})
    """

    model_config = ConfigDict(extra="forbid")

    embeddings: GMEEmbeddings
    k: int | None = Field(default=20, ge=1)
    similarity_threshold: float | None = Field(default=None, ge=-1, le=1, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.k is None and self.similarity_threshold is None:
            raise ValueError("k and similarity_threshold are both None, which keeps everything; set one of them.")
        return self

    def compress_documents(
        self, documents: Sequence[Document], query: Any, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the documents that are most similar to a query.

        Args:
            documents: What was found.
            query: Whatever :meth:`GMEEmbeddings.embed_query_multimodal` takes.
            callbacks: Not called.

        Returns:
            Some of the documents.

        Raises:
            InputError: A document or the query cannot be embedded; the message has the document's place among them.
        """
        if not documents:
            return []
        embedded = self.embeddings.embed_multimodal(documents)
        return self._select(documents, embedded, self.embeddings.embed_query_multimodal(query))

    async def acompress_documents(
        self, documents: Sequence[Document], query: Any, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the documents that are most similar to a query, off the event loop; see :meth:`compress_documents`."""
        if not documents:
            return []
        embedded = await self.embeddings.aembed_multimodal(documents)
        return self._select(documents, embedded, await self.embeddings.aembed_query_multimodal(query))

    def _select(self, documents: Sequence[Document], embedded: list[list[float]], query: list[float]) -> list[Document]:
        similarities = _cosines(embedded, [query])[:, 0]
        kept = np.arange(len(documents))
        if self.k is not None:
            kept = np.argsort(-similarities, kind="stable")[: self.k]
        if self.similarity_threshold is not None:
            kept = kept[similarities[kept] > self.similarity_threshold]
        return [documents[index] for index in kept.tolist()]


class MultimodalRedundantFilter(BaseModel, BaseDocumentTransformer):
    """Drops documents that are nearly one before them; LangChain's ``EmbeddingsRedundantFilter`` with pictures.

    Of documents that are nearly the same the first is kept, which a retriever found to be the best.

    Args:
        embeddings: What documents are embedded with.
        similarity_threshold: The cosine similarity above which two documents are the same.

    Example:
        >>> MultimodalRedundantFilter(embeddings=embeddings).transform_documents(retriever.invoke("a red circle"))
    """

    model_config = ConfigDict(extra="forbid")

    embeddings: GMEEmbeddings
    similarity_threshold: float = Field(default=0.95, ge=-1, le=1, allow_inf_nan=False)

    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> list[Document]:
        """Return documents without those that are nearly one before them, in their order.

        Args:
            documents: What was found.
            **kwargs: Not used.

        Returns:
            Some of the documents.

        Raises:
            InputError: A document cannot be embedded; the message has its place among them.
        """
        return self._select(documents, self.embeddings.embed_multimodal(documents))

    async def atransform_documents(self, documents: Sequence[Document], **kwargs: Any) -> list[Document]:
        """Return documents without repetitions, off the event loop; see :meth:`transform_documents`."""
        return self._select(documents, await self.embeddings.aembed_multimodal(documents))

    def _select(self, documents: Sequence[Document], embedded: list[list[float]]) -> list[Document]:
        if not documents:
            return []
        similar = _cosines(embedded, embedded) > self.similarity_threshold
        kept: list[int] = []
        for index in range(len(documents)):
            if not similar[index, kept].any():
                kept.append(index)
        return [documents[index] for index in kept]


def _cosines(rows: list[list[float]], columns: list[list[float]]) -> np.ndarray:
    left, right = (np.asarray(each) for each in (rows, columns))
    # Embeddings that are cut to truncate_dim are not of length 1.
    return (left @ right.T) / np.outer(np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1))
