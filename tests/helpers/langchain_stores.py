"""LangChain's stores, what is done with them, and where a store cannot: the table in docs/langchain.md.

Run it to print the table.
"""

from __future__ import annotations

import asyncio
import importlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from sqlalchemy.pool import NullPool

from langchain_gme import GMEEmbeddings, MultimodalRetriever, MultimodalStore, aadd_multimodal, add_multimodal
from tests.helpers.gallery import BLUE_CIRCLE, BLUE_STAR, CAPTIONS, CHANGE, HEART, RED_CIRCLE, STAR, Gallery
from tests.helpers.store_tables import ABSENT, Failures, Operation, markdown

DIMENSION = 128


Only = Callable[[int], dict[str, Any]]
"""From a number to the search arguments that leave the documents with that number."""


@dataclass(frozen=True)
class Setting:
    """An empty store, the search arguments that leave the documents of one number, and the pictures."""

    store: VectorStore
    only: Only
    gallery: Gallery


def in_memory(embeddings: GMEEmbeddings, request: pytest.FixtureRequest) -> tuple[VectorStore, Only]:
    def only(number: int) -> dict[str, Any]:
        return {"filter": lambda document: document.metadata["number"] == number}

    return InMemoryVectorStore(embeddings), only


def chroma(embeddings: GMEEmbeddings, request: pytest.FixtureRequest) -> tuple[VectorStore, Only]:
    from langchain_chroma import Chroma

    return Chroma(_new_name(), embeddings), _filter_by_number


def faiss(embeddings: GMEEmbeddings, request: pytest.FixtureRequest) -> tuple[VectorStore, Only]:
    from faiss import IndexFlatIP
    from langchain_community.docstore.in_memory import InMemoryDocstore
    from langchain_community.vectorstores import FAISS

    return FAISS(embeddings, IndexFlatIP(DIMENSION), InMemoryDocstore(), {}), _filter_by_number


def qdrant(embeddings: GMEEmbeddings, request: pytest.FixtureRequest) -> tuple[VectorStore, Only]:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    client.create_collection("pictures", models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE))

    def only(number: int) -> dict[str, Any]:
        match = models.FieldCondition(key="metadata.number", match=models.MatchValue(value=number))
        return {"filter": models.Filter(must=[match])}

    return QdrantVectorStore(client, "pictures", embeddings), only


def lancedb(embeddings: GMEEmbeddings, request: pytest.FixtureRequest) -> tuple[VectorStore, Only]:
    from langchain_community.vectorstores import LanceDB

    folder = request.getfixturevalue("tmp_path") / "lancedb"
    store = LanceDB(uri=str(folder), embedding=embeddings, mode="append")
    # Without prefilter only the k nearest are filtered.
    return store, lambda number: {"filter": f"metadata.number = {number}", "prefilter": True}


def pgvectorstore(embeddings: GMEEmbeddings, request: pytest.FixtureRequest) -> tuple[VectorStore, Only]:
    postgres = pytest.importorskip("langchain_postgres")
    # Without a pool no connection is left open that the server's end would cut.
    engine = postgres.PGEngine.from_connection_string(_postgres_url(request), poolclass=NullPool)
    table = _new_name()
    engine.init_vectorstore_table(table, DIMENSION)
    return postgres.PGVectorStore.create_sync(engine, embeddings, table), _filter_by_number


def pgvector(embeddings: GMEEmbeddings, request: pytest.FixtureRequest) -> tuple[VectorStore, Only]:
    postgres = pytest.importorskip("langchain_postgres")
    options = {"connection": _postgres_url(request), "engine_args": {"poolclass": NullPool}}
    return postgres.PGVector(embeddings, collection_name=_new_name(), **options), _filter_by_number


def milvus(embeddings: GMEEmbeddings, request: pytest.FixtureRequest) -> tuple[VectorStore, Only]:
    stores = pytest.importorskip("langchain_milvus")
    options = {"connection_args": request.getfixturevalue("milvus"), "enable_dynamic_field": True}
    store = stores.Milvus(embeddings, collection_name=_new_name(), **options)
    return store, lambda number: {"expr": f"number == {number}"}


def sklearn(embeddings: GMEEmbeddings, request: pytest.FixtureRequest) -> tuple[VectorStore, Only]:
    from langchain_community.vectorstores import SKLearnVectorStore

    return SKLearnVectorStore(embeddings), _filter_by_number


def duckdb(embeddings: GMEEmbeddings, request: pytest.FixtureRequest) -> tuple[VectorStore, Only]:
    from langchain_community.vectorstores import DuckDB

    connection = pytest.importorskip("duckdb").connect(":memory:")
    return DuckDB(connection=connection, embedding=embeddings), _filter_by_number


