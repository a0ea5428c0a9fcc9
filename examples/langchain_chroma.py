"""Pictures in Chroma behind LangChain, found by a text, by a picture, and by a picture with a change.

Run it with ``python examples/langchain_chroma.py``; it needs no network.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from drawings import QUERY, draw_pictures
from langchain_core.documents import Document

from langchain_gme import GMEEmbeddings, MultimodalRetriever

# Python looks in the folder of this file first, and this file has the package's name.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]
from langchain_chroma import Chroma  # noqa: E402

MODEL = "tiny"  # the one line to change: "gme-2b" for photographs, documents and text


def main() -> None:
    with TemporaryDirectory() as folder:
        pictures = draw_pictures(Path(folder))
        store = Chroma("pictures", GMEEmbeddings(model=MODEL))
        store.add_images([str(path) for path in pictures], metadatas=[{"name": path.name} for path in pictures])
        query = str(Path(folder) / QUERY)
        retriever = MultimodalRetriever(vectorstore=store, search_kwargs={"k": 1})
        show("a large green star", store.similarity_search("a large green star in the center on a black background", 1))
        show("a red circle, as a picture", store.similarity_search_by_image(query, k=1))
        show("the same, and make it blue", retriever.invoke({"image": query, "text": "make it blue"}))


def show(question: str, found: list[Document]) -> None:
    print(f"{question} → {found[0].metadata['name']}")


if __name__ == "__main__":
    main()
