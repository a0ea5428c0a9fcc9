"""A retriever over an index that ``st-modules index`` made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from pydantic import ConfigDict, Field

from langchain_gme.content import to_item
from st_modules import Place


class IndexRetriever(BaseRetriever):
    """Searches an index for a string, an image, ``{"text": ..., "image": ...}``, content blocks or a message.

    A document has the text of the item, and in its metadata "source", "page", "image" and "score", beside the item's
    own. A page of a PDF has no "image", which others would open.

    Args:
        index: What ``st_modules.index.Index.open`` returned.
        k: How many documents are returned.
        search_kwargs: Other arguments of ``Index.search``, such as ``where``, ``mode`` and ``prompt_name``. Those of
            ``invoke`` go before them.

    Example:
        >>> retriever = IndexRetriever(index=Index.open("my.index"), k=3)
        >>> retriever.invoke({"image": "red_circle.png", "text": "make it blue"})
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    index: Any
    k: int = 4
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Return the documents that are found for a query.

        Args:
            input: A text, an image, or both; see :meth:`GMEEmbeddings.embed_query_multimodal`.
            config: As of every runnable.
            **kwargs: Arguments of ``Index.search``, such as ``k`` and ``where``.

        Raises:
            InputError: The query cannot be embedded, or a condition is wrong.
        """
        return super().invoke(input, config, **kwargs)

    def _get_relevant_documents(
        self, query: Any, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        hits = self.index.search(to_item(query, Place(0)), **{"k": self.k, **self.search_kwargs, **kwargs})
        return [Document(hit.text or "", id=hit.id, metadata=_describe(hit)) for hit in hits]


def _describe(hit: Any) -> dict[str, Any]:
    metadata: Mapping[str, Any] = {
        **hit.metadata,
        "source": hit.source,
        "page": hit.page,
        "image": hit.image if hit.page is None else None,
        "score": hit.score,
    }
    return {name: value for name, value in metadata.items() if value is not None}
