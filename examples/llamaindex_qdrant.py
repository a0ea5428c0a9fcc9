"""Pictures and texts in one Qdrant collection behind LlamaIndex, found by a text, by a picture, and by both.

Run it with ``python examples/llamaindex_qdrant.py``; it needs no network.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from drawings import QUERY, draw_pictures
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import ImageNode, QueryBundle, TextNode
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from llamaindex_gme import GMEEmbedding, MultimodalVectorIndexRetriever

MODEL = "tiny"  # the one line to change: "gme-2b" for photographs, documents and text


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        nodes = [ImageNode(image_path=str(path)) for path in draw_pictures(folder)]
        embed_model = GMEEmbedding(MODEL)
        store = QdrantVectorStore("pictures", client=QdrantClient(":memory:"))
        context = StorageContext.from_defaults(vector_store=store)
        index = VectorStoreIndex([], storage_context=context, embed_model=embed_model)
        index.insert_nodes(embed_model([*nodes, TextNode(text="two small black crosses")]))

        retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=1)
        query = str(folder / QUERY)
        show(retriever, "a large green star", "a large green star in the center on a black background")
        show(retriever, "a red circle, as a picture", QueryBundle("", image_path=query))
        show(retriever, "the same, and make it blue", QueryBundle("make it blue", image_path=query))
        show(retriever, "black crosses", "two small black crosses")


def show(retriever: MultimodalVectorIndexRetriever, question: str, query: str | QueryBundle) -> None:
    (found,) = retriever.retrieve(query)
    node = found.node
    print(f"{question} → {Path(node.image_path).name if isinstance(node, ImageNode) else node.get_content()}")


if __name__ == "__main__":
    main()
