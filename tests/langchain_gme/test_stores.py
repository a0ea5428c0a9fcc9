"""``GMEEmbeddings`` in LangChain's stores: every operation on every store, and what a store can do wrong."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings, FakeEmbeddings
from langchain_core.runnables import RunnableLambda
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from sqlalchemy.pool import NullPool

from langchain_gme import GMEEmbeddings, MultimodalRetriever, MultimodalStore, aadd_multimodal, add_multimodal
from st_modules import InputError, SentenceTransformer
from tests.helpers.gallery import BLUE_CIRCLE, CAPTIONS, CHANGE, HEART, RED_CIRCLE, STAR, Gallery
from tests.helpers.langchain_stores import (
    EXCEPTIONS,
    FAILURES,
    OPERATIONS,
    STORES,
    Setting,
    add_pictures,
    async_use,
    image_search,
    numbers,
)
from tests.helpers.paths import ROOT
from tests.helpers.references import TOLERANCE
from tests.helpers.store_tables import WORKS, check, markdown

DOCS = ROOT / "docs" / "langchain.md"


@pytest.fixture(scope="module")
def embeddings() -> GMEEmbeddings:
    return GMEEmbeddings(model="tiny", model_kwargs={"device": "cpu"})


@pytest.fixture
def memory(embeddings: GMEEmbeddings) -> InMemoryVectorStore:
    return InMemoryVectorStore(embeddings)


@pytest.fixture(params=[name for name in STORES if (name, image_search) not in EXCEPTIONS])
def setting(request: pytest.FixtureRequest, embeddings: GMEEmbeddings, gallery: Gallery) -> Setting:
    return Setting(*STORES[request.param](embeddings, request), gallery)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", STORES)
def test_store(
    name: str, operation: str, embeddings: GMEEmbeddings, gallery: Gallery, request: pytest.FixtureRequest
) -> None:
    setting = Setting(*STORES[name](embeddings, request), gallery)
    run = OPERATIONS[operation]
    check(run, setting, EXCEPTIONS.get((name, run), WORKS), FAILURES)


# DuckDB refuses a call during another one.
@pytest.mark.parametrize("name", [name for name in STORES if name != "DuckDB" and (name, async_use) not in EXCEPTIONS])
async def test_two_queries_at_once_find_their_own(
    name: str, embeddings: GMEEmbeddings, gallery: Gallery, request: pytest.FixtureRequest
) -> None:
    setting = Setting(*STORES[name](embeddings, request), gallery)
    add_pictures(setting)
    retriever: Any = MultimodalRetriever(vectorstore=setting.store, search_kwargs={"k": 1})
    queries = [{"text": CHANGE, "image": gallery.query}, CAPTIONS[STAR], gallery.query]
    found = await asyncio.gather(*(retriever.ainvoke(query) for query in queries))
    assert [numbers(documents) for documents in found] == [[BLUE_CIRCLE], [STAR], [RED_CIRCLE]]


def test_the_documented_table_is_what_was_run() -> None:
    assert markdown(STORES, OPERATIONS, EXCEPTIONS) in DOCS.read_text(encoding="utf-8")


def test_what_is_stored_is_what_the_model_gives(setting: Setting, tiny: SentenceTransformer, gallery: Gallery) -> None:
    """Ranks and scores of a store are those of a brute-force search."""
    add_pictures(setting)
    items: list[Any] = [{"image": path} for path in gallery.paths]
    items[HEART]["text"] = CAPTIONS[HEART]
    query: Any = {"text": CHANGE, "image": gallery.query}
    scores = tiny.encode_document(items) @ tiny.encode_query(query)
    found = MultimodalRetriever(vectorstore=setting.store, search_kwargs={"k": len(items)}).invoke(query)
    assert numbers(found) == np.argsort(-scores).tolist()


def test_a_document_brings_its_metadata_its_id_and_its_image(
    memory: InMemoryVectorStore, tiny: SentenceTransformer, gallery: Gallery
) -> None:
    path = str(gallery.paths[STAR])
    page = Document("a page", id="page-7", metadata={"image": path, "page": 7})
    assert add_multimodal(memory, [page, Document("text", id="text-8")]) == ["page-7", "text-8"]
    stored = memory.store["page-7"]
    assert stored["text"] == "a page"
    assert stored["metadata"] == {"image": path, "page": 7}
    expected = tiny.encode_document({"text": "a page", "image": path})
    np.testing.assert_allclose(stored["vector"], expected, atol=TOLERANCE)
    (again,) = memory.get_by_ids(["page-7"])
    own: Any = memory.embeddings
    np.testing.assert_allclose(own.embed_multimodal([again])[0], expected, atol=TOLERANCE)


def test_an_image_in_memory_is_not_written_into_the_metadata(memory: InMemoryVectorStore, gallery: Gallery) -> None:
    data = gallery.paths[STAR].read_bytes()
    inputs = [data, {"image": data}, Document("", metadata={"image": data, "page": 7})]
    add_multimodal(memory, [*inputs, {"image": f"data:image/png;base64,{gallery.base64(STAR)}"}], ids=list("abcd"))
    assert [memory.store[key]["metadata"] for key in "abcd"] == [
        {"image": ""},
        {"image": ""},
        {"image": "", "page": 7},
        {"image": ""},
    ]


def test_messages_and_lists_of_images_leave_their_text_and_their_references(
    memory: InMemoryVectorStore, gallery: Gallery
) -> None:
    path = str(gallery.paths[STAR])
    items = [
        {"text": "two", "image": [gallery.paths[STAR], gallery.query]},
        [{"type": "text", "text": "a"}, {"type": "image", "path": path}, {"type": "text", "text": "b"}],
        {"role": "user", "content": "words"},
    ]
    add_multimodal(memory, items, ids=list("abc"))
    assert [memory.store[key]["text"] for key in "abc"] == ["two", "a\nb", "words"]
    images = [memory.store[key]["metadata"]["image"] for key in "abc"]
    assert images == [json.dumps([path, str(gallery.query)]), path, ""]


async def test_a_diverse_search_has_an_async_twin(memory: InMemoryVectorStore, gallery: Gallery) -> None:
    add_multimodal(memory, [*gallery.paths, *gallery.paths], ids=list("abcdefghij"))
    options: dict[str, Any] = {"search_type": "mmr", "search_kwargs": {"k": 2, "lambda_mult": 0.1}}
    retriever: Any = MultimodalRetriever(vectorstore=memory, **options)
    found = retriever.invoke(gallery.query)
    assert await retriever.ainvoke(gallery.query) == found
    assert len({document.metadata["image"] for document in found}) == 2


def test_given_metadata_wins_over_what_an_item_brings(memory: InMemoryVectorStore, gallery: Gallery) -> None:
    items = [gallery.paths[STAR], Document("", metadata={"image": str(gallery.query), "page": 7})]
    add_multimodal(memory, items, [{"image": "star.png"}, {"page": 8}], ["a", "b"])
    assert memory.store["a"]["metadata"] == {"image": "star.png"}
    assert memory.store["b"]["metadata"] == {"image": str(gallery.query), "page": 8}


def test_items_with_the_same_text_keep_their_own_embeddings(
    setting: Setting, tiny: SentenceTransformer, gallery: Gallery
) -> None:
    items = [{"text": "a picture", "image": path} for path in gallery.paths] * 20
    numbers_of = [{"number": number % len(gallery.paths), "row": number} for number in range(len(items))]
    add_multimodal(setting.store, items, numbers_of)
    expected = (tiny.encode_document(items[:5]) @ tiny.encode_query([gallery.query])[0]).argmax()
    retriever: Any = MultimodalRetriever(vectorstore=setting.store, search_kwargs={"k": 20})
    found = retriever.invoke(gallery.query)
    assert numbers(found) == [expected] * 20


def test_adding_texts_afterwards_embeds_them(setting: Setting, gallery: Gallery) -> None:
    add_pictures(setting)
    setting.store.add_texts(["two small black crosses"], [{"number": 10, "image": ""}], ids=[str(uuid.uuid4())])
    assert numbers(setting.store.similarity_search("two small black crosses", k=1)) == [10]


class AsksTwice(InMemoryVectorStore):
    """A store that embeds more than it was given."""

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        self.embeddings.embed_documents([document.page_content for document in documents])
        return super().add_documents(documents, ids, **kwargs)


class AsksForOthers(InMemoryVectorStore):
    """A store that changes the texts that it was given."""

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        return super().add_documents([Document(f"- {document.page_content}") for document in documents], ids)


class AsksNothing(InMemoryVectorStore):
    """A store that does not embed at all."""

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        return []


class AsksOthersToo(InMemoryVectorStore):
    """A store that has embeddings of its own beside those it was given."""

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        given: Any = self.embeddings
        self.of_its_own = GMEEmbeddings(model=given.client).embed_documents(["a summary"])
        return super().add_documents(documents, ids, **kwargs)


def test_other_embeddings_are_not_answered_for(
    embeddings: GMEEmbeddings, gallery: Gallery, tiny: SentenceTransformer
) -> None:
    store = AsksOthersToo(embeddings)
    add_multimodal(store, [gallery.query], ids=["a"])
    np.testing.assert_allclose(store.of_its_own, tiny.encode_document(["a summary"]), atol=TOLERANCE)
    np.testing.assert_allclose(store.store["a"]["vector"], tiny.encode_document([gallery.query])[0], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("store_class", "problem"),
    [
        (AsksTwice, "embeds other texts than it was given"),
        (AsksForOthers, "embeds other texts than it was given"),
        (AsksNothing, "asked for 0 of 2 embeddings"),
    ],
)
def test_a_store_that_embeds_in_its_own_way_is_an_error(
    store_class: type[InMemoryVectorStore], problem: str, embeddings: GMEEmbeddings, gallery: Gallery
) -> None:
    with pytest.raises(RuntimeError, match=problem):
        add_multimodal(store_class(embeddings), ["a", {"image": gallery.query}])
    assert len(embeddings.embed_documents(["later"])) == 1


async def test_adding_to_two_stores_at_once_keeps_them_apart(
    embeddings: GMEEmbeddings, gallery: Gallery, tiny: SentenceTransformer
) -> None:
    stores = [InMemoryVectorStore(embeddings) for _ in gallery.paths]
    await asyncio.gather(
        *(aadd_multimodal(store, [path], ids=["a"]) for store, path in zip(stores, gallery.paths, strict=True))
    )
    vectors = [store.store["a"]["vector"] for store in stores]
    np.testing.assert_allclose(vectors, tiny.encode_document(list(gallery.paths)), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"items": ["a", {"image": "missing.png"}]}, r"item 1: missing\.png: no such file"),
        ({"items": ["a", None]}, "item 1: None has nothing to embed"),
        ({"items": ["a", "b"], "metadatas": [{}]}, "metadatas: 1 for 2 items"),
        ({"items": ["a", "b"], "ids": ["1", "2", "3"]}, "ids: 3 for 2 items"),
        ({"items": "a"}, "items: of type str; pass a list"),
    ],
)
async def test_bad_items_are_named_and_nothing_is_added(
    memory: InMemoryVectorStore, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        add_multimodal(memory, **arguments)
    with pytest.raises(InputError, match=problem):
        await aadd_multimodal(memory, **arguments)
    assert memory.store == {}


async def test_nothing_to_add_is_no_error(memory: InMemoryVectorStore) -> None:
    assert add_multimodal(memory, []) == []
    assert await aadd_multimodal(memory, []) == []


@pytest.mark.parametrize(
    "make_other",
    [
        lambda embeddings: FakeEmbeddings(size=3),
        lambda embeddings: CacheBackedEmbeddings.from_bytes_store(
            embeddings, InMemoryByteStore(), key_encoder="sha256"
        ),
    ],
    ids=["fake", "cached"],
)
def test_other_embeddings_are_refused(
    embeddings: GMEEmbeddings, make_other: Callable[[GMEEmbeddings], Embeddings]
) -> None:
    other = make_other(embeddings)
    store = InMemoryVectorStore(other)
    with pytest.raises(TypeError, match=f"of type {type(other).__name__}; make the store with GMEEmbeddings"):
        add_multimodal(store, ["a"])
    with pytest.raises(TypeError, match="make the store with GMEEmbeddings"):
        MultimodalRetriever(vectorstore=store)


def test_a_retriever_takes_embeddings_of_its_own(embeddings: GMEEmbeddings, gallery: Gallery) -> None:
    cached = CacheBackedEmbeddings.from_bytes_store(embeddings, InMemoryByteStore(), key_encoder="sha256")
    store: VectorStore = InMemoryVectorStore(cached)
    store.add_texts(list(CAPTIONS), [{"number": number} for number in range(len(CAPTIONS))])
    retriever: Any = MultimodalRetriever(vectorstore=store, embeddings=embeddings, search_kwargs={"k": 1})
    assert numbers(retriever.invoke(gallery.query)) == [RED_CIRCLE]


def test_a_retriever_is_a_step_of_a_chain(memory: InMemoryVectorStore, gallery: Gallery) -> None:
    add_multimodal(memory, list(gallery.paths), [{"number": number} for number in range(len(gallery.paths))])
    retriever: Any = MultimodalRetriever(vectorstore=memory, search_kwargs={"k": 1})
    chain = RunnableLambda(lambda text: {"text": text, "image": gallery.query}) | retriever | RunnableLambda(numbers)
    assert chain.invoke(CHANGE) == [BLUE_CIRCLE]
    assert [numbers(found) for found in retriever.batch([CAPTIONS[STAR], gallery.query])] == [[STAR], [RED_CIRCLE]]


@pytest.mark.parametrize("query", [None, {"txt": "a"}, [], {"image": "missing.png"}], ids=str)
async def test_a_bad_query_is_an_input_error(memory: InMemoryVectorStore, query: Any) -> None:
    add_multimodal(memory, ["a"])
    retriever = MultimodalRetriever(vectorstore=memory)
    with pytest.raises(InputError):
        retriever.invoke(query)
    with pytest.raises(InputError):
        await retriever.ainvoke(query)


def count_calls(embeddings: GMEEmbeddings, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    encode = embeddings.client._inference
    monkeypatch.setattr(
        embeddings.client, "_inference", lambda items, **options: sizes.append(len(items)) or encode(items, **options)
    )
    return sizes


def test_a_cache_returns_documents_and_queries_without_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = GMEEmbeddings(model="tiny", model_kwargs={"device": "cpu"}, query_instruction="Find an image.")
    cached = CacheBackedEmbeddings.from_bytes_store(
        embeddings,
        InMemoryByteStore(),
        namespace=embeddings.model_name,
        query_embedding_cache=InMemoryByteStore(),
        key_encoder="sha256",
    )
    documents, query = embeddings.embed_documents(list(CAPTIONS)), embeddings.embed_query(CAPTIONS[0])
    assert cached.embed_documents(list(CAPTIONS)) == documents
    assert cached.embed_query(CAPTIONS[0]) == query
    sizes = count_calls(embeddings, monkeypatch)
    assert cached.embed_documents([*CAPTIONS, "new"])[:-1] == documents
    assert cached.embed_query(CAPTIONS[0]) == query
    assert sizes == [1]


def test_one_cache_for_both_sides_gives_a_query_the_embedding_of_a_document() -> None:
    """LangChain's cache goes by the text alone; the documentation says to give queries a store of their own."""
    embeddings = GMEEmbeddings(model="tiny", model_kwargs={"device": "cpu"}, query_instruction="Find an image.")
    cached = CacheBackedEmbeddings.from_bytes_store(
        embeddings, InMemoryByteStore(), query_embedding_cache=True, key_encoder="sha256"
    )
    (document,) = cached.embed_documents([CAPTIONS[0]])
    assert cached.embed_query(CAPTIONS[0]) == document != embeddings.embed_query(CAPTIONS[0])


