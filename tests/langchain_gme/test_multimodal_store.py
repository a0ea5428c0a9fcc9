"""``MultimodalStore`` and ``MultimodalRetriever``: pictures through LangChain's own doors, right or refused."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.retrievers import EnsembleRetriever, MultiVectorRetriever, ParentDocumentRetriever
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings, FakeEmbeddings
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.stores import InMemoryByteStore, InMemoryStore
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_text_splitters import RecursiveCharacterTextSplitter

from langchain_gme import (
    GMEEmbeddings,
    MultimodalRetriever,
    MultimodalStore,
    aadd_multimodal,
    add_multimodal,
    identify_images,
)
from st_modules import ImageError, InputError, SentenceTransformer
from tests.helpers.gallery import BLUE_CIRCLE, CAPTIONS, CHANGE, HEART, RED_CIRCLE, STAR, Gallery
from tests.helpers.langchain_stores import EXCEPTIONS, STORES, add_again, lancedb, qdrant
from tests.helpers.references import TOLERANCE


@pytest.fixture(scope="module")
def embeddings() -> GMEEmbeddings:
    return GMEEmbeddings(model="tiny", model_kwargs={"device": "cpu"})


@pytest.fixture
def memory(embeddings: GMEEmbeddings) -> InMemoryVectorStore:
    return InMemoryVectorStore(embeddings)


@pytest.fixture
def store(memory: InMemoryVectorStore) -> MultimodalStore:
    return MultimodalStore(memory)


@pytest.fixture
def documents(gallery: Gallery) -> list[Document]:
    """Every picture, the heart with its caption, and a text."""
    pictures = [
        Document(CAPTIONS[HEART] if number == HEART else "", metadata={"image": str(path), "number": number})
        for number, path in enumerate(gallery.paths)
    ]
    return [*pictures, Document("two small black crosses", metadata={"number": len(pictures)})]


@pytest.fixture
def filled(store: MultimodalStore, documents: list[Document]) -> MultimodalStore:
    store.add_documents(documents)
    return store


def encode(model: SentenceTransformer, documents: list[Document]) -> np.ndarray:
    """The embeddings of documents with their pictures, by the model alone."""
    items = [{"text": each.page_content or None, "image": each.metadata.get("image")} for each in documents]
    return model.encode_document(items)


def rows_of(store: VectorStore) -> list[dict[str, Any]]:
    memory: Any = store.store if isinstance(store, MultimodalStore) else store
    return list(memory.store.values())


def records() -> InMemoryRecordManager:
    manager = InMemoryRecordManager("pictures")
    manager.create_schema()
    return manager


def numbers(documents: list[Document]) -> list[int]:
    return [document.metadata["number"] for document in documents]


def columns_of(documents: list[Document]) -> tuple[list[str], list[dict[str, Any]]]:
    return [each.page_content for each in documents], [each.metadata for each in documents]


def by_index(store: MultimodalStore, documents: list[Document]) -> None:
    assert index(documents, records(), store, cleanup="full", key_encoder="sha256")["num_added"] == len(documents)


def by_aindex(store: MultimodalStore, documents: list[Document]) -> None:
    added = asyncio.run(aindex(documents, records(), store, cleanup="full", key_encoder="sha256"))
    assert added["num_added"] == len(documents)


def by_update(store: MultimodalStore, documents: list[Document]) -> None:
    ids = [str(number) for number in range(len(documents))]
    store.add_documents([Document(f"to be replaced {each}") for each in ids], ids=ids)
    store.update_document(ids[0], documents[0])
    store.update_documents(ids[1:], documents[1:])


DOORS: dict[str, Callable[[MultimodalStore, list[Document]], Any]] = {
    "add_documents": lambda store, documents: store.add_documents(documents),
    "aadd_documents": lambda store, documents: asyncio.run(store.aadd_documents(documents)),
    "add_texts": lambda store, documents: store.add_texts(*columns_of(documents)),
    "aadd_texts": lambda store, documents: asyncio.run(store.aadd_texts(*columns_of(documents))),
    "from_documents": lambda store, documents: MultimodalStore.from_documents(
        documents, store.embeddings, store=store.store
    ),
    "the retriever": lambda store, documents: store.as_retriever().add_documents(documents),
    "a retriever over the store itself": lambda store, documents: MultimodalRetriever(
        vectorstore=store.store
    ).add_documents(documents),
    "add_multimodal": add_multimodal,
    "index": by_index,
    "aindex": by_aindex,
    "update_documents": by_update,
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_embeds_pictures(
    store: MultimodalStore, documents: list[Document], tiny: SentenceTransformer, door: str
) -> None:
    DOORS[door](store, documents)
    vectors = {row["metadata"]["number"]: row["vector"] for row in rows_of(store)}
    found = [vectors[number] for number in range(len(documents))]
    np.testing.assert_allclose(found, encode(tiny, documents), atol=TOLERANCE)
    assert len(vectors) == len(rows_of(store)) == len(documents)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_store_can_be_made_of_documents(
    embeddings: GMEEmbeddings, documents: list[Document], tiny: SentenceTransformer, is_async: bool
) -> None:
    made = (
        asyncio.run(MultimodalStore.afrom_documents(documents, embeddings))
        if is_async
        else MultimodalStore.from_documents(documents, embeddings)
    )
    found = [row["vector"] for row in rows_of(made)]
    np.testing.assert_allclose(found, encode(tiny, documents), atol=TOLERANCE)


def test_a_store_that_embeds_a_text_of_its_own_when_it_is_made_is_filled_too(
    embeddings: GMEEmbeddings, documents: list[Document]
) -> None:
    from langchain_qdrant import QdrantVectorStore

    where = {"location": ":memory:", "collection_name": "pictures"}
    made = MultimodalStore.from_documents(documents, embeddings, store=QdrantVectorStore, **where)
    assert numbers(made.similarity_search(CAPTIONS[STAR], k=1)) == [STAR]


def test_a_store_made_of_nothing_is_empty(embeddings: GMEEmbeddings) -> None:
    assert MultimodalStore.from_documents([], embeddings).similarity_search("a") == []


def test_making_a_store_needs_its_own_embeddings(store: MultimodalStore, documents: list[Document]) -> None:
    other = GMEEmbeddings(model=store.embeddings.client)
    with pytest.raises(ValueError, match="The store has other embeddings"):
        MultimodalStore.from_documents(documents, other, store=store.store)
    with pytest.raises(TypeError, match="of type FakeEmbeddings; make the store with GMEEmbeddings"):
        MultimodalStore.from_documents(documents, FakeEmbeddings(size=3))
    with pytest.raises(TypeError, match="A store of type str"):
        MultimodalStore("pictures")  # type: ignore[arg-type]


def test_plain_doors_warn_of_pictures_that_they_leave_out(
    memory: InMemoryVectorStore, documents: list[Document]
) -> None:
    with pytest.warns(UserWarning, match=r"4 of 6 texts are empty.*MultimodalStore\(store\)") as warned:
        memory.add_documents(documents)
    assert len(warned) == 1
    with pytest.warns(UserWarning, match="1 of 1 texts are empty"):
        asyncio.run(memory.embeddings.aembed_documents([" "]))


def test_a_changed_picture_is_a_changed_document(
    store: MultimodalStore, gallery: Gallery, tiny: SentenceTransformer, tmp_path: Path
) -> None:
    path = tmp_path / "picture.png"
    kept = Document("", metadata={"image": str(gallery.paths[HEART]), "source": "b"})
    document = Document("", metadata={"image": str(path), "source": "a"})
    manager = records()

    def run() -> dict[str, Any]:
        options: dict[str, Any] = {"cleanup": "incremental", "source_id_key": "source", "key_encoder": "sha256"}
        return dict(index(identify_images([document, kept]), manager, store, **options))

    path.write_bytes(gallery.paths[RED_CIRCLE].read_bytes())
    assert run() == {"num_added": 2, "num_updated": 0, "num_skipped": 0, "num_deleted": 0}
    assert run() == {"num_added": 0, "num_updated": 0, "num_skipped": 2, "num_deleted": 0}
    path.write_bytes(gallery.paths[STAR].read_bytes())
    assert run() == {"num_added": 1, "num_updated": 0, "num_skipped": 1, "num_deleted": 1}
    (found,) = store.similarity_search(CAPTIONS[STAR], k=1)
    assert found.metadata["image"] == str(path)
    vectors = {row["metadata"]["source"]: row["vector"] for row in rows_of(store)}
    np.testing.assert_allclose(vectors["a"], tiny.encode_document([path])[0], atol=TOLERANCE)


@pytest.mark.parametrize("door", [by_index, by_aindex])
def test_an_index_that_would_not_notice_a_changed_picture_is_told_once(
    store: MultimodalStore, documents: list[Document], caplog: pytest.LogCaptureFixture, door: Callable[..., None]
) -> None:
    for _ in range(2):
        door(store, documents)
    assert [record.getMessage().rpartition("Pass it ")[2] for record in caplog.records] == [
        "langchain_gme.identify_images(documents)."
    ]
    caplog.clear()
    door(MultimodalStore(store), identify_images(documents))
    MultimodalStore(store).add_documents(documents)
    assert caplog.records == []


def test_documents_are_identified_by_all_of_their_pictures(gallery: Gallery) -> None:
    red, star = (str(gallery.paths[number]) for number in (RED_CIRCLE, STAR))
    images = [red, star, [red, star], [star, red], "http://a.invalid/a.png", gallery.paths[RED_CIRCLE].read_bytes()]
    documents = [Document("", metadata={"image": image}) for image in images]
    identities = [each.metadata["image_sha256"] for each in identify_images(iter(documents))]
    assert len(set(identities)) == 5
    assert identities[0] == identities[5]
    text = Document("a")
    assert identify_images([text])[0] is text
    with pytest.raises(ImageError, match="item 1: /dev/zero: not a regular file"):
        identify_images([text, Document("", metadata={"image": "/dev/zero"})])


@pytest.mark.parametrize("name", [name for name in STORES if (name, add_again) not in EXCEPTIONS])
def test_what_is_added_twice_is_one_row(
    name: str, embeddings: GMEEmbeddings, documents: list[Document], gallery: Gallery, request: pytest.FixtureRequest
) -> None:
    store = STORES[name](embeddings, request)[0]
    ids = add_multimodal(store, documents)
    assert add_multimodal(store, documents) == ids
    if name != "PGVector":  # which is made for one kind of call
        assert asyncio.run(aadd_multimodal(store, documents)) == ids
    assert add_multimodal(store, [documents[STAR], documents[STAR]]) == [ids[STAR]] * 2
    found = MultimodalStore(store).similarity_search(
        {"image": gallery.query}, k=6, **({"fetch_k": 20} if name == "FAISS" else {})
    )
    assert sorted(numbers(found)) == list(range(len(documents)))


def test_an_id_is_made_of_the_text_the_picture_and_the_metadata(
    store: MultimodalStore, gallery: Gallery, tmp_path: Path
) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(gallery.paths[RED_CIRCLE].read_bytes())
    item = {"image": path, "text": "a"}
    ids = add_multimodal(store, [item, {"image": path}, {"text": "a"}, item], [{}, {}, {}, {"page": 1}])
    assert add_multimodal(store, [{"text": "a", "image": str(path)}]) == ids[:1]
    path.write_bytes(gallery.paths[STAR].read_bytes())
    ids += add_multimodal(store, [item])
    assert len(set(ids)) == 5


def test_an_id_given_twice_is_refused_before_anything_is_written(store: MultimodalStore) -> None:
    with pytest.raises(InputError, match="item 2: its id 'a' is that of item 0 too"):
        add_multimodal(store, ["x", "y", "z"], ids=["a", "b", "a"])
    assert rows_of(store) == []


def test_an_item_keeps_all_of_its_images(
    memory: InMemoryVectorStore, store: MultimodalStore, gallery: Gallery, tiny: SentenceTransformer
) -> None:
    images = [str(gallery.paths[RED_CIRCLE]), str(gallery.paths[STAR])]
    expected = tiny.encode_document([{"text": "two", "image": images}])[0]
    add_multimodal(store, [{"text": "two", "image": images}], ids=["a"])
    (found,) = store.get_by_ids(["a"])
    assert found.metadata == {"image": images}
    (plain,) = memory.get_by_ids(["a"])
    again = store.embeddings.embed_multimodal([found, plain])
    np.testing.assert_allclose(again, [expected, expected], atol=TOLERANCE)
    store.add_documents([found])
    np.testing.assert_allclose([row["vector"] for row in rows_of(store)], [expected], atol=TOLERANCE)


def test_a_store_whose_columns_are_those_of_its_first_row_keeps_pictures(
    embeddings: GMEEmbeddings, gallery: Gallery, request: pytest.FixtureRequest
) -> None:
    store = MultimodalStore(lancedb(embeddings, request)[0])
    store.add_documents([Document("a text")])
    store.add_documents([Document("", metadata={"image": str(gallery.paths[STAR])})])
    (found,) = store.similarity_search({"image": gallery.paths[STAR]}, k=1)
    assert found.metadata["image"] == str(gallery.paths[STAR])


def test_documents_come_back_with_their_own_metadata(store: MultimodalStore, gallery: Gallery) -> None:
    path = gallery.paths[STAR]
    metadatas: list[dict[str, Any]] = [
        {},
        {"image": str(path)},
        {"image_path": str(path), "page": 1},
        {"image_url": {"url": path.as_uri()}},
        {"image": f"data:image/png;base64,{gallery.base64(STAR)}"},
        {"image": path.read_bytes(), "page": 2},
        {"image": path},
        {"image": None, "page": 3},
    ]
    store.add_documents([Document("a", metadata=each) for each in metadatas], ids=list("abcdefgh"))
    found = [{**document.metadata} for document in store.get_by_ids(list("abcdefgh"))]
    assert found == [
        {},
        metadatas[1],
        {**metadatas[2], "image": str(path)},
        {**metadatas[3], "image": path.as_uri()},
        metadatas[4],
        {"page": 2},
        {"image": str(path)},
        {"page": 3},
    ]


@pytest.mark.parametrize("is_async", [False, True])
def test_precomputed_embeddings_are_stored_as_they_are(
    store: MultimodalStore, documents: list[Document], is_async: bool
) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(documents), 128)).astype(np.float32)
    if is_async:
        asyncio.run(aadd_multimodal(store, documents, embeddings=vectors))
    else:
        add_multimodal(store, documents, embeddings=vectors.tolist())
    np.testing.assert_array_equal([row["vector"] for row in rows_of(store)], vectors)


@pytest.mark.parametrize(
    ("vectors", "problem"),
    [
        ([[0.0] * 128], r"embeddings: of shape \(1, 128\) for 2 items"),
        ([[0.0] * 3] * 2, "embeddings: of dimension 3, where the store's model has 128"),
        ([[0.0] * 128, [float("nan")] * 128], r"embeddings\[1\]: it has values that are not finite"),
        ([[0.0], [0.0, 1.0]], "embeddings: no array of numbers"),
        (["a", "b"], "embeddings: no array of numbers"),
    ],
)
def test_precomputed_embeddings_that_do_not_fit_are_refused(store: MultimodalStore, vectors: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        add_multimodal(store, ["a", "b"], embeddings=vectors)
    assert rows_of(store) == []


@pytest.mark.parametrize("is_async", [False, True])
def test_bad_items_are_listed_and_the_others_stored(
    embeddings: GMEEmbeddings,
    gallery: Gallery,
    tiny: SentenceTransformer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    is_async: bool,
) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(gallery.paths[STAR].read_bytes()[:-100])
    good = [{"image": gallery.paths[STAR]}, "a text", Document("", metadata={"image": str(gallery.query)})]
    items = [None, good[0], {"image": "missing.png"}, good[1], {"image": torn}, Document(""), good[2], [3]]
    skipping = MultimodalStore(InMemoryVectorStore(embeddings), on_error="skip")
    with caplog.at_level(logging.WARNING, "langchain_gme"):
        ids = asyncio.run(skipping.aadd_items(items)) if is_async else skipping.add_items(items)
    vectors = {row["id"]: row["vector"] for row in rows_of(skipping)}
    expected = tiny.encode_document([{"image": gallery.paths[STAR]}, {"text": "a text"}, {"image": gallery.query}])
    np.testing.assert_allclose([vectors[each] for each in ids], expected, atol=TOLERANCE)
    (record,) = caplog.records
    first, *lines = record.getMessage().splitlines()
    assert first == "5 of 8 items cannot be embedded and were left out:"
    assert [line.partition(":")[0].partition(",")[0] for line in lines] == [f"item {n}" for n in (0, 2, 4, 5, 7)]


def test_skipping_can_be_asked_of_one_call(store: MultimodalStore, caplog: pytest.LogCaptureFixture) -> None:
    items = ["a", {"image": "missing.png"}]
    assert len(add_multimodal(store.store, items, [{"n": 1}, {"n": 2}], on_error="skip")) == 1
    assert [row["metadata"]["n"] for row in rows_of(store)] == [1]
    assert "item 1: missing.png" in caplog.text
    with pytest.raises(InputError, match=r"item 1: missing\.png"):
        store.add_items(items)
    with pytest.raises(ValueError, match='on_error=\'ignore\'; pass "raise" or "skip"'):
        store.add_items(items, on_error="ignore")  # type: ignore[arg-type]


def test_rows_are_written_in_batches_after_all_are_embedded(
    store: MultimodalStore, memory: InMemoryVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    write = memory.add_documents
    monkeypatch.setattr(
        memory,
        "add_documents",
        lambda documents, **options: sizes.append(len(documents)) or write(documents, **options),
    )
    ids = add_multimodal(store, [f"text {number}" for number in range(7)], batch_size=3)
    assert sizes == [3, 3, 1]
    assert list(memory.store) == ids
    with pytest.raises(InputError, match="item 7"):
        add_multimodal(store, [*(f"other {number}" for number in range(7)), {"image": "missing.png"}], batch_size=3)
    assert sizes == [3, 3, 1]
    with pytest.raises(ValueError, match="batch_size=0"):
        add_multimodal(store, ["a"], batch_size=0)


class EmbedsInThreads(InMemoryVectorStore):
    """A store that embeds in threads of its own."""

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda each: self.embeddings.embed_documents([each.page_content]), documents))
        return super().add_documents(documents, ids, **kwargs)

    async def aadd_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        return self.add_documents(documents, ids, **kwargs)


class KeepsOneRowATextAlone(InMemoryVectorStore):
    """A store whose ids are a hash of the text, whatever ids it is given."""

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        return super().add_documents(documents, [f"text {each.page_content}" for each in documents])

    async def aadd_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        return self.add_documents(documents, ids, **kwargs)


@pytest.mark.parametrize("store_class", [EmbedsInThreads, KeepsOneRowATextAlone])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_store_that_would_mix_pictures_up_is_refused_and_left_empty(
    embeddings: GMEEmbeddings, documents: list[Document], store_class: type[InMemoryVectorStore], is_async: bool
) -> None:
    store = store_class(embeddings)
    with pytest.raises(RuntimeError, match="from another thread|kept 3 rows of 6"):
        _ = asyncio.run(aadd_multimodal(store, documents)) if is_async else add_multimodal(store, documents)
    assert store.store == {}


def test_queries_and_scores_are_those_of_the_model(
    filled: MultimodalStore, documents: list[Document], tiny: SentenceTransformer, gallery: Gallery
) -> None:
    query: Any = {"text": CHANGE, "image": gallery.query}
    scores = encode(tiny, documents) @ tiny.encode_query(query)
    order = np.argsort(-scores)
    cosines = filled.similarity_search_with_score(query, k=6)
    relevances = filled.similarity_search_with_relevance_scores(query, k=6)
    for found, expected in ((cosines, scores), (relevances, scores.clip(0, 1))):
        assert numbers([document for document, _ in found]) == order.tolist()
        np.testing.assert_allclose([score for _, score in found], expected[order], atol=TOLERANCE)
    for method in (filled.asimilarity_search_with_score, filled.asimilarity_search_with_relevance_scores):
        assert numbers([document for document, _ in asyncio.run(method(query, k=6))]) == order.tolist()
    threshold = float(scores[order[2]]) - 1e-4
    options: dict[str, Any] = {"search_type": "similarity_score_threshold", "with_scores": True}
    retriever = filled.as_retriever(**options, search_kwargs={"k": 6, "score_threshold": threshold})
    for within in (retriever.invoke(query), asyncio.run(retriever.ainvoke(query))):
        assert numbers(within) == order[:3].tolist()
        np.testing.assert_allclose([each.metadata["score"] for each in within], scores[order[:3]], atol=TOLERANCE)


def test_a_retriever_takes_arguments_at_run_time(filled: MultimodalStore, gallery: Gallery) -> None:
    retriever = MultimodalRetriever(vectorstore=filled.store, k=5)
    assert len(retriever.invoke("a")) == 5
    assert numbers(retriever.invoke({"image": gallery.query}, k=1)) == [RED_CIRCLE]
    only: dict[str, Any] = {"filter": lambda document: document.metadata["number"] == STAR}
    assert numbers(retriever.invoke(gallery.query, **only)) == [STAR]
    assert numbers(asyncio.run(retriever.ainvoke(gallery.query, **only))) == [STAR]
    scored = MultimodalRetriever(vectorstore=filled, with_scores=True, search_kwargs={"k": 2})
    assert [sorted(each.metadata) for each in scored.invoke("a", k=1)] == [["image", "number", "score"]]
    assert len(asyncio.run(scored.ainvoke(gallery.query))) == 2
    with pytest.raises(ValueError, match="has no scores"):
        MultimodalRetriever(vectorstore=filled, search_type="mmr", with_scores=True)


def test_every_search_takes_a_picture(filled: MultimodalStore, gallery: Gallery) -> None:
    query = {"text": CHANGE, "image": gallery.query}
    vector = filled.embeddings.embed_query_multimodal(query)
    found = [
        filled.similarity_search(query, k=1),
        filled.search(query, "similarity", k=1),  # type: ignore[arg-type]
        filled.max_marginal_relevance_search(query, k=1),
        filled.similarity_search_by_vector(vector, k=1),
        filled.max_marginal_relevance_search_by_vector(vector, k=1),
        asyncio.run(filled.asimilarity_search(query, k=1)),
        asyncio.run(filled.amax_marginal_relevance_search(query, k=1)),
        asyncio.run(filled.asimilarity_search_by_vector(vector, k=1)),
        asyncio.run(filled.amax_marginal_relevance_search_by_vector(vector, k=1)),
        filled.as_retriever(search_type="mmr", search_kwargs={"k": 1}).invoke(query),
    ]
    assert [numbers(each) for each in found] == [[BLUE_CIRCLE]] * len(found)


def test_a_store_without_a_search_by_vector_takes_pictures(
    embeddings: GMEEmbeddings, documents: list[Document], gallery: Gallery
) -> None:
    from langchain_community.vectorstores import SKLearnVectorStore

    store = SKLearnVectorStore(embeddings)
    add_multimodal(store, documents)
    retriever = MultimodalRetriever(vectorstore=store, k=1)
    assert numbers(retriever.invoke({"text": CHANGE, "image": gallery.query})) == [BLUE_CIRCLE]
    assert numbers(asyncio.run(retriever.ainvoke(gallery.query))) == [RED_CIRCLE]


class Nameless(InMemoryVectorStore):
    """A store that does not say what its embeddings are."""

    @property
    def embeddings(self) -> Embeddings:
        return None  # type: ignore[return-value]


def test_a_store_that_does_not_say_its_embeddings_is_told(
    embeddings: GMEEmbeddings, documents: list[Document], gallery: Gallery
) -> None:
    plain = Nameless(embeddings)
    with pytest.raises(TypeError, match=r"does not say what its embeddings are.*embeddings=embeddings"):
        MultimodalStore(plain)
    store = MultimodalStore(plain, embeddings=embeddings)
    store.add_documents(documents)
    assert numbers(store.similarity_search(gallery.query, k=1)) == [RED_CIRCLE]


def test_a_store_with_a_cache_is_searched_by_vector_alone(embeddings: GMEEmbeddings, gallery: Gallery) -> None:
    cached = CacheBackedEmbeddings.from_bytes_store(embeddings, InMemoryByteStore(), key_encoder="sha256")
    plain = InMemoryVectorStore(cached)
    plain.add_texts(list(CAPTIONS), [{"number": number} for number in range(len(CAPTIONS))])
    store = MultimodalStore(plain, embeddings=embeddings)
    assert numbers(store.similarity_search(gallery.query, k=1)) == [RED_CIRCLE]
    assert numbers(asyncio.run(store.asimilarity_search(gallery.query, k=1))) == [RED_CIRCLE]
    with pytest.raises(NotImplementedError, match="similarity_search_with_score needs a store whose embeddings"):
        store.similarity_search_with_score(gallery.query)
    with pytest.raises(TypeError, match="A cache around them would keep images under their text"):
        store.add_texts(["a"])


class Silent(InMemoryVectorStore):
    """A store that searches without asking for the embedding of a query, or has no search at all."""

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return []

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        raise NotImplementedError

    def max_marginal_relevance_search(self, query: str, *args: Any, **kwargs: Any) -> list[Document]:
        self.embeddings.embed_query(f"- {query}")
        return []


def test_a_store_that_does_not_embed_the_query_is_an_error(embeddings: GMEEmbeddings, gallery: Gallery) -> None:
    store = MultimodalStore(Silent(embeddings))
    with pytest.raises(RuntimeError, match="did not ask for the embedding of the query"):
        store.similarity_search(gallery.query)
    with pytest.raises(RuntimeError, match="embeds another text than the query's"):
        store.max_marginal_relevance_search(gallery.query)
    with pytest.raises(NotImplementedError, match="Silent does not implement what similarity_search_with_score needs"):
        store.similarity_search_with_score(gallery.query)


def test_ids_of_any_kind_work_where_the_store_takes_uuids_alone(
    embeddings: GMEEmbeddings, documents: list[Document], request: pytest.FixtureRequest
) -> None:
    store = MultimodalStore(qdrant(embeddings, request)[0])
    ids = [f"page {number}" for number in range(len(documents))]
    assert store.add_documents(documents, ids=ids) == ids
    (found,) = store.get_by_ids(ids[STAR : STAR + 1])
    assert (found.id, found.metadata) == (ids[STAR], documents[STAR].metadata)
    assert store.similarity_search(CAPTIONS[STAR], k=1)[0].id == ids[STAR]
    store.delete(ids[:-1])
    assert [document.id for document in store.similarity_search("a", k=9)] == ids[-1:]


def test_a_prompt_is_a_query(filled: MultimodalStore, gallery: Gallery) -> None:
    retriever: Any = filled.as_retriever(search_kwargs={"k": 1})
    image = {"type": "image", "base64": "{image}", "mime_type": "image/png"}
    prompt = ChatPromptTemplate.from_messages([("human", [image, {"type": "text", "text": "{change}"}])])
    values = {"image": base64.b64encode(gallery.query.read_bytes()).decode(), "change": CHANGE}
    assert numbers((prompt | retriever).invoke(values)) == [BLUE_CIRCLE]
    assert numbers((ChatPromptTemplate.from_template("{text}") | retriever).invoke({"text": CAPTIONS[STAR]})) == [STAR]


def test_an_ensemble_tells_pictures_apart_by_a_key(filled: MultimodalStore, gallery: Gallery) -> None:
    retriever = filled.as_retriever(search_kwargs={"k": 6})
    make: Any = EnsembleRetriever  # pyright takes its default weights for missing
    ensemble = make(retrievers=[retriever, retriever], id_key="number")
    assert numbers(ensemble.invoke(gallery.query)) == numbers(retriever.invoke(gallery.query))
    # What it does without one: documents of the same text are one.
    assert len(make(retrievers=[retriever, retriever]).invoke("a")) == 3


def test_a_multi_vector_retriever_finds_parents_by_pictures(store: MultimodalStore, gallery: Gallery) -> None:
    parents: InMemoryStore = InMemoryStore()
    retriever = MultiVectorRetriever(vectorstore=store, docstore=parents, search_kwargs={"k": 1})
    pictures = [Document("", metadata={"image": str(path), "doc_id": path.name}) for path in gallery.paths]
    retriever.vectorstore.add_documents(pictures)
    parents.mset([(path.name, Document(caption)) for path, caption in zip(gallery.paths, CAPTIONS, strict=True)])
    assert [each.page_content for each in retriever.invoke(CAPTIONS[STAR])] == [CAPTIONS[STAR]]
    query: Any = {"image": gallery.query, "text": CHANGE}
    assert [each.page_content for each in retriever.invoke(query)] == [CAPTIONS[BLUE_CIRCLE]]


class KeepPictures(RecursiveCharacterTextSplitter):
    """As in docs/langchain.md: a document without a text is one chunk, and not none."""

    def split_text(self, text: str) -> list[str]:
        return super().split_text(text) or [text]


def test_a_parent_document_retriever_keeps_pictures_with_every_chunk(
    store: MultimodalStore, gallery: Gallery, documents: list[Document], tiny: SentenceTransformer
) -> None:
    splitter = KeepPictures(chunk_size=20, chunk_overlap=0)
    retriever = ParentDocumentRetriever(vectorstore=store, docstore=InMemoryStore(), child_splitter=splitter)
    retriever.search_kwargs = {"k": 1}
    retriever.add_documents(documents)
    assert numbers(retriever.invoke(CAPTIONS[STAR])) == [STAR]
    query: Any = gallery.query
    assert numbers(retriever.invoke(query)) == [RED_CIRCLE]
    chunks = [row for row in rows_of(store) if row["metadata"]["number"] == HEART]
    assert len(chunks) == len(splitter.split_text(CAPTIONS[HEART])) > 1
    for chunk in chunks:
        expected = tiny.encode_document([{"text": chunk["text"], "image": gallery.paths[HEART]}])[0]
        np.testing.assert_allclose(chunk["vector"], expected, atol=TOLERANCE)
