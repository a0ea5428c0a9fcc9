"""``GMEEmbedding(base_url=...)``: what the fields of a server mean, and what they refuse."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.schema import ImageDocument

from llamaindex_gme import GMEEmbedding, MultimodalNodeParser, MultimodalVectorIndexRetriever
from st_modules import SentenceTransformer, ServerError
from st_modules.serve import create_app
from tests.helpers.gallery import CAPTIONS, CHANGE, STAR, Gallery
from tests.helpers.references import TOLERANCE
from tests.helpers.remote import listen

KEY = "a key of the tests"


@pytest.fixture(scope="module")
def url(tiny: SentenceTransformer) -> Iterator[str]:
    with listen(create_app(tiny, api_key=KEY)) as url:
        yield url


def test_the_key_is_sent_and_shown_nowhere(url: str, tiny: SentenceTransformer) -> None:
    embedding: Any = GMEEmbedding(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    np.testing.assert_allclose(embedding.get_query_embedding(CHANGE), tiny.encode_query(CHANGE), atol=TOLERANCE)
    for shown in (repr(embedding), embedding.to_json(), str(embedding.to_dict()), str(embedding.to_payload())):
        assert KEY not in shown
    for again in (
        pickle.loads(pickle.dumps(embedding)),
        GMEEmbedding.from_json(embedding.to_json(), api_key=KEY),
        GMEEmbedding.from_dict(embedding.to_dict(), api_key=KEY),
    ):
        assert again.to_dict() == embedding.to_dict()
        assert again.get_query_embedding(CHANGE) == embedding.get_query_embedding(CHANGE)


def test_the_model_is_the_servers(url: str) -> None:
    assert GMEEmbedding(base_url=url, api_key=KEY).model_name == "tiny"
    assert GMEEmbedding("tiny", base_url=url, api_key=KEY).model_name == "tiny"
    with pytest.raises(ServerError, match=f"{url} has the model 'tiny', and not 'gme-2b'"):
        GMEEmbedding("gme-2b", base_url=url, api_key=KEY)


@pytest.mark.parametrize("key", [{}, {"api_key": "another"}], ids=str)
def test_without_the_key_no_embedding_is_made(url: str, key: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match=f"{url}: .*api_key"):
        GMEEmbedding(base_url=url, **key)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"weights": "a", "device": "cpu"}, "device, weights: the model is loaded by the server"),
        ({"model_kwargs": {"max_length": 8}}, "max_length: the model"),
        ({"encode_kwargs": {"precision": "int8"}}, "precision: of encode, a server takes batch_size"),
        ({"text_instruction": "Find."}, "no instruction on the document side"),
        ({"max_retries": -1}, "greater than or equal to 0"),
    ],
    ids=str,
)
def test_what_would_be_ignored_is_refused(url: str, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        GMEEmbedding(**{"base_url": url, "api_key": KEY, **arguments})


def test_a_loaded_model_is_not_for_a_server_nor_a_key_for_a_model(url: str, tiny: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="model: the model is loaded by the server"):
        GMEEmbedding(tiny, base_url=url, api_key=KEY)
    with pytest.raises(ValueError, match="api_key: it is for a server"):
        GMEEmbedding(tiny, api_key=KEY)


def test_a_pipeline_and_an_index_are_filled_by_a_server(url: str, gallery: Gallery) -> None:
    embedding = GMEEmbedding(base_url=url, api_key=KEY)
    cache = IngestionCache()
    pipeline = IngestionPipeline(transformations=[MultimodalNodeParser(), embedding], cache=cache)
    documents = [ImageDocument(image_path=str(path), metadata={"n": n}) for n, path in enumerate(gallery.paths)]
    nodes = pipeline.run(documents=documents)
    index = VectorStoreIndex(list(nodes), embed_model=embedding)
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=1)
    assert [each.node.metadata["n"] for each in retriever.retrieve(CAPTIONS[STAR])] == [STAR]