def test_lancedb_overwrites_unless_it_is_told_to_append(embeddings: GMEEmbeddings, tmp_path: Path) -> None:
    """Why the documentation passes ``mode="append"``."""
    from langchain_community.vectorstores import LanceDB

    store = LanceDB(uri=str(tmp_path), embedding=embeddings)
    for text in CAPTIONS[:2]:
        store.add_texts([text])
    assert [document.page_content for document in store.similarity_search(CAPTIONS[0], k=4)] == [CAPTIONS[1]]


def test_pgvectorstore_chooses_from_four_unless_it_is_told_how_many(
    embeddings: GMEEmbeddings, gallery: Gallery, request: pytest.FixtureRequest
) -> None:
    """What the documentation says of its own search."""
    setting = Setting(*STORES["PGVectorStore"](embeddings, request), gallery)
    ids = [str(uuid.uuid4()) for _ in range(4)]
    add_multimodal(setting.store, [gallery.paths[STAR]] * 4, [{"number": STAR}] * 4, ids)
    add_pictures(setting)
    search = setting.store.max_marginal_relevance_search
    assert numbers(search(CAPTIONS[STAR], k=2)) == [STAR, STAR]
    assert numbers(search(CAPTIONS[STAR], k=2, fetch_k=20)) != [STAR, STAR]


