"""A LlamaIndex retriever that is asked with a text, an image, or both."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_multi_modal_retriever import MultiModalRetriever
from llama_index.core.indices.query.schema import QueryType
from llama_index.core.retrievers import VectorIndexRetriever
from llama_index.core.schema import BaseNode, Node, NodeWithScore, QueryBundle

from llamaindex_gme.embeddings import GMEEmbedding
from llamaindex_gme.nodes import as_image_node, as_text_node, node_image, with_caption
from st_modules import InputError

# One that core takes is in its **kwargs.
_ARGUMENTS = {*inspect.signature(VectorIndexRetriever).parameters, "vector_store_kwargs"} - {"index", "kwargs"}


class MultimodalVectorIndexRetriever(VectorIndexRetriever, MultiModalRetriever):
    """Core's retriever over one store, which embeds the text and the image of a ``QueryBundle`` as one vector.

    Core's own embeds the text and leaves ``image_path`` out. A plain string is a text, as there. A query with
    text and image is always embedded, whatever its ``embedding`` is: core's retrievers write that of the text there. Of
    text or image alone, an ``embedding`` is used as it is.

    What it finds hands a multimodal language model the image and the text of a node; core's ``ImageNode`` the image
    alone.

    It is one of core's ``MultiModalRetriever`` too: ``text_retrieve`` finds nodes without an image,
    ``text_to_image_retrieve`` and ``image_to_image_retrieve`` find those with one, as ``ImageNode``. Over one store,
    they ask for more until they have enough.

    Args:
        index: The index, whose embedding is a :class:`GMEEmbedding`.
        image_similarity_top_k: How many nodes with an image to find; ``similarity_top_k`` where it is left out.
        **kwargs: The arguments of ``VectorIndexRetriever``, such as ``similarity_top_k`` and ``filters``.

    Raises:
        TypeError: The index is none, it or ``embed_model`` has another embedding, or an argument is unknown.

    Example:
        >>> retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=3)
        >>> retriever.retrieve(QueryBundle("make it blue", image_path="red_circle.png"))
    """

    _embed_model: GMEEmbedding

    def __init__(self, index: VectorStoreIndex, *, image_similarity_top_k: int | None = None, **kwargs: Any) -> None:
        if not isinstance(index, VectorStoreIndex):
            raise TypeError(
                f"index is of type {type(index).__name__}; pass a VectorStoreIndex, as VectorStoreIndex.from_documents "
                "makes it."
            )
        # Core leaves out what it does not know; None says nothing.
        if unknown := sorted(name for name in kwargs.keys() - _ARGUMENTS if kwargs[name] is not None):
            raise TypeError(
                f"MultimodalVectorIndexRetriever takes no {', '.join(unknown)}; how many to find is similarity_top_k, "
                "what a store takes besides goes into vector_store_kwargs."
            )
        super().__init__(index, **kwargs)
        self.image_similarity_top_k = image_similarity_top_k or self.similarity_top_k
        if not isinstance(self._embed_model, GMEEmbedding):
            raise TypeError(
                f"The index's embedding is of type {type(self._embed_model).__name__}; make it with GMEEmbedding, or "
                "pass one as embed_model."
            )

    def text_retrieve(self, str_or_query_bundle: QueryType) -> list[NodeWithScore]:
        """Find nodes without an image by the text of a query."""
        return self._find(_text_query(str_or_query_bundle), self.similarity_top_k, _has_no_image)

    async def atext_retrieve(self, str_or_query_bundle: QueryType) -> list[NodeWithScore]:
        """Find nodes without an image, off the event loop; see :meth:`text_retrieve`."""
        return await self._afind(_text_query(str_or_query_bundle), self.similarity_top_k, _has_no_image)

    def text_to_image_retrieve(self, str_or_query_bundle: QueryType) -> list[NodeWithScore]:
        """Find nodes with an image by the text of a query."""
        return self._text_to_image_retrieve(_text_query(str_or_query_bundle))

    async def atext_to_image_retrieve(self, str_or_query_bundle: QueryType) -> list[NodeWithScore]:
        """Find nodes with an image, off the event loop; see :meth:`text_to_image_retrieve`."""
        return await self._atext_to_image_retrieve(_text_query(str_or_query_bundle))

    def image_to_image_retrieve(self, str_or_query_bundle: QueryType | os.PathLike[str]) -> list[NodeWithScore]:
        """Find nodes with an image by an image, and by the text beside it where there is one.

        Args:
            str_or_query_bundle: The path or URL of the image, or a query with ``image_path``.

        Raises:
            InputError: The query has no image, or it cannot be read.
        """
        return self._image_to_image_retrieve(_image_query(str_or_query_bundle))

    async def aimage_to_image_retrieve(self, str_or_query_bundle: QueryType | os.PathLike[str]) -> list[NodeWithScore]:
        """Find nodes with an image, off the event loop; see :meth:`image_to_image_retrieve`."""
        return await self._aimage_to_image_retrieve(_image_query(str_or_query_bundle))

    def _text_to_image_retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _as_image_nodes(self._find(query_bundle, self.image_similarity_top_k, _has_image))

    async def _atext_to_image_retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _as_image_nodes(await self._afind(query_bundle, self.image_similarity_top_k, _has_image))

    def _image_to_image_retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._text_to_image_retrieve(query_bundle)

    async def _aimage_to_image_retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await self._atext_to_image_retrieve(query_bundle)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _with_captions(super()._retrieve(self._embedded(query_bundle)))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _with_captions(await super()._aretrieve(await self._aembedded(query_bundle)))

    def _embedded(self, query_bundle: QueryBundle) -> QueryBundle:
        if not _is_to_embed(query_bundle, by_embedding=self._needs_embedding()):
            return query_bundle
        embedding = self._embed_model.get_multimodal_query_embedding(query_bundle)
        return dataclasses.replace(query_bundle, image_path=None, embedding=embedding)

    async def _aembedded(self, query_bundle: QueryBundle) -> QueryBundle:
        if not _is_to_embed(query_bundle, by_embedding=self._needs_embedding()):
            return query_bundle
        embedding = await self._embed_model.aget_multimodal_query_embedding(query_bundle)
        return dataclasses.replace(query_bundle, image_path=None, embedding=embedding)

    def _find(self, query: QueryBundle, top_k: int, is_wanted: Callable[[BaseNode], bool]) -> list[NodeWithScore]:
        query, asked = self._embedded(query), top_k
        while True:
            nodes = self._asking_for(asked)._retrieve(query)
            wanted = [node for node in nodes if is_wanted(node.node)]
            if len(wanted) >= top_k or len(nodes) < asked:
                return wanted[:top_k]
            asked *= 2

    async def _afind(
        self, query: QueryBundle, top_k: int, is_wanted: Callable[[BaseNode], bool]
    ) -> list[NodeWithScore]:
        query, asked = await self._aembedded(query), top_k
        while True:
            nodes = await self._asking_for(asked)._aretrieve(query)
            wanted = [node for node in nodes if is_wanted(node.node)]
            if len(wanted) >= top_k or len(nodes) < asked:
                return wanted[:top_k]
            asked *= 2

    def _asking_for(self, top_k: int) -> MultimodalVectorIndexRetriever:
        retriever = copy.copy(self)
        retriever.similarity_top_k = top_k
        return retriever


def _is_to_embed(query: QueryBundle, *, by_embedding: bool) -> bool:
    """Whether a query has no embedding, or one that may be of its text alone.

    Core's retrievers write the embedding of the text, where there is one, into the query that they are asked with.
    """
    if query.image_path and not by_embedding:
        raise InputError(
            "The query has an image, and this store or vector_store_query_mode searches by text alone; take the image "
            "out, or search by embedding."
        )
    return by_embedding and (query.embedding is None or bool(query.image_path and query.embedding_strs))


def _text_query(query: QueryType) -> QueryBundle:
    if isinstance(query, str):
        return QueryBundle(query)
    if not isinstance(query, QueryBundle):
        raise InputError(f"A query of type {type(query).__name__}: pass a text, or QueryBundle(text).")
    return dataclasses.replace(query, image_path=None, embedding=None) if query.image_path else query


def _image_query(query: QueryType | os.PathLike[str]) -> QueryBundle:
    if isinstance(query, (str, os.PathLike)):
        return QueryBundle("", image_path=os.fspath(query))
    if not isinstance(query, QueryBundle):
        raise InputError(f"A query of type {type(query).__name__}: pass a path, or QueryBundle(text, image_path=path).")
    if not query.image_path and query.embedding is None:
        raise InputError("The query has no image; pass its path, or QueryBundle(text, image_path=path).")
    return query


def _has_image(node: BaseNode) -> bool:
    return node_image(node) is not None


def _has_no_image(node: BaseNode) -> bool:
    return not _has_image(node)


def _with_captions(found: Sequence[NodeWithScore]) -> list[NodeWithScore]:
    for each in found:
        each.node = with_caption(each.node)
    return list(found)


def _as_image_nodes(found: Sequence[NodeWithScore]) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=as_image_node(as_text_node(each.node), each.node), score=each.score)
        if isinstance(each.node, Node)
        else each
        for each in found
    ]
