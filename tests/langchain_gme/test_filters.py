"""Filters of found documents, compared with rankings by the model's own vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline, EmbeddingsFilter
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from langchain_gme import (
    GMEEmbeddings,
    MultimodalFilter,
    MultimodalRedundantFilter,
    MultimodalRetriever,
    add_multimodal,
)
from st_modules import InputError, SentenceTransformer
from st_modules.demo.drawings import draw
from tests.helpers.gallery import BLUE_CIRCLE, CAPTIONS, CHANGE, HEART, RED_CIRCLE, SCENES, STAR, Gallery


@pytest.fixture(scope="module", params=["local", "remote"])
def embeddings(request: pytest.FixtureRequest, tiny: SentenceTransformer) -> GMEEmbeddings:
    """Of the model in this process, or in a server."""
    if request.param == "local":
        return GMEEmbeddings(model=tiny)
    return GMEEmbeddings(base_url=request.getfixturevalue("tiny_url"))


@pytest.fixture
def documents(gallery: Gallery) -> list[Document]:
    """The pictures, one of them with its caption, and a text."""
    found = [Document("", id=str(number), metadata={"image": str(path)}) for number, path in enumerate(gallery.paths)]
    found[HEART].page_content = CAPTIONS[HEART]
    return [*found, Document(CAPTIONS[STAR], id="text")]


QUERIES: dict[str, Callable[[Path], Any]] = {
    "text": lambda path: CAPTIONS[STAR],
    "picture": lambda path: path,
    "picture and text": lambda path: {"image": path, "text": CHANGE},
    "message": lambda path: HumanMessage([{"type": "image", "path": str(path)}, {"type": "text", "text": CHANGE}]),
}


def plain(item: Any) -> Any:
    if isinstance(item, Document):
        return {"text": item.page_content or None, "image": item.metadata.get("image")}
    return {"image": item.content[0]["path"], "text": item.content[1]["text"]} if hasattr(item, "content") else item


def cosines(tiny: SentenceTransformer, documents: Sequence[Document], query: Any) -> np.ndarray:
    return tiny.encode_document([plain(each) for each in documents]) @ tiny.encode_query(plain(query))


def filter_documents(is_async: bool, found: MultimodalFilter, documents: Sequence[Document], query: Any) -> Any:
    if is_async:
        return asyncio.run(found.acompress_documents(documents, query))
    return found.compress_documents(documents, query)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", QUERIES)
def test_the_most_similar_documents_are_kept_in_their_order(
    kind: str,
    is_async: bool,
    embeddings: GMEEmbeddings,
    tiny: SentenceTransformer,
    gallery: Gallery,
    documents: list[Document],
) -> None:
    query = QUERIES[kind](gallery.query)
    scores = cosines(tiny, documents, query)
    ranked = [documents[index] for index in np.argsort(-scores)]
    for k in (1, 3, 20):
        assert filter_documents(is_async, MultimodalFilter(embeddings=embeddings, k=k), documents, query) == ranked[:k]
    threshold = float(np.sort(scores)[2]) + 1e-4
    within = MultimodalFilter(embeddings=embeddings, k=None, similarity_threshold=threshold)
    assert filter_documents(is_async, within, documents, query) == [
        document for document, score in zip(documents, scores, strict=True) if score > threshold
    ]
    both = MultimodalFilter(embeddings=embeddings, k=2, similarity_threshold=threshold)
    assert filter_documents(is_async, both, documents, query) == ranked[:2]


@pytest.mark.parametrize("limits", [{"k": 2}, {"k": None, "similarity_threshold": 0.5}, {"similarity_threshold": 0.6}])
def test_texts_are_filtered_as_langchain_filters_them(embeddings: GMEEmbeddings, limits: dict[str, Any]) -> None:
    documents = [Document(text) for text in CAPTIONS]
    found = MultimodalFilter(embeddings=embeddings, **limits).compress_documents(documents, "a blue circle")
    theirs = EmbeddingsFilter(embeddings=embeddings, **limits).compress_documents(documents, "a blue circle")
    assert [each.page_content for each in found] == [each.page_content for each in theirs]
    assert 0 < len(found) < len(documents)


def test_cut_embeddings_are_compared_by_their_angle(
    tiny: SentenceTransformer, gallery: Gallery, documents: list[Document]
) -> None:
    cut = GMEEmbeddings(model=tiny, encode_kwargs={"truncate_dim": 4})
    kept = MultimodalFilter(embeddings=cut, k=6).compress_documents(documents, gallery.query)
    vectors = tiny.encode_document([plain(each) for each in documents], truncate_dim=4, normalize_embeddings=True)
    query = tiny.encode_query(gallery.query, truncate_dim=4, normalize_embeddings=True)
    assert kept == [documents[index] for index in np.argsort(-(vectors @ query))]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_compressing_retriever_is_asked_with_a_picture_and_a_text(
    is_async: bool, embeddings: GMEEmbeddings, gallery: Gallery, documents: list[Document]
) -> None:
    store = InMemoryVectorStore(embeddings)
    add_multimodal(store, documents)
    retriever = ContextualCompressionRetriever(
        base_compressor=MultimodalFilter(embeddings=embeddings, k=1),
        base_retriever=MultimodalRetriever(vectorstore=store, search_kwargs={"k": 6}),
    )
    query: Any = {"image": gallery.query, "text": CHANGE}
    (found,) = asyncio.run(retriever.ainvoke(query)) if is_async else retriever.invoke(query)
    assert found.metadata["image"] == str(gallery.paths[BLUE_CIRCLE])


def test_a_pipeline_drops_repetitions_and_keeps_the_best(
    embeddings: GMEEmbeddings, gallery: Gallery, documents: list[Document]
) -> None:
    again = Document("", id="again", metadata={"image": str(gallery.paths[RED_CIRCLE])})
    pipeline = DocumentCompressorPipeline(
        transformers=[
            MultimodalRedundantFilter(embeddings=embeddings, similarity_threshold=0.999),
            MultimodalFilter(embeddings=embeddings, k=2),
        ]
    )
    query: Any = gallery.query
    best, second = pipeline.compress_documents([*documents, again], query)
    assert best.id == str(RED_CIRCLE)
    assert second.id != "again"
    assert asyncio.run(pipeline.acompress_documents([*documents, again], query)) == [best, second]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_of_documents_that_are_nearly_the_same_the_first_is_kept(
    is_async: bool, embeddings: GMEEmbeddings, tiny: SentenceTransformer, gallery: Gallery, tmp_path: Path
) -> None:
    found = []
    for seed in (3, 4, 5):
        for number, scene in enumerate(SCENES):
            draw(scene, seed=seed).save(path := tmp_path / f"{seed}-{number}.png")
            found.append(Document("", id=path.stem, metadata={"image": str(path)}))
    vectors = tiny.encode_document([plain(each) for each in found])
    similar = np.sort(np.triu(vectors @ vectors.T, 1).ravel())[-len(SCENES) :]
    threshold = float(similar[0]) - 1e-4
    expected: list[int] = []
    for index in range(len(found)):
        if all(vectors[index] @ vectors[other] <= threshold for other in expected):
            expected.append(index)
    assert 0 < len(expected) < len(found)
    redundant = MultimodalRedundantFilter(embeddings=embeddings, similarity_threshold=threshold)
    kept = asyncio.run(redundant.atransform_documents(found)) if is_async else redundant.transform_documents(found)
    assert kept == [found[index] for index in expected]


def test_nothing_found_is_nothing_kept(embeddings: GMEEmbeddings) -> None:
    best, redundant = MultimodalFilter(embeddings=embeddings), MultimodalRedundantFilter(embeddings=embeddings)
    assert best.compress_documents([], "a") == []
    assert asyncio.run(best.acompress_documents([], "a")) == []
    assert redundant.transform_documents([]) == []
    assert asyncio.run(redundant.atransform_documents([])) == []


def test_a_document_that_cannot_be_embedded_is_named(embeddings: GMEEmbeddings) -> None:
    best = MultimodalFilter(embeddings=embeddings)
    with pytest.raises(InputError, match="item 1: a Document with neither text nor image"):
        best.compress_documents([Document("a"), Document("")], "a")
    with pytest.raises(InputError, match=r"item 1: none\.png: no such file"):
        best.compress_documents([Document("a"), Document("b", metadata={"image": "none.png"})], "a")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"k": None}, "k and similarity_threshold are both None"),
        ({"k": 0}, "greater than or equal to 1"),
        ({"similarity_threshold": float("nan")}, "finite number"),
        ({"similarity_threshold": 95}, "less than or equal to 1"),
        ({"similarity_fn": max}, "Extra inputs are not permitted"),
    ],
)
def test_limits_that_say_nothing_are_refused(
    embeddings: GMEEmbeddings, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        MultimodalFilter(embeddings=embeddings, **arguments)