def test_pgvectorstore_takes_any_id_where_its_column_is_text(embeddings: GMEEmbeddings, postgres: str) -> None:
    """What the documentation says to do where ids are no UUIDs."""
    package = pytest.importorskip("langchain_postgres")
    url = f"postgresql+psycopg://postgres@/postgres?host={postgres}"
    engine = package.PGEngine.from_connection_string(url, poolclass=NullPool)
    engine.init_vectorstore_table("any_id", 128, id_column=package.Column("langchain_id", "TEXT", nullable=False))
    store = package.PGVectorStore.create_sync(engine, embeddings, "any_id")
    assert add_multimodal(store, list(CAPTIONS), ids=list(CAPTIONS)) == list(CAPTIONS)
    assert [document.page_content for document in store.get_by_ids([CAPTIONS[STAR]])] == [CAPTIONS[STAR]]


def test_pgvector_has_one_row_of_an_id_in_all_its_collections(
    embeddings: GMEEmbeddings, gallery: Gallery, request: pytest.FixtureRequest
) -> None:
    """Why the documentation recommends ``PGVectorStore``."""
    first, second = (STORES["PGVector"](embeddings, request)[0] for _ in range(2))
    name = str(uuid.uuid4())
    for store, number in ((first, RED_CIRCLE), (second, STAR)):
        add_multimodal(store, [gallery.paths[number]], [{"number": number}], [name])
    assert [numbers(store.similarity_search("a", k=2)) for store in (first, second)] == [[STAR], []]
    first, second = (STORES["PGVector"](embeddings, request)[0] for _ in range(2))
    ids = [add_multimodal(store, [gallery.paths[STAR]], [{"number": STAR}]) for store in (first, second)]
    assert [numbers(store.similarity_search("a", k=2)) for store in (first, second)] == [[STAR], [STAR]]
    assert ids[0] != ids[1], "ids that are made are of one collection"