def sqlite_vec(embeddings: GMEEmbeddings, request: pytest.FixtureRequest) -> tuple[VectorStore, Only]:
    from langchain_community.vectorstores import SQLiteVec

    extension = pytest.importorskip("sqlite_vec")
    sqlite3: Any = importlib.import_module("sqlite3")
    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        sqlite3 = pytest.importorskip("pysqlite3.dbapi2", reason="this Python's sqlite3 loads no extensions")
    # Async methods search in other threads.
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.enable_load_extension(True)
    extension.load(connection)
    request.addfinalizer(connection.close)
    # It does not say what its embeddings are.
    return MultimodalStore(SQLiteVec("pictures", connection, embeddings), embeddings=embeddings), _filter_by_number


def _new_name() -> str:
    """A name for a table in a database that tests share."""
    return f"pictures_{uuid.uuid4().hex}"


def _postgres_url(request: pytest.FixtureRequest) -> str:
    return f"postgresql+psycopg://postgres@/postgres?host={request.getfixturevalue('postgres')}"


def _filter_by_number(number: int) -> dict[str, Any]:
    return {"filter": {"number": number}}


STORES: dict[str, Callable[[GMEEmbeddings, pytest.FixtureRequest], tuple[VectorStore, Only]]] = {
    "InMemoryVectorStore": in_memory,
    "Chroma": chroma,
    "FAISS": faiss,
    "Qdrant": qdrant,
    "LanceDB": lancedb,
    "PGVectorStore": pgvectorstore,
    "PGVector": pgvector,
    "Milvus": milvus,
    "SKLearnVectorStore": sklearn,
    "DuckDB": duckdb,
    "SQLiteVec": sqlite_vec,
}


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


def add_in_turns(setting: Setting) -> None:
    add_multimodal(setting.store, ["two small black crosses"], [{"number": 10}])
    add_multimodal(setting.store, [setting.gallery.paths[STAR]], [{"number": STAR}])
    (found,) = ask(setting, CAPTIONS[STAR])
    assert found.metadata["number"] == STAR
    assert found.metadata["image"] == str(setting.gallery.paths[STAR])


def add_again(setting: Setting) -> None:
    ids = [str(uuid.uuid4()) for _ in setting.gallery.paths]
    for _ in range(2):
        add_multimodal(setting.store, setting.gallery.paths, [{"number": number} for number in range(len(ids))], ids)
    found = numbers(setting.store.similarity_search("a heart", k=len(ids) + 1))
    assert sorted(found) == list(range(len(ids))), "rows are there twice"


def delete(setting: Setting) -> None:
    ids = add_pictures(setting)
    setting.store.delete([ids[STAR]])
    found = numbers(setting.store.similarity_search(CAPTIONS[STAR], k=len(ids) - 1))
    assert sorted(found) == [number for number in range(len(ids)) if number != STAR]


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
    add_multimodal(setting.store, pictures, [{"number": BLUE_CIRCLE}] * 3, [str(uuid.uuid4()) for _ in pictures])
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
        queries = [{"text": CHANGE, "image": setting.gallery.query}, CAPTIONS[STAR]]
        return [document for query in queries for document in await retriever.ainvoke(query)]

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
    "a text, then a picture, in two calls": add_in_turns,
    "the same `ids` again": add_again,
    "the store's `delete`": delete,
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
    "keeps both": (AssertionError, "rows are there twice"),
    "an error": (Exception, "[Dd]uplicate key"),
    "needs `async_mode`": (Exception, "sync mode is turned on|_async_engine not found"),
    "has none: refused": (ValueError, "ignores filter"),
    "has none": (NotImplementedError, "does not implement|must be implemented"),
    "needs `fetch_k`": (ValueError, "n_neighbors"),
}
# Chroma and LanceDB alone have any of these.
_IMAGE_METHODS = (add_images, search_by_image, search_by_image_with_score)
EXCEPTIONS: dict[tuple[str, Operation], str] = {
    **{(name, run): ABSENT for name in STORES if name not in ("Chroma", "LanceDB") for run in _IMAGE_METHODS},
    ("LanceDB", search_by_image): ABSENT,
    ("LanceDB", search_by_image_with_score): ABSENT,
    ("Chroma", search_by_image_with_score): "fails (#33851)",
    ("Qdrant", diverse_search): "`lambda_mult` inverted (#39052)",
    ("PGVector", async_use): "needs `async_mode`",
    ("DuckDB", add_again): "an error",
    ("DuckDB", diverse_search): "has none",
    ("SKLearnVectorStore", add_again): "keeps both",
    ("SKLearnVectorStore", diverse_search): "needs `fetch_k`",
    ("SQLiteVec", add_again): "keeps both",
    **{("SQLiteVec", run): "has none" for run in (diverse_search, delete)},
    **{(name, filtered_search): "has none: refused" for name in ("SKLearnVectorStore", "DuckDB", "SQLiteVec")},
    **{(name, delete): ABSENT for name in ("SKLearnVectorStore", "DuckDB")},
}


if __name__ == "__main__":
    print(markdown(STORES, OPERATIONS, EXCEPTIONS))  # noqa: T201
