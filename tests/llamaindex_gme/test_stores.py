"""``GMEEmbedding`` in LlamaIndex's stores and indexes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.indices import MultiModalVectorStoreIndex
from llama_index.core.llms import ImageBlock, TextBlock
from llama_index.core.schema import ImageNode, MediaResource, Node, QueryBundle

from llamaindex_gme import GMEEmbedding, MultimodalVectorIndexRetriever
from llamaindex_gme.nodes import node_image, node_item
from st_modules import InputError, SentenceTransformer
from tests.helpers.gallery import CAPTIONS, CHANGE, HEART, STAR, Gallery
from tests.helpers.llamaindex_stores import (
    EXCEPTIONS,
    FAILURES,
    OPERATIONS,
    STORES,
    TEXT,
    Setting,
    ask,
    index_of,
    nodes,
)
from tests.helpers.paths import ROOT
from tests.helpers.store_tables import WORKS, check, markdown

DOCS = ROOT / "docs" / "llamaindex.md"


@pytest.fixture(scope="module")
def embedding() -> GMEEmbedding:
    return GMEEmbedding("tiny", device="cpu")


MakeSetting = Callable[[str], Setting]


@pytest.fixture
def make_setting(
    embedding: GMEEmbedding, gallery: Gallery, tmp_path: Path, request: pytest.FixtureRequest
) -> MakeSetting:
    return lambda name: Setting(STORES[name](request), embedding, gallery, tmp_path)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", STORES)
def test_store(name: str, operation: str, make_setting: MakeSetting) -> None:
    setting = make_setting(name)
    run = OPERATIONS[operation]
    check(run, setting, EXCEPTIONS.get((name, run), WORKS), FAILURES)


def test_the_documented_table_is_what_was_run() -> None:
    assert markdown(STORES, OPERATIONS, EXCEPTIONS) in DOCS.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", STORES)
def test_ranks_are_those_of_a_brute_force_search(
    name: str, make_setting: MakeSetting, tiny: SentenceTransformer, gallery: Gallery
) -> None:
    setting = make_setting(name)
    items: list[Any] = [{"image": path} for path in gallery.paths]
    items[HEART]["text"] = CAPTIONS[HEART]
    scores = tiny.encode_document([*items, TEXT]) @ tiny.encode_query({"text": CHANGE, "image": gallery.query})
    found = ask(setting, QueryBundle(CHANGE, image_path=str(gallery.query)), top_k=6)
    assert found == np.argsort(-scores).tolist()


@pytest.mark.parametrize("name", STORES)
def test_retrieved_nodes_hold_their_image_and_text(name: str, make_setting: MakeSetting, gallery: Gallery) -> None:
    """Bytes of an ``image_resource`` are the exception: LlamaIndex does not write them anywhere."""
    retriever = MultimodalVectorIndexRetriever(index_of(make_setting(name)), similarity_top_k=6)
    found = {uuid.UUID(node.node.node_id).int: node.node for node in retriever.retrieve(TEXT)}
    assert node_item(found[0], 0) == {"text": None, "image": gallery.paths[0]}
    assert node_item(found[1], 0) == {"text": None, "image": gallery.paths[1]}
    assert node_item(found[2], 0) == {"text": None, "image": f"data:image/*;base64,{gallery.base64(2)}"}
    assert node_image(found[3]) is None
    assert node_item(found[HEART], 0) == {"text": CAPTIONS[HEART], "image": gallery.paths[HEART]}
    assert node_item(found[5], 0) == {"text": TEXT}


def test_cores_retriever_leaves_the_image_of_a_query_out(make_setting: MakeSetting, gallery: Gallery) -> None:
    """Why there is a retriever here."""
    index = index_of(make_setting("SimpleVectorStore"))
    bundle = QueryBundle(CAPTIONS[STAR], image_path=str(gallery.query))
    texts_alone = GMEEmbedding("tiny", device="cpu", fuse=False)
    core = index.as_retriever(similarity_top_k=6, embed_model=texts_alone).retrieve(bundle)
    text_alone = MultimodalVectorIndexRetriever(index, similarity_top_k=6).retrieve(CAPTIONS[STAR])
    assert [node.score for node in core] == [node.score for node in text_alone]


async def test_cores_multimodal_index_drops_nodes_with_an_image_resource(
    embedding: GMEEmbedding, gallery: Gallery
) -> None:
    """Why the documentation recommends one store and one space."""
    index = MultiModalVectorStoreIndex([], embed_model=embedding, image_embed_model=embedding)
    index.insert_nodes(
        [Node(image_resource=MediaResource(path=gallery.paths[0]), text_resource=MediaResource(text="a"))]
    )
    assert index.index_struct.nodes_dict == {}


def test_an_image_node_hands_over_its_image_without_its_text(gallery: Gallery) -> None:
    """Why the documentation recommends a ``Node`` for multimodal language models."""
    path, text = gallery.paths[STAR], CAPTIONS[STAR]
    image_node = ImageNode(image_path=str(path), text=text)
    assert [type(block) for block in image_node.get_content_blocks()] == [ImageBlock]
    node = Node(image_resource=MediaResource(path=path), text_resource=MediaResource(text=text))
    assert [type(block) for block in node.get_content_blocks()] == [TextBlock, ImageBlock]


def test_an_index_with_another_embedding_is_refused(embedding: GMEEmbedding, gallery: Gallery) -> None:
    index = VectorStoreIndex([], embed_model=MockEmbedding(embed_dim=8))
    with pytest.raises(TypeError, match="of type MockEmbedding; make it with GMEEmbedding, or pass one as embed_model"):
        MultimodalVectorIndexRetriever(index)
    assert MultimodalVectorIndexRetriever(index, embed_model=embedding).retrieve(CHANGE) == []


def test_a_given_embedding_and_a_search_by_words_are_left_alone(embedding: GMEEmbedding, gallery: Gallery) -> None:
    index = VectorStoreIndex([], embed_model=embedding)
    index.insert_nodes(list(embedding(nodes(gallery))))
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=1)
    given = QueryBundle("", image_path="missing.png", embedding=embedding.get_query_embedding(CAPTIONS[STAR]))
    assert [uuid.UUID(node.node.node_id).int for node in retriever.retrieve(given)] == [STAR]
    with pytest.raises(InputError, match=r"missing\.png"):
        retriever.retrieve(QueryBundle("", image_path="missing.png"))
    with pytest.raises(InputError, match="neither text nor image"):
        retriever.retrieve(QueryBundle(""))
