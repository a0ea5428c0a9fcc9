"""``GMEEmbeddings(base_url=...)``: what the fields of a server mean, and what they refuse."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_gme import GMEEmbeddings, MultimodalStore
from st_modules import InputError, SentenceTransformer, ServerError
from st_modules.serve import create_app
from tests.helpers.gallery import CHANGE
from tests.helpers.references import TOLERANCE
from tests.helpers.remote import listen

KEY = "a key of the tests"


@pytest.fixture(scope="module")
def url(tiny: SentenceTransformer) -> Iterator[str]:
    with listen(create_app(tiny, api_key=KEY)) as url:
        yield url


def test_the_key_is_sent_and_shown_nowhere(url: str, tiny: SentenceTransformer) -> None:
    embeddings: Any = GMEEmbeddings(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    np.testing.assert_allclose(embeddings.embed_query(CHANGE), tiny.encode_query(CHANGE), atol=TOLERANCE)
    for shown in (repr(embeddings), str(embeddings), embeddings.model_dump_json(), str(embeddings.model_dump())):
        assert KEY not in shown
    again: Any
    for again in (pickle.loads(pickle.dumps(embeddings)), GMEEmbeddings(**embeddings.model_dump())):
        assert again.embed_query(CHANGE) == embeddings.embed_query(CHANGE)
        assert again.api_key.get_secret_value() == KEY


def test_the_model_is_the_servers(url: str) -> None:
    embeddings: Any = GMEEmbeddings(base_url=url, api_key=KEY)
    assert (embeddings.model_name, embeddings.embedder.dimension) == ("tiny", 128)
    assert GMEEmbeddings(base_url=url, api_key=KEY, model="tiny").model_name == "tiny"
    with pytest.raises(ServerError, match=f"{url} has the model 'tiny', and not 'gme-2b'"):
        GMEEmbeddings(base_url=url, api_key=KEY, model_name="gme-2b")
    with pytest.raises(ValueError, match=f"The model is in the server at {url}"):
        _ = embeddings.client


@pytest.mark.parametrize("key", [{}, {"api_key": "another"}], ids=str)
def test_without_the_key_no_embeddings_are_made(url: str, key: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match=f"{url}: .*api_key"):
        GMEEmbeddings(base_url=url, **key)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"weights": Path("a"), "cache_folder": "b"}, "cache_folder, weights: the model is loaded by the server"),
        ({"base_weights": "a"}, "base_weights: the model"),
        ({"model_kwargs": {"device": "cpu", "max_length": 8}}, "device, max_length: the model"),
        ({"encode_kwargs": {"precision": "int8"}}, "precision: of encode, a server takes batch_size"),
        ({"query_encode_kwargs": {"prompt_name": "sts"}}, "prompt_name='sts': the model has"),
        ({"document_instruction": "Find."}, "no instruction on the document side"),
        ({"timeout": 0}, "greater than 0"),
        ({"base_url": ""}, "pass the server's address"),
    ],
    ids=str,
)
def test_what_would_be_ignored_is_refused(url: str, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        GMEEmbeddings(**{"base_url": url, "api_key": KEY, **arguments})


def test_a_loaded_model_is_not_for_a_server_nor_a_key_for_a_model(url: str, tiny: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="model: the model is loaded by the server"):
        GMEEmbeddings(base_url=url, api_key=KEY, model=tiny)
    with pytest.raises(ValueError, match="api_key: it is for a server"):
        GMEEmbeddings(model=tiny, api_key=KEY)


def test_given_embeddings_have_the_dimension_of_the_servers_model(url: str) -> None:
    store = MultimodalStore(InMemoryVectorStore(GMEEmbeddings(base_url=url, api_key=KEY)))
    with pytest.raises(InputError, match="of dimension 3, where the store's model has 128"):
        store.add_items(["a"], embeddings=[[1.0, 2.0, 3.0]])
