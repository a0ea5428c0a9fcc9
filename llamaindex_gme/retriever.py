"""A LlamaIndex retriever that is asked with a text, an image, or both."""

from __future__ import annotations

import dataclasses
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.retrievers import VectorIndexRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle

from llamaindex_gme.embeddings import GMEEmbedding


class MultimodalVectorIndexRetriever(VectorIndexRetriever):
    """Core's retriever over one store, which embeds the text and the image of a ``QueryBundle`` as one vector.

    Core's own embeds the text and leaves ``image_path`` out. A plain string is a text, as there.

    Args:
        index: The index, whose embedding is a :class:`GMEEmbedding`.
        **kwargs: The arguments of ``VectorIndexRetriever``, such as ``similarity_top_k`` and ``filters``.

    Raises:
        TypeError: The index or ``embed_model`` has another embedding.

    Example:
        >>> retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=3)
        >>> retriever.retrieve(QueryBundle("make it blue", image_path="red_circle.png"))
    """

    _embed_model: GMEEmbedding

    def __init__(self, index: VectorStoreIndex, **kwargs: Any) -> None:
        super().__init__(index, **kwargs)
        if not isinstance(self._embed_model, GMEEmbedding):
            raise TypeError(
                f"The index's embedding is of type {type(self._embed_model).__name__}; make it with GMEEmbedding, or "
                "pass one as embed_model."
            )

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if query_bundle.embedding is None and self._needs_embedding():
            embedding = self._embed_model.get_multimodal_query_embedding(query_bundle)
            query_bundle = dataclasses.replace(query_bundle, embedding=embedding)
        return super()._retrieve(query_bundle)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if query_bundle.embedding is None and self._needs_embedding():
            embedding = await self._embed_model.aget_multimodal_query_embedding(query_bundle)
            query_bundle = dataclasses.replace(query_bundle, embedding=embedding)
        return await super()._aretrieve(query_bundle)
