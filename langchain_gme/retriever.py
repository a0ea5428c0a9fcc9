"""A LangChain retriever that is asked with a text, an image, or both."""

from __future__ import annotations

from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from pydantic import ConfigDict, Field

from langchain_gme.embeddings import GMEEmbeddings
from langchain_gme.stores import embeddings_of


class MultimodalRetriever(BaseRetriever):
    """Searches any store for a string, an image, ``{"text": ..., "image": ...}``, content blocks or a message.

    The query is embedded on the model's query side, as by :meth:`GMEEmbeddings.embed_query_multimodal`, and the store
    is searched by vector.

    Args:
        vectorstore: The store.
        embeddings: What queries are embedded with; the store's own where it is left out.
        search_type: ``"similarity"``, or ``"mmr"`` for maximal marginal relevance.
        search_kwargs: Arguments of the store's search by vector, such as ``k`` and ``filter``.

    Raises:
        TypeError: The store has no :class:`GMEEmbeddings`, and none were given.

    Example:
        >>> retriever = MultimodalRetriever(vectorstore=store, search_kwargs={"k": 3})
        >>> retriever.invoke([{"type": "image", "url": "red_circle.png"}, {"type": "text", "text": "make it blue"}])
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    vectorstore: VectorStore
    embeddings: GMEEmbeddings
    search_type: Literal["similarity", "mmr"] = "similarity"
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    def __init__(self, **kwargs: Any) -> None:
        if "embeddings" not in kwargs and isinstance(kwargs.get("vectorstore"), VectorStore):
            kwargs["embeddings"] = embeddings_of(kwargs["vectorstore"])
        super().__init__(**kwargs)

    def _get_relevant_documents(self, query: Any, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        embedding = self.embeddings.embed_query_multimodal(query)
        if self.search_type == "mmr":
            return self.vectorstore.max_marginal_relevance_search_by_vector(embedding, **self.search_kwargs)
        return self.vectorstore.similarity_search_by_vector(embedding, **self.search_kwargs)

    async def _aget_relevant_documents(
        self, query: Any, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        embedding = await self.embeddings.aembed_query_multimodal(query)
        if self.search_type == "mmr":
            return await self.vectorstore.amax_marginal_relevance_search_by_vector(embedding, **self.search_kwargs)
        return await self.vectorstore.asimilarity_search_by_vector(embedding, **self.search_kwargs)
