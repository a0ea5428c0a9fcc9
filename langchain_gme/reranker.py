"""A second reading of what a retriever found, by a reranker that reads documents with their pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, PrivateAttr

from langchain_gme.content import check_documents, find_place, to_item
from st_modules import Place

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

    from st_modules import Reranker

_DEFAULT_MODEL = "qwen3-vl-reranker-2b"


class MultimodalReranker(BaseDocumentCompressor):
    """Keeps the documents that a reranker finds best; LangChain's ``CrossEncoderReranker`` with pictures.

    A document's picture is in its metadata, as for :meth:`GMEEmbeddings.embed_multimodal`. Documents are returned as
    copies, the best first, with their score under "relevance_score" in their metadata.

    Args:
        model: Name of a reranker of st_modules' catalog ("qwen3-vl-reranker-2b"), of a cross-encoder on the Hub or of a
            folder; or a loaded ``CrossEncoder``, in which case it cannot be pickled.
        top_n: How many documents are kept; ``None`` for all of them.
        instruction: What makes a document a good one; the model's own where it is left out.
        weights: Local files in the place of the model's repository; see ``st_modules.CrossEncoder``.
        cache_folder: Where models from the Hub are kept.
        model_kwargs: Other arguments of ``st_modules.CrossEncoder``, such as ``device``.
        predict_kwargs: Arguments of its ``predict``, such as ``batch_size``.

    Raises:
        UnknownModelError: The name is near one of the catalog's, or that of an embedder.
        CheckpointError: The model's files are missing, damaged, or of another architecture.

    Example:
        >>> from langchain_classic.retrievers import ContextualCompressionRetriever
        >>> best = MultimodalReranker(model="qwen3-vl-reranker-2b", top_n=3)
        >>> ContextualCompressionRetriever(base_compressor=best, base_retriever=retriever).invoke({"image": "a.png"})
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str
    top_n: int | None = Field(default=3, ge=1)
    instruction: str | None = None
    weights: str | Path | None = None
    cache_folder: str | Path | None = None
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    predict_kwargs: dict[str, Any] = Field(default_factory=dict)

    _reranker: Reranker = PrivateAttr()
    _is_named: bool = PrivateAttr()

    def __init__(self, *, model: str | Path | CrossEncoder = _DEFAULT_MODEL, **kwargs: Any) -> None:
        from st_modules import Reranker  # it takes seconds to import

        is_named = isinstance(model, (str, Path))
        super().__init__(model=str(model) if is_named else Reranker(model).name, **kwargs)  # pyright: ignore[reportCallIssue]
        self._is_named = is_named
        self._reranker = Reranker.load(model, weights=self.weights, cache_folder=self.cache_folder, **self.model_kwargs)

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        if not self._is_named:
            raise TypeError(
                "MultimodalReranker of a loaded model cannot be pickled, because its weights would be. Save the model "
                "and name its folder: MultimodalReranker(model=...)."
            )
        return partial(type(self), **{name: getattr(self, name) for name in type(self).model_fields}), ()

    @property
    def client(self) -> CrossEncoder:
        """The model."""
        return self._reranker.model

    def compress_documents(
        self, documents: Sequence[Document], query: Any, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the documents that are best for a query, the best first.

        Args:
            documents: What was found.
            query: Whatever :meth:`GMEEmbeddings.embed_query_multimodal` takes.
            callbacks: Not called.

        Returns:
            Copies of some of the documents.

        Raises:
            InputError: A document or the query cannot be read; the message has the document's place among them.
        """
        found = check_documents(documents)
        scores = self._reranker.score(*self._read(query, found), **self._options())
        return self._select(found, scores)

    async def acompress_documents(
        self, documents: Sequence[Document], query: Any, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the documents that are best for a query, off the event loop; see :meth:`compress_documents`."""
        found = check_documents(documents)
        scores = await self._reranker.ascore(*self._read(query, found), **self._options())
        return self._select(found, scores)

    def _read(self, query: Any, documents: Sequence[Document]) -> tuple[Any, list[Any]]:
        limits, takes_video = self._reranker.image_limits, self._reranker.takes_video
        return (
            to_item(query, Place(0, name="query"), limits, takes_video=takes_video),
            [
                to_item(document, find_place(document, index), limits, takes_video=takes_video)
                for index, document in enumerate(documents)
            ],
        )

    def _options(self) -> dict[str, Any]:
        return self.predict_kwargs if self.instruction is None else {**self.predict_kwargs, "prompt": self.instruction}

    def _select(self, documents: Sequence[Document], scores: Sequence[float]) -> list[Document]:
        ranked = sorted(zip(scores, documents, strict=True), key=lambda each: -each[0])
        return [
            document.model_copy(update={"metadata": {**document.metadata, "relevance_score": score}})
            for score, document in ranked[: self.top_n]
        ]
