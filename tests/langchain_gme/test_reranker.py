"""A second reading of found documents, compared with the model's own scores, in LangChain's own chains."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from langchain_gme import (
    GMEEmbeddings,
    MultimodalRedundantFilter,
    MultimodalReranker,
    MultimodalRetriever,
    MultimodalStore,
)
from st_modules import CrossEncoder, InputError, SentenceTransformer
from tests.helpers.references import TOLERANCE
from tests.helpers.rerankers import IMAGES

WIDE, TALL = str(IMAGES / "wide.png"), str(IMAGES / "tall.png")
DOCUMENTS = [
    Document("a brown dog", id="text"),
    Document("", id="picture", metadata={"image": WIDE}),
    Document("the dog", id="both", metadata={"image_path": TALL, "source": "here"}),
    Document("two of them", id="several", metadata={"image": [WIDE, TALL]}),
]
SIDES: list[Any] = [
    {"text": "a brown dog"},
    {"image": WIDE},
    {"text": "the dog", "image": TALL},
    {"text": "two of them", "image": [WIDE, TALL]},
]
QUERIES: dict[str, tuple[Any, Any]] = {
    "text": ("a dog", {"text": "a dog"}),
    "path as text": (WIDE, {"text": WIDE}),
    "picture": ({"image": TALL}, {"image": TALL}),
    "both": ({"image": TALL, "text": "make it blue"}, {"image": TALL, "text": "make it blue"}),
    "message": (
        HumanMessage([{"type": "image", "path": TALL}, {"type": "text", "text": "a"}]),
        {"image": TALL, "text": "a"},
    ),
}


def rerank(found: MultimodalReranker, query: Any, *, is_async: bool) -> list[Document]:
    if is_async:
        return asyncio.run(found.acompress_documents(DOCUMENTS, query))
    return found.compress_documents(DOCUMENTS, query)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", QUERIES)
def test_documents_come_back_best_first_with_their_scores(kind: str, is_async: bool, reranker: CrossEncoder) -> None:
    query, side = QUERIES[kind]
    scores = reranker.predict([(side, document) for document in SIDES])
    order = (-scores).argsort().tolist()
    found = rerank(MultimodalReranker(model=reranker, top_n=None), query, is_async=is_async)
    assert [document.id for document in found] == [DOCUMENTS[index].id for index in order]
    given = [document.metadata["relevance_score"] for document in found]
    assert given == pytest.approx([scores[index] for index in order], abs=TOLERANCE)
    assert [{**document.metadata, "relevance_score": 0} for document in found] == [
        {**DOCUMENTS[index].metadata, "relevance_score": 0} for index in order
    ]
    assert all("relevance_score" not in document.metadata for document in DOCUMENTS)


def test_so_many_are_kept_as_are_asked_for(reranker: CrossEncoder) -> None:
    assert len(MultimodalReranker(model=reranker).compress_documents(DOCUMENTS, "a dog")) == 3
    assert len(MultimodalReranker(model=reranker, top_n=1).compress_documents(DOCUMENTS, "a dog")) == 1
    assert MultimodalReranker(model=reranker).compress_documents([], "a dog") == []
    with pytest.raises(ValidationError):
        MultimodalReranker(model=reranker, top_n=0)


def test_an_instruction_is_the_models_prompt(reranker: CrossEncoder) -> None:
    found = MultimodalReranker(model=reranker, instruction="Find it", top_n=1, predict_kwargs={"batch_size": 1})
    expected = reranker.predict([({"text": "a dog"}, document) for document in SIDES], prompt="Find it")
    (best,) = found.compress_documents(DOCUMENTS, "a dog")
    assert best.metadata["relevance_score"] == pytest.approx(expected.max(), abs=TOLERANCE)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_it_reads_what_a_retriever_found(is_async: bool, reranker: CrossEncoder, tiny: SentenceTransformer) -> None:
    store = MultimodalStore(InMemoryVectorStore(GMEEmbeddings(model=tiny)))
    store.add_documents(DOCUMENTS)
    best = MultimodalReranker(model=reranker, top_n=2)
    retriever = ContextualCompressionRetriever(
        base_compressor=best, base_retriever=MultimodalRetriever(vectorstore=store, search_kwargs={"k": 4})
    )
    query: Any = {"image": TALL, "text": "make it blue"}
    found = asyncio.run(retriever.ainvoke(query)) if is_async else retriever.invoke(query)
    expected = best.compress_documents(DOCUMENTS, query)
    assert [document.id for document in found] == [document.id for document in expected]


def test_it_stands_in_a_pipeline_of_compressors(reranker: CrossEncoder, tiny: SentenceTransformer) -> None:
    redundant = MultimodalRedundantFilter(embeddings=GMEEmbeddings(model=tiny), similarity_threshold=1.0)
    best = MultimodalReranker(model=reranker, top_n=2)
    found = DocumentCompressorPipeline(transformers=[redundant, best]).compress_documents(DOCUMENTS, "a dog")
    assert [document.id for document in found] == [each.id for each in best.compress_documents(DOCUMENTS, "a dog")]


def test_a_document_that_cannot_be_read_is_named(reranker: CrossEncoder) -> None:
    found = MultimodalReranker(model=reranker)
    with pytest.raises(InputError, match="^pair 1, document: /none.png: no such file") as caught:
        found.compress_documents([DOCUMENTS[0], Document("", metadata={"image": "/none.png"})], "a dog")
    assert caught.value.index == 1
    with pytest.raises(InputError, match="^item 0, document SKU-1: .*neither text nor image"):
        found.compress_documents([Document("", id="SKU-1")], "a dog")
    with pytest.raises(InputError, match="of type str; pass a Document"):
        found.compress_documents(["a dog"], "a dog")  # type: ignore[list-item]
    with pytest.raises(InputError, match="^pair 0, query: "):
        found.compress_documents(DOCUMENTS, {"image": "/none.png"})


def test_what_names_its_model_can_be_pickled(reranker: CrossEncoder, reranker_folder: Path) -> None:
    named = MultimodalReranker(
        model="qwen3-vl-reranker-8b", weights=reranker_folder, model_kwargs={"device": "cpu"}, top_n=1
    )
    again = pickle.loads(pickle.dumps(named))
    assert (again.model, again.top_n) == ("qwen3-vl-reranker-8b", 1)
    assert isinstance(again.client, CrossEncoder)
    assert again.compress_documents(DOCUMENTS, "a dog")[0].id == named.compress_documents(DOCUMENTS, "a dog")[0].id
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(MultimodalReranker(model=reranker))
