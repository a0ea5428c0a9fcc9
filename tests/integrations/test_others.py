"""Models of sentence-transformers that are none of this package's, behind the interfaces of other libraries."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
from sentence_transformers.sentence_transformer.modules import BoW, StaticEmbedding
from tokenizers import Tokenizer

from langchain_gme import GMEEmbeddings
from llamaindex_gme import GMEEmbedding
from st_modules import Embedder, SentenceTransformer
from tests.helpers.paths import GOLDEN

PICTURES = GOLDEN / "gme" / "images"
TEXTS = ["a star", "https://example.com/star.png", str(PICTURES / "small.png")]
TOLERANCE = 1e-5


def bag_of_words(folder: Path) -> Any:
    return sentence_transformers.SentenceTransformer(modules=[BoW(["a", "star"])], device="cpu")


def static(folder: Path) -> Any:
    tokenizer = Tokenizer.from_file(str(GOLDEN / "gme" / "checkpoint" / "tokenizer.json"))
    return sentence_transformers.SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu"
    )


def static_of_our_class(folder: Path) -> Any:
    static(folder).save_pretrained(str(folder), create_model_card=False)
    return SentenceTransformer(str(folder), device="cpu")


@pytest.fixture(params=[bag_of_words, static, static_of_our_class], ids=lambda make: make.__name__)
def of_texts(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return request.param(tmp_path)


@pytest.fixture(scope="module")
def clip() -> Any:
    """CLIP as sentence-transformers loads it: texts and pictures, each in batches of its own."""
    return sentence_transformers.SentenceTransformer(str(GOLDEN / "bge_vl_clip" / "checkpoint"), device="cpu")


def test_a_model_of_texts_embeds_texts_whatever_they_look_like(of_texts: Any) -> None:
    items = [{"text": text} for text in TEXTS]
    expected = of_texts.encode_document(TEXTS)
    np.testing.assert_array_equal(Embedder(of_texts).encode(items, "document"), expected)
    np.testing.assert_array_equal(asyncio.run(Embedder(of_texts).aembed(items, "query")), expected)
    assert Embedder(of_texts).embed([], "document") == []


def test_a_prompt_goes_before_a_text(of_texts: Any) -> None:
    found = Embedder(of_texts).embed([{"text": "star"}], "query", prompt="a ")
    np.testing.assert_array_equal(found, of_texts.encode(["a star"]))


def test_a_model_of_texts_is_taken_by_langchain_and_llamaindex(of_texts: Any) -> None:
    expected = of_texts.encode(TEXTS)
    langchain, llamaindex = GMEEmbeddings(model=of_texts), GMEEmbedding(model_name=of_texts)
    np.testing.assert_array_equal(langchain.embed_documents(TEXTS), expected)
    np.testing.assert_array_equal(langchain.embed_query(TEXTS[0]), expected[0])
    np.testing.assert_array_equal(llamaindex.get_text_embedding_batch(TEXTS), expected)
    np.testing.assert_array_equal(llamaindex.get_query_embedding(TEXTS[0]), expected[0])


def test_a_model_of_texts_says_that_it_takes_no_picture(of_texts: Any) -> None:
    with pytest.raises(ValueError, match=r"Supported modalities: text\."):
        Embedder(of_texts).embed([{"text": "a"}, {"image": PICTURES / "small.png"}], "document")


def test_a_model_of_texts_and_pictures_embeds_both_in_one_call_in_their_order(clip: Any) -> None:
    names = ["small.png", "gray.png"]
    pictures = [{"image": str(PICTURES / name)} for name in names]
    items = [{"text": "a star"}, pictures[0], {"text": str(PICTURES / "small.png")}, pictures[1], {"text": "b"}]
    expected = np.concatenate([clip.encode([item]) for item in items])
    np.testing.assert_allclose(Embedder(clip).encode(items, "document"), expected, atol=TOLERANCE)
    np.testing.assert_allclose(GMEEmbeddings(model=clip).embed_multimodal(items), expected, atol=TOLERANCE)
    found = GMEEmbedding(model_name=clip).get_image_embedding(str(PICTURES / names[0]))
    np.testing.assert_allclose(found, expected[1], atol=TOLERANCE)


def test_a_model_that_takes_each_by_itself_says_so_of_both_together(clip: Any) -> None:
    with pytest.raises(ValueError, match="cannot combine them in a single input"):
        Embedder(clip).embed([{"text": "a star", "image": str(PICTURES / "small.png")}], "document")
