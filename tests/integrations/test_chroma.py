"""Chroma embeds documents, images and queries by our function, also where a collection is opened again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import chromadb
import chromadb.config
import numpy as np
import pytest
from PIL import Image

from st_modules import InputError, SentenceTransformer
from st_modules.errors import ArgumentError
from st_modules.integrations import ChromaEmbeddings
from tests.helpers.paths import ROOT
from tests.helpers.references import TOLERANCE

SETTINGS = chromadb.config.Settings(anonymized_telemetry=False)


@pytest.fixture
def client(tmp_path: Path) -> Any:
    return chromadb.PersistentClient(str(tmp_path / "chroma"), SETTINGS)


def picture(colour: str) -> np.ndarray:
    return np.asarray(Image.new("RGB", (40, 40), colour))


def test_documents_and_queries_are_on_their_own_sides(client: Any, tiny: SentenceTransformer) -> None:
    embed: Any = ChromaEmbeddings("tiny", device="cpu", query_prompt="Find the same.")
    collection = client.create_collection("texts", embedding_function=embed)
    texts = ["a large red circle", "two small blue stars"]
    collection.add(ids=["red", "blue"], documents=texts)
    assert collection.query(query_texts=["blue stars"], n_results=1)["ids"] == [["blue"]]
    found = collection.get(ids=["red", "blue"], include=["embeddings"])["embeddings"]
    np.testing.assert_allclose(found, tiny.encode_document(texts), atol=TOLERANCE)
    np.testing.assert_allclose(
        embed.embed_query(["blue stars"]), tiny.encode_query(["blue stars"], prompt="Find the same."), atol=TOLERANCE
    )


def test_images_and_texts_are_in_one_space(client: Any, tiny: SentenceTransformer) -> None:
    embed: Any = ChromaEmbeddings("tiny", device="cpu")
    collection = client.create_collection("pictures", embedding_function=embed)
    collection.add(ids=["red", "blue"], images=[picture("red"), picture("blue")])
    assert collection.query(query_images=[picture("blue")], n_results=1)["ids"] == [["blue"]]
    found = collection.get(ids=["red"], include=["embeddings"])["embeddings"]
    np.testing.assert_allclose(found, tiny.encode_document([{"image": picture("red")}]), atol=TOLERANCE)


def test_a_text_with_its_image_is_embedded_by_calling_the_function(client: Any, tiny: SentenceTransformer) -> None:
    embed: Any = ChromaEmbeddings("tiny", device="cpu")
    both = {"text": "make it blue", "image": picture("red")}
    np.testing.assert_allclose(embed([both]), tiny.encode_document([both]), atol=TOLERANCE)


def test_a_collection_knows_its_function_again(tmp_path: Path, client: Any) -> None:
    embed: Any = ChromaEmbeddings("tiny", device="cpu", truncate_dim=16)
    collection = client.create_collection("texts", embedding_function=embed)
    assert collection.configuration["hnsw"]["space"] == "cosine"
    collection.add(ids=["red", "blue"], documents=["a large red circle", "two small blue stars"])
    program = (
        "import chromadb; from st_modules.integrations import ChromaEmbeddings\n"
        "settings = chromadb.Settings(anonymized_telemetry=False)\n"
        f"client = chromadb.PersistentClient({str(tmp_path / 'chroma')!r}, settings)\n"
        "print(client.get_collection('texts').query(query_texts=['blue stars'], n_results=1)['ids'])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[['blue']]\n"


def test_its_arguments_are_kept_whole() -> None:
    embed: Any = ChromaEmbeddings("tiny", query_prompt="a", truncate_dim=16, batch_size=4, device="cpu")
    assert not embed.is_legacy()
    assert ChromaEmbeddings.build_from_config(embed.get_config()).get_config() == embed.get_config()


@pytest.mark.parametrize("changed", [{"model": "gme-2b"}, {"truncate_dim": 8}, {"document_prompt": "b"}])
def test_a_collection_keeps_its_model(changed: dict[str, Any]) -> None:
    embed: Any = ChromaEmbeddings("tiny")
    config = embed.get_config()
    embed.validate_config_update(config, {**config, "query_prompt": "other", "device": "cpu"})
    with pytest.raises(ArgumentError, match=next(iter(changed))):
        embed.validate_config_update(config, {**config, **changed})


def test_an_option_that_the_collection_cannot_keep_is_refused() -> None:
    with pytest.raises(ArgumentError, match="the store keeps these options as JSON"):
        ChromaEmbeddings("tiny", device=object())


def test_what_cannot_be_embedded_raises_with_its_place() -> None:
    embed: Any = ChromaEmbeddings("tiny", device="cpu")
    with pytest.raises(InputError, match=r"item 1: missing\.png: no such file"):
        embed(["a", {"image": "missing.png"}])
