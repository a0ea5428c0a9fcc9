"""Any LangChain store with text, images, and images with a text: added, searched and retrieved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import run_in_executor
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore, VectorStoreRetriever
from pydantic import ConfigDict

from langchain_gme.batches import (
    BATCH_SIZE,
    aencode_batch,
    check_embeddings,
    encode_batch,
    parse_batch,
)
from langchain_gme.callers import is_called_by_index
from langchain_gme.content import OnError, check_documents, check_on_error, text_items
from langchain_gme.embeddings import GMEEmbeddings
from langchain_gme.identify import report_unidentified
from langchain_gme.making import acreate, create, divide, prepare_to_make
from langchain_gme.plans import make_plan
from langchain_gme.quirks import quirks_of
from langchain_gme.rows import Ids, Metadatas, check_columns
from langchain_gme.searchable_store import SearchableStore
from langchain_gme.writing import awrite, check_owner, write


class MultimodalStore(SearchableStore):
    """Any store, with documents that have pictures.

    LangChain's stores embed the text of a document and leave its picture out. Around one of them, every method of
    ``VectorStore`` takes documents with an image in their metadata under "image", "image_path" or "image_url", and
    every search takes a text, an image, or both. It can be handed to whatever takes a store, such as
    ``langchain_core.indexing.index`` or ``MultiVectorRetriever``.

    A document that is found has the metadata that it was added with, and under "image" the path or the URL of its
    image, or a list of them. In the store itself that entry is there for every row, because some stores have the
    columns of their first row: empty for a document without an image, and a JSON list for one with several.

    A document without an id gets one that is made of its text, the bytes of its images and its metadata. Rows are
    replaced where the store has their ids.

    Args:
        store: The store, which stays at hand as the attribute of this name. What is added needs its embeddings to be
            :class:`GMEEmbeddings` themselves, not a cache around them.
        embeddings: What queries are embedded with; the store's own where they are left out. With others the store can
            be searched by vector alone. A store that does not say what its embeddings are needs to be told.
        on_error: ``"raise"`` where it is left out; ``"skip"`` leaves out what cannot be embedded, and logs a warning
            that lists it.

    Raises:
        TypeError: There are no :class:`GMEEmbeddings`.

    Example:
        >>> store = MultimodalStore(InMemoryVectorStore(GMEEmbeddings(model="tiny")))
        >>> ids = store.add_documents([Document("", metadata={"image": "picture.png"})])
        >>> store.similarity_search({"image": "query.png", "text": "make it blue"}, k=3)
    """

    def __init__(
        self, store: VectorStore, *, embeddings: GMEEmbeddings | None = None, on_error: OnError | None = None
    ) -> None:
        if isinstance(store, MultimodalStore):
            embeddings, on_error, store = embeddings or store.embeddings, on_error or store.on_error, store.store
        super().__init__(store, embeddings)
        self.on_error: OnError = check_on_error(on_error or "raise")
        self._is_reported = False

    def add_items(
        self,
        items: Sequence[Any],
        metadatas: Metadatas | None = None,
        ids: Ids | None = None,
        *,
        embeddings: Sequence[Sequence[float]] | np.ndarray | None = None,
        on_error: OnError | None = None,
        batch_size: int = BATCH_SIZE,
        **kwargs: Any,
    ) -> list[str]:
        """Add items of every kind; see :func:`langchain_gme.add_multimodal`."""
        owner = self._owner
        batch = parse_batch(owner, items, metadatas, ids, on_error or self.on_error, batch_size)
        if not batch.values:
            return []
        plan = make_plan(owner, check_embeddings(owner, batch, embeddings) or encode_batch(owner, batch), self._quirks)
        written = write(self.store, owner, plan, **kwargs)
        plan.report_skipped()
        return plan.answer(written)

    async def aadd_items(
        self,
        items: Sequence[Any],
        metadatas: Metadatas | None = None,
        ids: Ids | None = None,
        *,
        embeddings: Sequence[Sequence[float]] | np.ndarray | None = None,
        on_error: OnError | None = None,
        batch_size: int = BATCH_SIZE,
        **kwargs: Any,
    ) -> list[str]:
        """Add items of every kind without blocking the event loop; see :func:`langchain_gme.add_multimodal`."""
        owner = self._owner
        options = (owner, items, metadatas, ids, on_error or self.on_error, batch_size)
        batch = await run_in_executor(None, parse_batch, *options)  # it reads the files of blobs
        if not batch.values:
            return []
        encoded = check_embeddings(owner, batch, embeddings) or await aencode_batch(owner, batch)
        plan = await run_in_executor(None, make_plan, owner, encoded, self._quirks)  # it reads the files of images
        written = await awrite(self.store, owner, plan, **kwargs)
        plan.report_skipped()
        return plan.answer(written)

    def add_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """Add documents with their pictures, and replace those whose ids the store has.

        Args:
            documents: The documents.
            **kwargs: ``ids``, which go before those of the documents, and the other arguments of :meth:`add_items`.

        Returns:
            The ids in the store: one a document, in the same order, without those that were left out.

        Raises:
            InputError: A document cannot be embedded; nothing was written.
        """
        if is_called_by_index():
            self._prepare_for_index(documents)
        return self.add_items(documents, **kwargs)

    async def aadd_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """Add documents without blocking the event loop; see :meth:`add_documents`."""
        if is_called_by_index():
            self._prepare_for_index(documents)
        return await self.aadd_items(documents, **kwargs)

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Metadatas | None = None,
        *,
        ids: Ids | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add documents by their texts and their metadata, which may hold images; see :meth:`add_documents`."""
        return self.add_items(_documents(texts, metadatas), ids=ids, **kwargs)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Metadatas | None = None,
        *,
        ids: Ids | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add documents without blocking the event loop; see :meth:`add_texts`."""
        return await self.aadd_items(_documents(texts, metadatas), ids=ids, **kwargs)

    def update_document(self, document_id: str, document: Document) -> None:
        """Replace the document of an id, as the method of that name of some stores does, picture included."""
        self.add_documents([document], ids=[document_id])

    def update_documents(self, ids: list[str], documents: list[Document]) -> None:
        """Replace the documents of these ids; see :meth:`update_document`."""
        self.add_documents(documents, ids=ids)

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Delete rows, as the store does it; ids that it has not are no error."""
        if ids is None:
            return self.store.delete(**kwargs)
        keys = self._keys(ids)
        if self._quirks.no_unknown_ids:
            keys = [document.id for document in self.store.get_by_ids(keys) if document.id is not None]
        return self.store.delete(keys, **kwargs) if keys else True

    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Delete rows without blocking the event loop; see :meth:`delete`."""
        if ids is None:
            return await self.store.adelete(**kwargs)
        keys = self._keys(ids)
        if self._quirks.no_unknown_ids:
            keys = [document.id for document in await self.store.aget_by_ids(keys) if document.id is not None]
        return await self.store.adelete(keys, **kwargs) if keys else True

    @classmethod
    def from_documents(cls, documents: list[Document], embedding: Embeddings, **kwargs: Any) -> Self:
        """Return a store of documents with their pictures.

        Args:
            documents: The documents.
            embedding: :class:`GMEEmbeddings`.
            **kwargs: ``ids``, which go before those of the documents; ``store``, ``on_error`` and the other arguments
                of :meth:`from_texts`.

        Raises:
            InputError: Something is no ``Document``, or one cannot be embedded; no store was made.
            TypeError: ``embedding`` is not :class:`GMEEmbeddings`.
        """
        return super().from_documents(check_documents(documents), embedding, **kwargs)

    @classmethod
    async def afrom_documents(cls, documents: list[Document], embedding: Embeddings, **kwargs: Any) -> Self:
        """Return a store of documents without blocking the event loop; see :meth:`from_documents`."""
        return await super().afrom_documents(check_documents(documents), embedding, **kwargs)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        store: type[VectorStore] | VectorStore = InMemoryVectorStore,
        on_error: OnError | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return a store of documents, with the pictures that their metadata holds; ``from_documents`` calls this.

        Args:
            texts: The texts of the documents.
            embedding: :class:`GMEEmbeddings`.
            metadatas: One dictionary a text.
            ids: One id a text.
            store: The class of the store to make, such as ``Chroma`` or ``FAISS``; or one that is there.
            on_error: As for the class.
            **kwargs: Arguments of that class's ``from_texts``, or of ``add_texts`` of the store that is there.

        Raises:
            InputError: A document cannot be embedded; no store was made.
            TypeError: ``embedding`` is not :class:`GMEEmbeddings`.
        """
        documents = _documents(texts, metadatas)
        if isinstance(store, VectorStore):
            made = cls._wrap(store, embedding, on_error)
            made.add_documents(documents, ids=ids, **kwargs)
            return made
        owner, batch = prepare_to_make(store, embedding, documents, ids, on_error)
        plan = make_plan(owner, encode_batch(owner, batch), quirks_of(store, kwargs))
        first, others = divide(plan, batch)
        made = cls(create(store, owner, first, **kwargs), embeddings=owner, on_error=on_error)
        write(made.store, owner, others)
        return made

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        store: type[VectorStore] | VectorStore = InMemoryVectorStore,
        on_error: OnError | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return a store of documents without blocking the event loop; see :meth:`from_texts`."""
        documents = _documents(texts, metadatas)
        if isinstance(store, VectorStore):
            made = cls._wrap(store, embedding, on_error)
            await made.aadd_documents(documents, ids=ids, **kwargs)
            return made
        owner, batch = prepare_to_make(store, embedding, documents, ids, on_error)
        encoded = await aencode_batch(owner, batch)
        plan = await run_in_executor(None, make_plan, owner, encoded, quirks_of(store, kwargs))
        first, others = divide(plan, batch)
        made = cls(await acreate(store, owner, first, **kwargs), embeddings=owner, on_error=on_error)
        await awrite(made.store, owner, others)
        return made

    @classmethod
    def _wrap(cls, store: VectorStore, embedding: Embeddings, on_error: OnError | None) -> Self:
        """Return a store that is there, whose embeddings must be those that were passed."""
        made = cls(store, on_error=on_error)
        if made.embeddings is not embedding:
            raise ValueError("The store has other embeddings than those that were passed; pass its own.")
        return made

    def as_retriever(self, **kwargs: Any) -> MultimodalRetriever:
        """Return a retriever over this store.

        Args:
            **kwargs: Arguments of :class:`MultimodalRetriever`.
        """
        tags = kwargs.pop("tags", None) or self._get_retriever_tags()
        return MultimodalRetriever(vectorstore=self, tags=tags, **kwargs)

    @property
    def _owner(self) -> GMEEmbeddings:
        """The embeddings of the store itself, by which it embeds what is added."""
        own = self.store.embeddings
        return check_owner(self._embeddings if own is None else own, self.store)

    def _prepare_for_index(self, documents: Sequence[Any]) -> None:
        """Refuse what ``index`` would refuse of the store itself, and tell once what it does not notice."""
        if type(self.store).delete == VectorStore.delete:
            raise ValueError(
                f"{type(self.store).__name__} has not implemented delete, which index needs; use another store."
            )
        if not self._is_reported:
            report_unidentified(documents)
        self._is_reported = True

    def _get_retriever_tags(self) -> list[str]:
        return [type(self.store).__name__, type(self.embeddings).__name__]


class MultimodalRetriever(VectorStoreRetriever):
    """Searches any store for a string, an image, ``{"text": ..., "image": ...}``, content blocks or a message.

    The query is embedded on the model's query side, as by :meth:`GMEEmbeddings.embed_query_multimodal`. Arguments of
    ``invoke`` such as ``k`` and ``filter`` go before ``search_kwargs``. What is added through it keeps its pictures.

    Args:
        vectorstore: The store, or a :class:`MultimodalStore` around it, which the retriever has in any case.
        embeddings: What queries are embedded with; the store's own where it is left out. With others the store is
            searched by vector.
        search_type: ``"similarity"``, ``"similarity_score_threshold"``, or ``"mmr"`` for maximal marginal relevance.
        search_kwargs: Arguments of the store's search, such as ``k``, ``filter`` and ``score_threshold``.
        k: How many documents are returned; the same as ``k`` in ``search_kwargs``.
        with_scores: Whether to put the score of each document into its metadata, under "score": the store's own, or
            the relevance from 0 to 1 with ``"similarity_score_threshold"``.

    Raises:
        TypeError: The store has no :class:`GMEEmbeddings`, and none were given.
        ValueError: Scores were asked of ``"mmr"``, which has none.

    Example:
        >>> retriever = MultimodalRetriever(vectorstore=store, k=3)
        >>> retriever.invoke([{"type": "image", "url": "red_circle.png"}, {"type": "text", "text": "make it blue"}])
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    with_scores: bool = False

    def __init__(self, **kwargs: Any) -> None:
        embeddings, k = kwargs.pop("embeddings", None), kwargs.pop("k", None)
        store = kwargs.get("vectorstore")
        if isinstance(store, VectorStore) and (embeddings is not None or not isinstance(store, MultimodalStore)):
            kwargs["vectorstore"] = MultimodalStore(store, embeddings=embeddings)
        if k is not None:
            kwargs["search_kwargs"] = {**kwargs.get("search_kwargs", {}), "k": k}
        super().__init__(**kwargs)
        if "with_scores" in self.search_kwargs:
            raise ValueError("with_scores is an argument of the retriever, and none of a search: with_scores=True.")
        if self.with_scores and self.search_type == "mmr":
            raise ValueError('search_type="mmr" has no scores; leave with_scores out, or search by "similarity".')

    @property
    def embeddings(self) -> GMEEmbeddings:
        """What queries are embedded with."""
        store: Any = self.vectorstore
        return store.embeddings

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Return the documents that are found for a query.

        Args:
            input: A text, an image, or both; see :meth:`GMEEmbeddings.embed_query_multimodal`.
            config: As of every runnable.
            **kwargs: Arguments of the store's search, such as ``k`` and ``filter``.

        Raises:
            InputError: The query cannot be embedded.
        """
        return super().invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Search without blocking the event loop; see :meth:`invoke`."""
        return await super().ainvoke(input, config, **kwargs)

    def _get_relevant_documents(
        self, query: Any, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        if not self.with_scores:
            return super()._get_relevant_documents(query, run_manager=run_manager, **kwargs)
        options = {**self.search_kwargs, **kwargs}
        if self.search_type == "similarity":
            return _note_scores(self.vectorstore.similarity_search_with_score(query, **options))
        return _note_scores(self.vectorstore.similarity_search_with_relevance_scores(query, **options))

    async def _aget_relevant_documents(
        self, query: Any, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        if not self.with_scores:
            return await super()._aget_relevant_documents(query, run_manager=run_manager, **kwargs)
        options = {**self.search_kwargs, **kwargs}
        if self.search_type == "similarity":
            return _note_scores(await self.vectorstore.asimilarity_search_with_score(query, **options))
        return _note_scores(await self.vectorstore.asimilarity_search_with_relevance_scores(query, **options))


def _documents(texts: Iterable[str], metadatas: Metadatas | None) -> list[Document]:
    is_several = isinstance(texts, Iterable) and not isinstance(texts, (str, bytes, Mapping))
    values = [item["text"] for item in text_items(list(texts) if is_several else texts)]
    each = check_columns(len(values), metadatas, None)[0] or [None] * len(values)
    return [Document(text, metadata=dict(metadata or {})) for text, metadata in zip(values, each, strict=True)]


def _note_scores(found: list[tuple[Document, float]]) -> list[Document]:
    return [
        document.model_copy(update={"metadata": {**document.metadata, "score": float(score)}})
        for document, score in found
    ]
