"""``MultimodalStore`` and ``MultimodalRetriever``: pictures through LangChain's own doors, right or refused."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.retrievers import EnsembleRetriever, MultiVectorRetriever, ParentDocumentRetriever
from langchain_community.document_transformers import EmbeddingsRedundantFilter
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings, FakeEmbeddings
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.stores import InMemoryByteStore, InMemoryStore
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_text_splitters import RecursiveCharacterTextSplitter

from langchain_gme import (
    GMEEmbeddings,
    MultimodalFilter,
    MultimodalRetriever,
    MultimodalStore,
    aadd_multimodal,
    add_multimodal,
    identify_images,
    to_content_blocks,
)
from st_modules import ImageError, InputError, SentenceTransformer
from tests.helpers.gallery import BLUE_CIRCLE, CAPTIONS, CHANGE, HEART, RED_CIRCLE, STAR, Gallery
from tests.helpers.langchain_stores import EXCEPTIONS, STORES, add_again, lancedb, qdrant
from tests.helpers.references import TOLERANCE


@pytest.fixture(scope="module")
def embeddings() -> GMEEmbeddings:
    return GMEEmbeddings(model="tiny", model_kwargs={"device": "cpu"})


@pytest.fixture(scope="module", params=["local", "remote"])
def owner(request: pytest.FixtureRequest, embeddings: GMEEmbeddings) -> GMEEmbeddings:
    """Embeddings of the model in this process, or in a server."""
    if request.param == "local":
        return embeddings
    return GMEEmbeddings(base_url=request.getfixturevalue("tiny_url"))


@pytest.fixture
def memory(owner: GMEEmbeddings) -> InMemoryVectorStore:
    return InMemoryVectorStore(owner)


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


def test_making_a_store_needs_its_own_embeddings(
    store: MultimodalStore, documents: list[Document], tiny: SentenceTransformer
) -> None:
    other = GMEEmbeddings(model=tiny)
    with pytest.raises(ValueError, match="The store has other embeddings"):
        MultimodalStore.from_documents(documents, other, store=store.store)
    with pytest.raises(TypeError, match="of type FakeEmbeddings; make the store with GMEEmbeddings"):
        MultimodalStore.from_documents(documents, FakeEmbeddings(size=3))
    for wrong in ("pictures", InMemoryVectorStore):
        with pytest.raises(TypeError, match=r"pass a store of LangChain's"):
            MultimodalStore(wrong)  # type: ignore[arg-type]
    for wrong in ("chroma", str, None):
        with pytest.raises(TypeError, match=r"pass a store of LangChain's, or the class of one"):
            MultimodalStore.from_documents(documents, store.embeddings, store=wrong)


def test_plain_doors_warn_of_pictures_that_they_leave_out(
    memory: InMemoryVectorStore, documents: list[Document]
) -> None:
    texts, metadatas = columns_of(documents[HEART:])
    doors: list[Callable[[], Any]] = [
        lambda: memory.add_documents(documents),
        lambda: asyncio.run(memory.aadd_documents(documents)),
        lambda: InMemoryVectorStore.from_documents(documents, memory.embeddings),
        lambda: memory.add_texts(texts, metadatas),
        lambda: memory.as_retriever().add_documents(documents),
        lambda: index(documents, records(), memory, key_encoder="sha256"),
        lambda: EmbeddingsRedundantFilter(embeddings=memory.embeddings).transform_documents(documents),
    ]
    for door in doors:
        with pytest.warns(UserWarning, match=r"documents have pictures, which are left out.*MultimodalStore") as warned:
            door()
        assert len(warned) == 1
    with pytest.warns(UserWarning, match="1 of 1 texts are empty"):
        asyncio.run(memory.embeddings.aembed_documents([" "]))
    memory.add_documents([Document("a text", metadata={"image": "", "image_url": None, "page": 1})])
    memory.embeddings.embed_documents(["a text"])


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
    assert identify_images([text])[0].metadata == {"image_sha256": ""}
    assert text.metadata == {}
    with pytest.raises(ImageError, match="item 1: /dev/zero: not a regular file"):
        identify_images([text, Document("", metadata={"image": "/dev/zero"})])


@pytest.mark.parametrize("name", ["InMemoryVectorStore", "Chroma", "FAISS", "Qdrant", "LanceDB"])
async def test_deleting_what_is_not_there_is_no_error(
    name: str, embeddings: GMEEmbeddings, documents: list[Document], request: pytest.FixtureRequest
) -> None:
    store = MultimodalStore(STORES[name](embeddings, request)[0])
    ids = store.add_documents(documents)
    unknown = "6f5c1a35-7c3f-4d3b-9d6c-0e3f6c1d2a4b"
    assert store.delete([unknown]) is not False
    assert await store.adelete([unknown, ids[0]]) is not False
    assert len(store.similarity_search("a", k=9)) == len(documents) - 1


def test_a_picture_that_cannot_be_identified_is_left_to_the_store(
    store: MultimodalStore, documents: list[Document], caplog: pytest.LogCaptureFixture
) -> None:
    bad = Document("", metadata={"image": "missing.png"})
    with pytest.raises(ImageError, match=r"item 6: missing\.png"):
        identify_images([*documents, bad])
    skipping = MultimodalStore(store, on_error="skip")
    identified = identify_images([*documents, bad], on_error="skip")
    assert [len(each.metadata["image_sha256"]) for each in identified] == [*[64] * 5, 0, 0]
    index(identified, records(), skipping, key_encoder="sha256")
    assert len(rows_of(store)) == len(documents)
    assert re.search(r"item 6, document [0-9a-f]{64}: missing\.png", caplog.text)


@pytest.mark.parametrize("wrong", [Document("a"), "a", ["a"], [Path("a.png")]], ids=repr)
def test_what_is_no_document_is_named(embeddings: GMEEmbeddings, wrong: Any) -> None:
    for take in (identify_images, to_content_blocks, lambda each: MultimodalStore.from_documents(each, embeddings)):
        with pytest.raises(InputError, match=r"documents(\[0\])?: of type \w+; pass a (list|Document)"):
            take(wrong)


def test_an_argument_of_the_retriever_among_those_of_the_search_is_refused(store: MultimodalStore) -> None:
    with pytest.raises(ValueError, match="with_scores is an argument of the retriever"):
        store.as_retriever(search_kwargs={"with_scores": True})


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
        {"image_url": path.as_uri(), "image": path.as_uri()},
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
    items = [Document(""), good[0], {"image": "missing.png"}, good[1], {"image": torn}, None, good[2], [3]]
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


MISSING = [Document("a text", id="SKU-1"), Document("", id="SKU-2", metadata={"image": "missing.png"})]
NAMED = r"item 1, document SKU-2: missing\.png: no such file"


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("by_ids", [False, True])
def test_a_document_that_cannot_be_embedded_is_named_by_its_id(
    store: MultimodalStore, caplog: pytest.LogCaptureFixture, is_async: bool, by_ids: bool
) -> None:
    items: list[Any] = ["a text", {"image": "missing.png"}] if by_ids else MISSING
    ids = ["SKU-1", "SKU-2"] if by_ids else None

    def add(on_error: Any) -> list[str]:
        call = store.aadd_items(items, ids=ids, on_error=on_error) if is_async else None
        return asyncio.run(call) if call else store.add_items(items, ids=ids, on_error=on_error)

    with pytest.raises(InputError, match=f"^{NAMED}") as caught:
        add("raise")
    assert caught.value.index == 1
    with caplog.at_level(logging.WARNING, "langchain_gme"):
        assert add("skip") == ["SKU-1"]
    assert re.search(NAMED, caplog.text)


@pytest.mark.parametrize(
    "embed",
    [
        lambda owner: owner.embed_multimodal(MISSING),
        lambda owner: asyncio.run(owner.aembed_multimodal(MISSING)),
        lambda owner: MultimodalFilter(embeddings=owner).compress_documents(MISSING, "a text"),
        lambda owner: identify_images(MISSING),
        lambda owner: MultimodalStore.from_documents(MISSING, owner),
    ],
    ids=["embed", "aembed", "filter", "identify", "from_documents"],
)
def test_every_door_names_a_document_by_its_id(owner: GMEEmbeddings, embed: Callable[[GMEEmbeddings], object]) -> None:
    with pytest.raises(InputError, match=f"^{NAMED}"):
        embed(owner)


def test_a_document_with_nothing_in_it_is_named_by_its_id(owner: GMEEmbeddings) -> None:
    with pytest.raises(InputError, match="^item 1, document SKU-2: a Document with neither text nor image"):
        owner.embed_multimodal(["a text", Document("", id="SKU-2")])


def test_skipping_can_be_asked_of_one_call(store: MultimodalStore, caplog: pytest.LogCaptureFixture) -> None:
    items = ["a", {"image": "missing.png"}]
    assert len(add_multimodal(store.store, items, [{"n": 1}, {"n": 2}], on_error="skip")) == 1
    assert [row["metadata"]["n"] for row in rows_of(store)] == [1]
    assert "item 1: missing.png" in caplog.text
    with pytest.raises(InputError, match=r"item 1: missing\.png"):
        store.add_items(items)
    with pytest.raises(ValueError, match='on_error=\'ignore\'; pass "raise" or "skip"'):
        store.add_items(items, on_error="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("shows", [False, True])
def test_a_long_list_has_a_progress_bar(
    tiny: SentenceTransformer, capsys: pytest.CaptureFixture[str], shows: bool
) -> None:
    store = InMemoryVectorStore(GMEEmbeddings(model=tiny, show_progress=shows))
    add_multimodal(store, [f"text {number}" for number in range(100)])
    assert ("100%" in capsys.readouterr().err) == shows


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


class EmbedsInAPool(EmbedsInThreads):
    """A store that hands the embeddings themselves to other threads."""

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.embeddings.embed_documents, [[each.page_content] for each in documents]))
        return InMemoryVectorStore.add_documents(self, documents, ids, **kwargs)


class KeepsOneRowATextAlone(InMemoryVectorStore):
    """A store whose ids are a hash of the text, whatever ids it is given."""

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        return super().add_documents(documents, [f"text {each.page_content}" for each in documents])

    async def aadd_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        return self.add_documents(documents, ids, **kwargs)


@pytest.mark.parametrize("store_class", [EmbedsInThreads, EmbedsInAPool, KeepsOneRowATextAlone])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_store_that_would_mix_pictures_up_is_refused_and_left_empty(
    embeddings: GMEEmbeddings, documents: list[Document], store_class: type[InMemoryVectorStore], is_async: bool
) -> None:
    store = store_class(embeddings)
    with pytest.raises(RuntimeError, match="embeds in threads of its own|kept 3 rows of 6"):
        _ = asyncio.run(aadd_multimodal(store, documents)) if is_async else add_multimodal(store, documents)
    assert store.store == {}


def test_a_store_with_one_row_a_text_is_refused_in_batches_and_when_it_is_made(
    embeddings: GMEEmbeddings, documents: list[Document]
) -> None:
    store = KeepsOneRowATextAlone(embeddings)
    with pytest.raises(RuntimeError, match=r"kept 2 rows of 3.*was deleted"):
        add_multimodal(store, ["of another batch", *documents], batch_size=1)
    assert store.store == {}
    with pytest.raises(RuntimeError, match="kept 0 rows of 6"):
        MultimodalStore.from_documents(documents, embeddings, store=KeepsOneRowATextAlone)


class EmbedsOneByOne(InMemoryVectorStore):
    """A store that embeds each text by itself."""

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        return [
            super(EmbedsOneByOne, self).add_documents([each], [key])[0]
            for each, key in zip(documents, ids or [], strict=True)
        ]


def test_what_was_written_is_deleted_where_a_store_wraps_the_error(
    embeddings: GMEEmbeddings, documents: list[Document]
) -> None:
    class Wraps(InMemoryVectorStore):
        def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
            try:
                self.embeddings.embed_documents(["another text"])
            except RuntimeError as error:
                raise ValueError("it failed") from error
            return []

    store = Wraps(embeddings)
    with pytest.raises(RuntimeError, match=r"embeds other texts than it was given.*was deleted"):
        add_multimodal(store, documents)


def test_a_store_that_embeds_equal_texts_one_by_one_is_told_how(
    embeddings: GMEEmbeddings, documents: list[Document], tiny: SentenceTransformer
) -> None:
    store = EmbedsOneByOne(embeddings)
    with pytest.raises(RuntimeError, match="Pass batch_size=1"):
        add_multimodal(store, documents)
    add_multimodal(store, documents, batch_size=1)
    np.testing.assert_allclose([row["vector"] for row in rows_of(store)], encode(tiny, documents), atol=TOLERANCE)


class Meets(InMemoryVectorStore):
    """A store that is met by others while it is being filled."""

    meeting: Callable[[], Any]

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        with ThreadPoolExecutor() as pool:
            self.met = pool.submit(self.meeting).result()
        return super().add_documents(documents, ids, **kwargs)


def test_others_may_embed_the_same_texts_meanwhile(
    embeddings: GMEEmbeddings, documents: list[Document], tiny: SentenceTransformer
) -> None:
    store = Meets(embeddings)
    text = documents[-1].page_content
    store.meeting = lambda: embeddings.embed_documents([text])
    add_multimodal(store, documents)
    np.testing.assert_allclose(store.met, tiny.encode_document([text]), atol=TOLERANCE)


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


@pytest.mark.parametrize("name", ["FAISS", "LanceDB"])
async def test_adding_at_once_what_is_there_leaves_one_row_each(
    name: str, embeddings: GMEEmbeddings, documents: list[Document], gallery: Gallery, request: pytest.FixtureRequest
) -> None:
    """In stores that do not replace rows, of which old ones are removed before new ones are written."""
    store = MultimodalStore(STORES[name](embeddings, request)[0])
    store.add_documents(documents)
    await asyncio.gather(*(store.aadd_documents(documents[: 1 + number % 6]) for number in range(6)))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda number: store.add_documents(documents[number:]), range(3)))
    found = store.similarity_search_with_score({"image": gallery.paths[STAR]}, k=20)
    assert sorted(numbers([document for document, _ in found])) == list(range(len(documents)))
    assert found[0][0].metadata["number"] == STAR


async def test_a_blocking_call_does_not_wait_for_one_of_its_own_event_loop(
    embeddings: GMEEmbeddings, documents: list[Document]
) -> None:
    class Waits(AppendsAlone):
        async def aadd_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
            with pytest.raises(RuntimeError, match="await aadd_documents"):
                store.add_documents(documents)
            return await super().aadd_documents(documents, **kwargs)

    store = MultimodalStore(Waits(embeddings))
    await store.aadd_documents(documents)
    assert len(rows_of(store)) == len(documents)


class AppendsAlone(VectorStore):
    """A store that keeps what it is given, and cannot delete all of some rows."""

    def __init__(self, embedding: GMEEmbeddings) -> None:
        self.embedding = embedding
        self.store: dict[int, dict[str, Any]] = {}
        self.fails = False

    @property
    def embeddings(self) -> Embeddings:
        return self.embedding

    def add_texts(self, texts: Any, metadatas: Any = None, *, ids: Any = None, **kwargs: Any) -> list[str]:
        if self.fails:
            raise ConnectionError("it is gone")
        vectors = self.embedding.embed_documents(texts)
        for text, metadata, key, vector in zip(texts, metadatas, ids, vectors, strict=True):
            self.store[len(self.store)] = {"id": key, "vector": vector, "text": text, "metadata": metadata}
        return ids

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        for each in ids or []:
            places = [place for place, row in self.store.items() if row["id"] == each]
            if not places:
                raise KeyError(each)
            for place in places:
                del self.store[place]
        return True

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return []

    @classmethod
    def from_texts(cls, texts: Any, embedding: Any, metadatas: Any = None, *, ids: Any = None, **kwargs: Any) -> Any:
        made = cls(embedding)
        made.add_texts(texts, metadatas, ids=ids)
        return made


def test_rows_are_replaced_one_by_one_where_a_store_fails_at_those_that_it_has_not(
    embeddings: GMEEmbeddings, documents: list[Document]
) -> None:
    store = MultimodalStore(AppendsAlone(embeddings))
    store.add_documents(documents[:2])
    store.add_documents(documents[2::-1])
    assert [row["metadata"]["number"] for row in rows_of(store)] == [2, 1, 0]


def test_a_store_that_replaces_rows_keeps_the_old_one_where_it_refuses_the_new_one(
    embeddings: GMEEmbeddings, gallery: Gallery, request: pytest.FixtureRequest
) -> None:
    store = MultimodalStore(STORES["Chroma"](embeddings, request)[0])
    path = str(gallery.paths[STAR])
    store.add_documents([Document("old", metadata={"image": path})], ids=["a"])
    with pytest.raises(ValueError, match="nested|metadata"):
        store.add_documents([Document("new", metadata={"image": path, "nested": {"a": 1}})], ids=["a"])
    assert [document.page_content for document in store.get_by_ids(["a"])] == ["old"]


def test_rows_that_were_removed_before_a_store_failed_are_told(
    embeddings: GMEEmbeddings,
    documents: list[Document],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Removes(InMemoryVectorStore):
        pass

    from langchain_gme import quirks

    monkeypatch.delitem(quirks._QUIRKS, "InMemoryVectorStore")
    plain = Removes(embeddings)
    store = MultimodalStore(plain)
    (name,) = store.add_documents(documents[:1])

    def fail(*args: Any, **kwargs: Any) -> list[str]:
        raise ConnectionError("it is gone")

    monkeypatch.setattr(plain, "add_documents", fail)
    with pytest.raises(ConnectionError):
        store.add_documents(documents[:1])
    assert f"add these again: {name}" in caplog.text


def test_lancedb_that_replaces_its_table_is_refused(
    embeddings: GMEEmbeddings, documents: list[Document], tmp_path: Path
) -> None:
    from langchain_community.vectorstores import LanceDB

    with pytest.raises(ValueError, match='unless it is made with mode="append"'):
        add_multimodal(LanceDB(uri=str(tmp_path), embedding=embeddings), documents)

    class Derived(LanceDB):
        pass

    for store in (LanceDB, Derived, Derived(uri=str(tmp_path), embedding=embeddings)):
        with pytest.raises(ValueError, match='unless it is made with mode="append"'):
            MultimodalStore.from_documents(documents, embeddings, store=store)


def test_an_index_over_a_store_that_cannot_delete_is_refused_before_anything_is_written(
    embeddings: GMEEmbeddings, documents: list[Document]
) -> None:
    from langchain_community.vectorstores import SKLearnVectorStore

    store = SKLearnVectorStore(embeddings)
    with pytest.raises(ValueError, match="has not implemented delete, which index needs"):
        index(documents, records(), MultimodalStore(store), key_encoder="sha256")
    assert store._ids == []


def test_an_image_in_the_metadata_of_a_text_is_refused(store: MultimodalStore, gallery: Gallery) -> None:
    path = str(gallery.paths[STAR])
    with pytest.raises(InputError, match="item 1: its metadata has an image, which is not embedded"):
        add_multimodal(store, ["a", "b"], [{}, {"image": path}])
    add_multimodal(
        store, [{"image": path}, {"image": gallery.paths[STAR].read_bytes()}], [{"image": ""}, {"image": "s"}]
    )
    assert [row["metadata"]["image"] for row in rows_of(store)] == [path, "s"]


def test_ids_tell_metadata_apart_that_is_printed_alike(store: MultimodalStore) -> None:
    arrays = [np.zeros(2000), np.zeros(2000)]
    arrays[1][1000] = 1
    ids = add_multimodal(
        store, ["a"] * 4, [*({"vector": each} for each in arrays), {"tags": {"x", "y", "z"}}, {"n": 1}]
    )
    assert len(set(ids)) == 4
    assert add_multimodal(store, ["a"], [{"tags": {"z", "y", "x"}}]) == ids[2:3]
    with pytest.raises(InputError, match="metadata: a value of type object, of which no id can be made"):
        add_multimodal(store, ["a"], [{"tags": object()}])
    assert add_multimodal(store, ["a"], [{"tags": object()}], ["b"]) == ["b"]


def test_two_embeddings_of_one_item_are_refused(store: MultimodalStore) -> None:
    vectors = np.eye(2, 128)
    with pytest.raises(InputError, match="item 1: it is item 0 again, with another embedding"):
        add_multimodal(store, ["a", "a"], embeddings=vectors)
    assert len(set(add_multimodal(store, ["a", "a"], ids=["x", "y"], embeddings=vectors))) == 2


@pytest.mark.parametrize("is_async", [False, True])
def test_skipping_takes_embeddings_and_files_that_are_gone(
    store: MultimodalStore, gallery: Gallery, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    items = [Document(""), {"image": "gone.png"}, None, "a", {"image": gallery.paths[STAR]}]
    options: dict[str, Any] = {"embeddings": np.eye(5, 128), "on_error": "skip"}
    _ = asyncio.run(store.aadd_items(items, **options)) if is_async else store.add_items(items, **options)
    assert [int(np.argmax(row["vector"])) for row in rows_of(store)] == [3, 4]
    assert "item 1: gone.png" in caplog.text
    assert "item 2: None" in caplog.text


@pytest.mark.parametrize("is_async", [False, True])
def test_a_store_made_of_nothing_that_can_be_embedded_is_an_error(
    embeddings: GMEEmbeddings, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    bad = [Document("", metadata={"image": "missing.png"})]
    options: dict[str, Any] = {"on_error": "skip"}

    def make() -> MultimodalStore:
        if is_async:
            return asyncio.run(MultimodalStore.afrom_documents(bad, embeddings, **options))
        return MultimodalStore.from_documents(bad, embeddings, **options)

    with pytest.raises(InputError, match="documents: none of 1 documents can be embedded"):
        make()
    assert "item 0: missing.png" in caplog.text


def test_a_wrapped_store_keeps_how_it_was_wrapped(embeddings: GMEEmbeddings) -> None:
    store = MultimodalStore(Nameless(embeddings), embeddings=embeddings, on_error="skip")
    assert MultimodalStore(store).on_error == MultimodalRetriever(vectorstore=store).vectorstore.on_error == "skip"  # type: ignore[attr-defined]
    assert MultimodalStore(store).embeddings is MultimodalRetriever(vectorstore=store).embeddings is embeddings
    with pytest.raises(ValueError, match="on_error='ignore'"):
        MultimodalStore(store, on_error="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"metadatas": ({} for _ in range(2))}, "metadatas: of type generator; pass a list"),
        ({"metadatas": [{}, "b"]}, r"metadatas\[1\]: of type str; pass a dictionary, or None"),
        ({"ids": "ab"}, "ids: of type str; pass a list"),
        ({"ids": ["a", 1]}, r"ids\[1\]: of type int; pass a string, or None"),
        ({"batch_size": "x"}, "batch_size='x'; pass 1 or more"),
    ],
)
def test_wrong_arguments_are_named(store: MultimodalStore, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        add_multimodal(store, ["a", "b"], **arguments)


def test_texts_may_be_any_iterable_and_an_empty_column_is_none(store: MultimodalStore) -> None:
    for texts in ({"a": 1, "b": 2}.keys(), iter(["c", "d"]), np.array(["e", "f"]), ("g", "h")):
        assert len(store.add_texts(texts, [], ids=[])) == 2
    assert sorted(row["text"] for row in rows_of(store)) == list("abcdefgh")
    with pytest.raises(InputError, match="texts: of type str; pass a list"):
        store.add_texts("ab")


def test_the_metadata_of_a_user_is_not_taken_for_an_id(
    embeddings: GMEEmbeddings, request: pytest.FixtureRequest
) -> None:
    store = MultimodalStore(qdrant(embeddings, request)[0])
    name = "6f5c1a35-7c3f-4d3b-9d6c-0e3f6c1d2a4b"
    store.add_documents([Document("a", metadata={"_langchain_gme_id": "mine"})], ids=[name])
    assert store.get_by_ids([name.upper()]) == [Document("a", metadata={"_langchain_gme_id": "mine"}, id=name)]
    with pytest.raises(InputError, match="is that of item 0 too"):
        store.add_documents([Document("a"), Document("b")], ids=[name, name.upper()])


def test_a_fixed_schema_keeps_the_identity_of_pictures(
    embeddings: GMEEmbeddings, gallery: Gallery, request: pytest.FixtureRequest
) -> None:
    store = MultimodalStore(lancedb(embeddings, request)[0])
    picture = Document("", metadata={"image": str(gallery.paths[STAR])})
    manager = records()
    for document in (Document("a text"), picture):
        assert index(identify_images([document]), manager, store, key_encoder="sha256")["num_added"] == 1
    (found,) = store.similarity_search(gallery.paths[STAR], k=1)
    assert len(found.metadata["image_sha256"]) == 64
    assert store.similarity_search("a text", k=1)[0].metadata.keys().isdisjoint({"image", "image_sha256"})


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
