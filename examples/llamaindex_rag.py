"""A question about a PDF: its pages are found by how they look and what they say, and handed to a language model.

Run it with ``python examples/llamaindex_rag.py``; it needs no network. The language model is LlamaIndex's own
stand-in, which repeats what it was told.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from llama_index.core import VectorStoreIndex
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MediaResource, Node
from pages import read_pdf, write_pdf

from llamaindex_gme import GMEEmbedding, MultimodalVectorIndexRetriever

MODEL = "tiny"  # the one line to change: "gme-2b" for real documents
QUESTION = "three small green stars at the top on a white background"


def load_pages(pdf: Path, folder: Path) -> list[Node]:
    """Every page as a node with its text and its picture; its number is in the metadata."""
    nodes = []
    for page in read_pdf(pdf):
        path = folder / f"page-{page.number}.png"
        page.image.save(path)
        nodes.append(
            Node(
                text_resource=MediaResource(text=page.text),
                image_resource=MediaResource(path=path),
                metadata={"page": page.number},
                excluded_embed_metadata_keys=["page"],
            )
        )
    return nodes


def make_query_engine(nodes: list[Node], llm: LLM) -> RetrieverQueryEngine:
    embed_model = GMEEmbedding(MODEL)
    index = VectorStoreIndex([], embed_model=embed_model)
    index.insert_nodes(embed_model(nodes))
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=1)
    return RetrieverQueryEngine.from_args(retriever, llm=llm, multimodal=True)


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_pdf(folder / "report.pdf")
        engine = make_query_engine(load_pages(folder / "report.pdf", folder), MockLLM(is_chat_model=True))
        print(engine.query(QUESTION))


if __name__ == "__main__":
    main()
