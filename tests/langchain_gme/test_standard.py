"""LangChain's own tests of stores and retrievers, over ours."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from langchain_gme import GMEEmbeddings, MultimodalRetriever, MultimodalStore, add_multimodal
from tests.helpers.gallery import CAPTIONS, Gallery
from tests.helpers.langchain_stores import chroma, qdrant


@pytest.fixture(scope="module")
def embeddings() -> GMEEmbeddings:
    return GMEEmbeddings(model="tiny", model_kwargs={"device": "cpu"})


@pytest.fixture(scope="module", params=["local", "remote"])
def owner(request: pytest.FixtureRequest, embeddings: GMEEmbeddings) -> GMEEmbeddings:
    """Embeddings of the model in this process, or in a server."""
    if request.param == "local":
        return embeddings
    return GMEEmbeddings(base_url=request.getfixturevalue("tiny_url"))


class TestMultimodalStoreInMemory(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, owner: GMEEmbeddings) -> VectorStore:
        return MultimodalStore(InMemoryVectorStore(owner))


class TestMultimodalStoreOnChroma(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(
        self, embeddings: GMEEmbeddings, request: pytest.FixtureRequest
    ) -> Generator[VectorStore, None, None]:
        store: Any = chroma(embeddings, request)[0]
        yield MultimodalStore(store)
        store.delete_collection()


class TestMultimodalStoreOnQdrant(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, embeddings: GMEEmbeddings, request: pytest.FixtureRequest) -> VectorStore:
        return MultimodalStore(qdrant(embeddings, request)[0])


class TestMultimodalRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _store(self, owner: GMEEmbeddings, gallery: Gallery) -> None:
        self.store = InMemoryVectorStore(owner)
        add_multimodal(self.store, [*gallery.paths])

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return MultimodalRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"vectorstore": self.store}

    @property
    def retriever_query_example(self) -> str:
        return CAPTIONS[0]
