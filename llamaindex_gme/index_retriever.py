"""A retriever over an index that ``st-modules index`` made."""

from __future__ import annotations

from typing import Any

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llamaindex_gme.nodes import CaptionedImageNode, image_address


class IndexRetriever(BaseRetriever):
    """Searches an index for the text and the image of a ``QueryBundle``. A plain string is a text.

    It finds an ``ImageNode`` where an item has a picture of its own, and a ``TextNode`` of the text of others, pages of
    PDFs among them. The metadata of a node has "source" and "page" beside the item's own.

    Args:
        index: What ``st_modules.index.Index.open`` returned.
        similarity_top_k: How many nodes are found.
        **search_kwargs: Other arguments of ``Index.search``, such as ``where``, ``mode`` and ``prompt_name``.

    Example:
        >>> retriever = IndexRetriever(Index.open("my.index"), similarity_top_k=3)
        >>> retriever.retrieve(QueryBundle("make it blue", image_path="red_circle.png"))
    """

    def __init__(self, index: Any, similarity_top_k: int = 2, **search_kwargs: Any) -> None:
        super().__init__()
        self.index = index
        self.similarity_top_k = similarity_top_k
        self.search_kwargs = search_kwargs

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        item: dict[str, Any] = {"text": query_bundle.query_str} if query_bundle.query_str else {}
        if query_bundle.image_path:
            item["image"] = image_address(query_bundle.image_path)
        hits = self.index.search(item, self.similarity_top_k, **self.search_kwargs)
        return [NodeWithScore(node=_make_node(hit), score=hit.score) for hit in hits]


def _make_node(hit: Any) -> TextNode:
    metadata = {**hit.metadata, "source": hit.source, "page": hit.page}
    fields: dict[str, Any] = {
        "id_": hit.id,
        "text": hit.text or "",
        "metadata": {name: value for name, value in metadata.items() if value is not None},
    }
    if hit.image is None or hit.page is not None:
        return TextNode(**fields)
    is_url = hit.image.startswith(("http://", "https://"))
    return CaptionedImageNode(**fields, **{"image_url" if is_url else "image_path": hit.image})
