"""LangChain's stores, what is done with them, and where a store cannot: the table in docs/langchain.md.

Run it to print the table.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from langchain_gme import GMEEmbeddings, MultimodalRetriever, aadd_multimodal, add_multimodal
from tests.helpers.gallery import BLUE_CIRCLE, BLUE_STAR, CAPTIONS, CHANGE, HEART, RED_CIRCLE, STAR, Gallery
from tests.helpers.store_tables import ABSENT, Failures, Operation, markdown

DIMENSION = 128


@dataclass(frozen=True)
class Setting:
    """An empty store, the search arguments that leave the documents of one number, and the pictures."""

    store: VectorStore
    only: Callable[[int], dict[str, Any]]
    gallery: Gallery


def in_memory(embeddings: GMEEmbeddings, folder: Path) -> tuple[VectorStore, Callable[[int], dict[str, Any]]]:
    def only(number: int) -> dict[str, Any]:
        return {"filter": lambda document: document.metadata["number"] == number}

    return InMemoryVectorStore(embeddings), only


def chroma(embeddings: GMEEmbeddings, folder: Path) -> tuple[VectorStore, Callable[[int], dict[str, Any]]]:
    from langchain_chroma import Chroma

    return Chroma(f"pictures-{uuid.uuid4()}", embeddings), lambda number: {"filter": {"number": number}}


def faiss(embeddings: GMEEmbeddings, folder: Path) -> tuple[VectorStore, Callable[[int], dict[str, Any]]]:
    from faiss import IndexFlatIP
    from langchain_community.docstore.in_memory import InMemoryDocstore
    from langchain_community.vectorstores import FAISS

    store = FAISS(embeddings, IndexFlatIP(DIMENSION), InMemoryDocstore(), {})
    return store, lambda number: {"filter": {"number": number}}


def qdrant(embeddings: GMEEmbeddings, folder: Path) -> tuple[VectorStore, Callable[[int], dict[str, Any]]]:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    client.create_collection("pictures", models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE))

    def only(number: int) -> dict[str, Any]:
        match = models.FieldCondition(key="metadata.number", match=models.MatchValue(value=number))
        return {"filter": models.Filter(must=[match])}

    return QdrantVectorStore(client, "pictures", embeddings), only


def lancedb(embeddings: GMEEmbeddings, folder: Path) -> tuple[VectorStore, Callable[[int], dict[str, Any]]]:
    from langchain_community.vectorstores import LanceDB

    store = LanceDB(uri=str(folder / "lancedb"), embedding=embeddings, mode="append")
    # Without prefilter only the k nearest are filtered.
    return store, lambda number: {"filter": f"metadata.number = {number}", "prefilter": True}


STORES = {"InMemoryVectorStore": in_memory, "Chroma": chroma, "FAISS": faiss, "Qdrant": qdrant, "LanceDB": lancedb}


def numbers(documents: list[Document]) -> list[int]:
    return [int(document.metadata["number"]) for document in documents]


def add_pictures(setting: Setting) -> list[str]:
    """Add every picture, and the heart with its caption."""
    items: list[Any] = [{"image": path} for path in setting.gallery.paths]
    items[HEART]["text"] = CAPTIONS[HEART]
    return add_multimodal(setting.store, items, [{"number": number} for number in range(len(items))])


def ask(setting: Setting, query: Any, k: int = 1, **options: Any) -> list[Document]:
    search_kwargs = {"k": k, **options.pop("search_kwargs", {})}
    return MultimodalRetriever(vectorstore=setting.store, search_kwargs=search_kwargs, **options).invoke(query)


def search_captions(setting: Setting) -> dict[str, list[int]]:
    return {text: numbers(setting.store.similarity_search(text, k=1)) for text in CAPTIONS}


def add_texts(setting: Setting) -> None:
    setting.store.add_texts(list(CAPTIONS), [{"number": number} for number in range(len(CAPTIONS))])
    assert search_captions(setting) == {text: [number] for number, text in enumerate(CAPTIONS)}


def add_items(setting: Setting) -> None:
    ids = add_pictures(setting)
    ids += add_multimodal(setting.store, ["two small black crosses"], [{"number": 10}])
    assert len(set(ids)) == 6
    found = {number: document for document in ask(setting, "a heart", k=6) for number in numbers([document])}
    assert {number: document.page_content for number, document in found.items()} == {
        0: "",
        1: "",
        2: "",
        3: "",
        HEART: CAPTIONS[HEART],
        10: "two small black crosses",
    }
    pictures = {number: str(path) for number, path in enumerate(setting.gallery.paths)}
    assert {number: document.metadata.get("image") for number, document in found.items()} == {**pictures, 10: None}


def text_search(setting: Setting) -> None:
    add_pictures(setting)
    expected = {text: [number] for number, text in enumerate(CAPTIONS)}
    assert search_captions(setting) == expected
    assert {text: numbers(ask(setting, text)) for text in CAPTIONS} == expected


def image_search(setting: Setting) -> None:
    add_pictures(setting)
    queries = {"path": setting.gallery.query, "item": {"image": str(setting.gallery.query)}}
    found = {form: numbers(ask(setting, query)) for form, query in queries.items()}
    assert found == {"path": [RED_CIRCLE], "item": [RED_CIRCLE]}


def composed_search(setting: Setting) -> None:
    add_pictures(setting)
    blocks = [{"type": "image", "url": setting.gallery.query.as_uri()}, {"type": "text", "text": CHANGE}]
    queries = {"item": {"text": CHANGE, "image": setting.gallery.query}, "blocks": blocks}
    found = {form: numbers(ask(setting, query)) for form, query in queries.items()}
    assert found == {"item": [BLUE_CIRCLE], "blocks": [BLUE_CIRCLE]}


def filtered_search(setting: Setting) -> None:
    add_pictures(setting)
    assert numbers(ask(setting, CAPTIONS[BLUE_STAR], k=4, search_kwargs=setting.only(STAR))) == [STAR]


def diverse_search(setting: Setting) -> None:
    pictures = [setting.gallery.paths[BLUE_CIRCLE]] * 3
    add_multimodal(setting.store, pictures, [{"number": BLUE_CIRCLE}] * 3, ids=list("abc"))
    add_pictures(setting)
    assert numbers(ask(setting, CAPTIONS[BLUE_CIRCLE], k=2)) == [BLUE_CIRCLE] * 2
    found = numbers(ask(setting, CAPTIONS[BLUE_CIRCLE], k=2, search_type="mmr", search_kwargs={"lambda_mult": 0.1}))
    assert found[0] == BLUE_CIRCLE
    assert found[1] != BLUE_CIRCLE, "it is the nearest, not the most diverse"


def async_use(setting: Setting) -> None:
    async def add_and_ask() -> list[Document]:
        items = [{"image": path} for path in setting.gallery.paths]
        await aadd_multimodal(setting.store, items, [{"number": number} for number in range(len(items))])
        retriever: Any = MultimodalRetriever(vectorstore=setting.store, search_kwargs={"k": 1})
        found = await asyncio.gather(
            retriever.ainvoke({"text": CHANGE, "image": setting.gallery.query}), retriever.ainvoke(CAPTIONS[STAR])
        )
        return [document for documents in found for document in documents]

    assert numbers(asyncio.run(add_and_ask())) == [BLUE_CIRCLE, STAR]


def add_images(setting: Setting) -> None:
    store: Any = setting.store
    uris = [str(path) for path in setting.gallery.paths]
    store.add_images(uris=uris, metadatas=[{"number": number} for number in range(len(uris))])
    assert numbers(setting.store.similarity_search(CAPTIONS[STAR], k=1)) == [STAR]


def search_by_image(setting: Setting) -> None:
    store: Any = setting.store
    search = store.similarity_search_by_image
    add_pictures(setting)
    assert numbers(search(str(setting.gallery.query), k=1)) == [RED_CIRCLE]


def search_by_image_with_score(setting: Setting) -> None:
    store: Any = setting.store
    search = store.similarity_search_by_image_with_relevance_score
    add_pictures(setting)
    assert numbers([document for document, _ in search(str(setting.gallery.query), k=1)]) == [RED_CIRCLE]


OPERATIONS: dict[str, Callable[[Setting], None]] = {
    "`add_texts`, `similarity_search`": add_texts,
    "`add_multimodal`: text, image, image+text": add_items,
    "text → picture": text_search,
    "picture → picture": image_search,
    "picture + text → picture": composed_search,
    "with a filter": filtered_search,
    '`search_type="mmr"`': diverse_search,
    "`aadd_multimodal`, `ainvoke`": async_use,
    "the store's `add_images`": add_images,
    "the store's `similarity_search_by_image`": search_by_image,
    "the same `_with_relevance_score`": search_by_image_with_score,
}

# What fails, and how; the issues are langchain-ai/langchain's.
FAILURES: Failures = {
    "fails (#33851)": (ValueError, "embeddings"),
    "`lambda_mult` inverted (#39052)": (AssertionError, "not the most diverse"),
}
EXCEPTIONS: dict[tuple[str, Operation], str] = {
    ("InMemoryVectorStore", add_images): ABSENT,
    ("InMemoryVectorStore", search_by_image): ABSENT,
    ("InMemoryVectorStore", search_by_image_with_score): ABSENT,
    ("FAISS", add_images): ABSENT,
    ("FAISS", search_by_image): ABSENT,
    ("FAISS", search_by_image_with_score): ABSENT,
    ("Qdrant", add_images): ABSENT,
    ("Qdrant", search_by_image): ABSENT,
    ("Qdrant", search_by_image_with_score): ABSENT,
    ("LanceDB", search_by_image): ABSENT,
    ("LanceDB", search_by_image_with_score): ABSENT,
    ("Chroma", search_by_image_with_score): "fails (#33851)",
    ("Qdrant", diverse_search): "`lambda_mult` inverted (#39052)",
}


if __name__ == "__main__":
    print(markdown(STORES, OPERATIONS, EXCEPTIONS))  # noqa: T201