def test_pgvector_is_used_with_await_where_it_is_made_for_it(
    embeddings: GMEEmbeddings, gallery: Gallery, postgres: str
) -> None:
    """What the documentation says to do for ``await``."""
    package = pytest.importorskip("langchain_postgres")
    url = f"postgresql+psycopg://postgres@/postgres?host={postgres}"
    options: dict[str, Any] = {"connection": url, "engine_args": {"poolclass": NullPool}, "async_mode": True}

    async def add_and_ask() -> list[Document]:
        store = package.PGVector(embeddings, collection_name=str(uuid.uuid4()), **options)
        items, rows = list(gallery.paths), [{"number": number} for number in range(len(gallery.paths))]
        assert await aadd_multimodal(store, items, rows) == await aadd_multimodal(store, items, rows)
        return await MultimodalRetriever(vectorstore=store, k=6).ainvoke({"text": CHANGE, "image": gallery.query})

    found = numbers(asyncio.run(add_and_ask()))
    assert found[0] == BLUE_CIRCLE
    assert sorted(found) == list(range(len(gallery.paths)))


@pytest.mark.parametrize("name", ["Milvus", "Qdrant"])
def test_a_store_that_returns_its_ids_in_the_metadata_is_read(
    name: str, embeddings: GMEEmbeddings, request: pytest.FixtureRequest
) -> None:
    store = MultimodalStore(STORES[name](embeddings, request)[0])
    (key,) = store.add_texts(["a"], [{"page": 1}])
    assert store.similarity_search("a", k=1) == [Document("a", metadata={"page": 1}, id=key)]


def test_milvus_drops_new_metadata_unless_its_fields_are_dynamic(
    embeddings: GMEEmbeddings, milvus: dict[str, Any]
) -> None:
    """Why the documentation passes ``enable_dynamic_field=True``."""
    package = pytest.importorskip("langchain_milvus")
    store = package.Milvus(embeddings, collection_name="fixed_fields", connection_args=milvus)
    store.add_texts([CAPTIONS[0]], [{"number": 0}], ids=["0"])
    store.add_texts([CAPTIONS[1]], [{"number": 1, "page": 7}], ids=["1"])
    (found,) = store.similarity_search(CAPTIONS[1], k=1)
    assert found.metadata == {"pk": "1", "number": 1}
