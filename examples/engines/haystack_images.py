"""Embed documents with pictures in Haystack. Run: pip install st-modules haystack-ai && python haystack_images.py."""

from dataclasses import replace

import numpy as np
from haystack import Document, component

from st_modules import BatchEmbedder

MODEL = "tiny"  # the one line to change: "gme-2b" embeds published quality


@component
class DocumentImageEmbedder:
    """Haystack's document embedder for pictures: text and picture of a document become one vector."""

    def __init__(self, model: str = MODEL, file_path_meta_field: str = "file_path") -> None:
        self.embed = BatchEmbedder(model)
        self.file_path_meta_field = file_path_meta_field

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Return the documents with embeddings; what cannot be embedded has its reason in ``meta["error"]``."""
        images = [document.meta.get(self.file_path_meta_field) for document in documents]
        found = self.embed({"text": [document.content for document in documents], "image": images})
        done = zip(documents, found["vector"], found["error"], strict=True)
        return {"documents": [_with_embedding(document, vector, error) for document, vector, error in done]}


def _with_embedding(document: Document, vector: np.ndarray, error: str | None) -> Document:
    if error is not None:
        return replace(document, meta={**document.meta, "error": error})
    return replace(document, embedding=vector.tolist())


def main() -> None:
    documents = [Document(content="a large red circle"), Document(meta={"file_path": "missing.png"})]
    for number, document in enumerate(DocumentImageEmbedder().run(documents)["documents"], start=1):
        print(number, len(document.embedding or []), document.meta.get("error"))


if __name__ == "__main__":
    main()
