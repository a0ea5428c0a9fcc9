"""``MultimodalVectorIndexRetriever`` as core's retrievers and engines use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.base_multi_modal_retriever import MultiModalRetriever
from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.llms import ImageBlock, MockLLM, TextBlock
from llama_index.core.node_parser import HierarchicalNodeParser, get_leaf_nodes
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine, SimpleMultiModalQueryEngine
from llama_index.core.retrievers import AutoMergingRetriever, QueryFusionRetriever, RouterRetriever
from llama_index.core.schema import (
    Document,
    ImageNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeWithScore,
    QueryBundle,
    TextNode,
)
from llama_index.core.tools import RetrieverTool
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from llamaindex_gme import GMEEmbedding, MultimodalNodeParser, MultimodalVectorIndexRetriever
from st_modules import InputError, SentenceTransformer
from tests.helpers.gallery import BLUE_CIRCLE, CAPTIONS, CHANGE, STAR, Gallery

TEXTS = ["two small black crosses", "a red disc", "one green star"]


@pytest.fixture(scope="module", params=["local", "remote"])
def embedding(request: pytest.FixtureRequest) -> GMEEmbedding:
    """Of the model in this process, or in a server."""
    if request.param == "local":
        return GMEEmbedding("tiny", device="cpu")
    return GMEEmbedding(base_url=request.getfixturevalue("tiny_url"))


@pytest.fixture(scope="module")
def index(embedding: GMEEmbedding, gallery: Gallery) -> VectorStoreIndex:
    """The pictures, of which every other is in a ``Node``, and texts; the metadata has their numbers."""
    nodes: list[Any] = [
        Node(image_resource=MediaResource(path=path)) if number % 2 else ImageNode(image_path=str(path))
        for number, path in enumerate(gallery.paths)
    ]
    nodes += [TextNode(text=text, excluded_embed_metadata_keys=["number"]) for text in TEXTS]
    for number, node in enumerate(nodes):
        node.metadata = {"number": number}
    index = VectorStoreIndex([], embed_model=embedding)
    index.insert_nodes(list(embedding(nodes)))
    return index


def ranks(found: list[NodeWithScore]) -> list[tuple[int, float]]:
    return [(each.node.metadata["number"], round(each.get_score(), 3)) for each in found]


def brute_force(tiny: SentenceTransformer, gallery: Gallery, query: Any, among: range) -> list[tuple[int, float]]:
    items: list[Any] = [*({"image": path} for path in gallery.paths), *({"text": text} for text in TEXTS)]
    scores = tiny.encode_document(items) @ tiny.encode_query(query)
    order = sorted(among, key=lambda number: -scores[number])
    return [(number, round(float(scores[number]), 3)) for number in order]


def same(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> None:
    assert [number for number, _ in found] == [number for number, _ in expected]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in expected], atol=2e-3)


PICTURES, WORDS = range(5), range(5, 8)


@pytest.mark.parametrize("top_k", [1, 2, 4, 50])
async def test_pictures_and_texts_are_found_apart(
    tiny: SentenceTransformer, index: VectorStoreIndex, gallery: Gallery, top_k: int
) -> None:
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=top_k)
    assert isinstance(retriever, MultiModalRetriever)
    path = str(gallery.query)
    both = QueryBundle(CHANGE, image_path=path)
    text, image = {"text": CHANGE}, {"image": gallery.query}
    calls: list[tuple[Callable[[Any], Any], Callable[[Any], Awaitable[Any]], Any, Any, range]] = [
        (retriever.text_retrieve, retriever.atext_retrieve, CHANGE, text, WORDS),
        (retriever.text_retrieve, retriever.atext_retrieve, both, text, WORDS),
        (retriever.text_to_image_retrieve, retriever.atext_to_image_retrieve, CHANGE, text, PICTURES),
        (retriever.text_to_image_retrieve, retriever.atext_to_image_retrieve, both, text, PICTURES),
        (retriever.image_to_image_retrieve, retriever.aimage_to_image_retrieve, path, image, PICTURES),
        (retriever.image_to_image_retrieve, retriever.aimage_to_image_retrieve, both, {**text, **image}, PICTURES),
    ]
    for ask, aask, query, item, among in calls:
        expected = brute_force(tiny, gallery, item, among)[:top_k]
        found = ask(query)
        same(ranks(found), expected)
        same(ranks(await aask(query)), expected)
        assert {isinstance(each.node, ImageNode) for each in found} == {among is PICTURES}
    assert (retriever.similarity_top_k, retriever.image_similarity_top_k) == (top_k, top_k)


def test_the_number_of_pictures_is_its_own(index: VectorStoreIndex) -> None:
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=1, image_similarity_top_k=3)
    assert [len(ask(CHANGE)) for ask in (retriever.text_retrieve, retriever.text_to_image_retrieve)] == [1, 3]


def test_filters_and_ids_hold(index: VectorStoreIndex, gallery: Gallery) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key="number", value=STAR)])
    filtered = MultimodalVectorIndexRetriever(index, filters=filters)
    assert [number for number, _ in ranks(filtered.image_to_image_retrieve(str(gallery.query)))] == [STAR]
    assert filtered.text_retrieve(CHANGE) == []
    (first,) = MultimodalVectorIndexRetriever(index, similarity_top_k=1).text_to_image_retrieve(CAPTIONS[STAR])
    by_id = MultimodalVectorIndexRetriever(index, node_ids=[first.node_id], similarity_top_k=5)
    assert [each.node_id for each in by_id.retrieve(CHANGE)] == [first.node_id]


def test_a_query_without_an_image_is_named(index: VectorStoreIndex) -> None:
    with pytest.raises(InputError, match="The query has no image"):
        MultimodalVectorIndexRetriever(index).image_to_image_retrieve(QueryBundle("a"))


@pytest.mark.parametrize("name", ["k", "top_k", "search_kwargs"])
def test_arguments_that_it_does_not_know_are_refused(index: VectorStoreIndex, name: str) -> None:
    MultimodalVectorIndexRetriever(index, **{name: None})
    with pytest.raises(TypeError, match=f"takes no {name}; how many to find is similarity_top_k"):
        MultimodalVectorIndexRetriever(index, **{name: 1})
    known = MultimodalVectorIndexRetriever(index, similarity_top_k=1, verbose=False, vector_store_kwargs={})
    assert len(known.retrieve(CHANGE)) == 1


def test_what_is_no_index_is_named() -> None:
    with pytest.raises(TypeError, match="index is of type list; pass a VectorStoreIndex"):
        MultimodalVectorIndexRetriever([Document(text="a")])  # type: ignore[arg-type]


def test_a_path_is_an_image_and_other_things_are_no_query(index: VectorStoreIndex, gallery: Gallery) -> None:
    retriever = MultimodalVectorIndexRetriever(index)
    found = retriever.image_to_image_retrieve(gallery.query)
    assert ranks(found) == ranks(retriever.image_to_image_retrieve(str(gallery.query)))
    with pytest.raises(InputError, match="A query of type int: pass a path"):
        retriever.image_to_image_retrieve(3)  # type: ignore[arg-type]
    for ask in (retriever.text_retrieve, retriever.text_to_image_retrieve):
        with pytest.raises(InputError, match=f"A query of type {type(gallery.query).__name__}: pass a text"):
            ask(gallery.query)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*SimpleMultiModalQueryEngine is deprecated:DeprecationWarning")
async def test_cores_multimodal_query_engine_asks_it(index: VectorStoreIndex, gallery: Gallery) -> None:
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=1)
    engine = SimpleMultiModalQueryEngine(retriever, multi_modal_llm=MockLLM(is_chat_model=True))  # type: ignore[arg-type]
    bundle, path = QueryBundle(CHANGE, image_path=str(gallery.query)), str(gallery.query)
    answers = [engine.query(bundle), await engine.aquery(bundle), engine.image_query(bundle, "what?")]
    assert [answer.source_nodes[0].node.metadata["number"] for answer in answers] == [BLUE_CIRCLE] * 3
    (found,) = engine.image_query(path, "what?").source_nodes
    assert [found.node_id] == [each.node_id for each in retriever.image_to_image_retrieve(path)]


def test_found_nodes_hand_over_their_text_and_their_picture(embedding: GMEEmbedding, gallery: Gallery) -> None:
    document = Document(text=CAPTIONS[STAR], image_resource=MediaResource(path=gallery.paths[STAR]))
    index = VectorStoreIndex.from_documents(
        [document], transformations=[MultimodalNodeParser(), embedding], embed_model=embedding
    )
    (found,) = MultimodalVectorIndexRetriever(index).retrieve(CAPTIONS[STAR])
    assert isinstance(found.node, ImageNode)
    text, image = found.node.get_content_blocks(MetadataMode.LLM)
    assert isinstance(text, TextBlock)
    assert text.text == CAPTIONS[STAR]
    assert isinstance(image, ImageBlock)
    assert image.resolve_image().read() == gallery.paths[STAR].read_bytes()
    assert found.node.to_dict() == index.docstore.get_node(found.node_id).to_dict()


class FirstOne(BaseSelector):
    """A selector that needs no language model."""

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts_dict: dict[str, Any]) -> None:
        pass

    def _select(self, choices: Any, query: QueryBundle) -> SelectorResult:
        return SelectorResult(selections=[SingleSelection(index=0, reason="the only one")])

    async def _aselect(self, choices: Any, query: QueryBundle) -> SelectorResult:
        return self._select(choices, query)


AROUND: dict[str, Callable[[MultimodalVectorIndexRetriever], Any]] = {
    "fusion": lambda each: QueryFusionRetriever([each], llm=MockLLM(), num_queries=1, use_async=False),
    "fusion, async": lambda each: QueryFusionRetriever([each], llm=MockLLM(), num_queries=1),
    "router": lambda each: RouterRetriever(
        FirstOne(), [RetrieverTool.from_defaults(each, description="a")], llm=MockLLM()
    ),
}


@pytest.mark.parametrize("name", AROUND)
def test_retrievers_around_it_pass_the_image_on(index: VectorStoreIndex, gallery: Gallery, name: str) -> None:
    outer = AROUND[name](MultimodalVectorIndexRetriever(index, similarity_top_k=2))
    found = outer.retrieve(QueryBundle(CHANGE, image_path=str(gallery.query)))
    assert found[0].node.metadata["number"] == BLUE_CIRCLE


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_embedding_of_the_text_does_not_stand_for_the_image(
    embedding: GMEEmbedding, index: VectorStoreIndex, gallery: Gallery, is_async: bool
) -> None:
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=3)
    query = QueryBundle(CHANGE, image_path=str(gallery.query))
    expected, words = ranks(retriever.retrieve(query)), retriever.text_retrieve(CHANGE)
    assert query.embedding is None
    query.embedding = embedding.get_query_embedding(CHANGE)  # as core's retrievers do
    same(ranks(await retriever.aretrieve(query) if is_async else retriever.retrieve(query)), expected)
    query.embedding = embedding.get_multimodal_query_embedding(query)
    same(ranks(await retriever.atext_retrieve(query) if is_async else retriever.text_retrieve(query)), ranks(words))
    alone = QueryBundle("", embedding=query.embedding)
    same(ranks(await retriever.aretrieve(alone) if is_async else retriever.retrieve(alone)), expected)


@pytest.mark.parametrize("mode", ["text_search", "sparse"])
def test_a_search_by_text_alone_refuses_an_image(index: VectorStoreIndex, gallery: Gallery, mode: str) -> None:
    retriever = MultimodalVectorIndexRetriever(index, vector_store_query_mode=mode)
    with pytest.raises(InputError, match="has an image, and this store or vector_store_query_mode searches by text"):
        retriever.retrieve(QueryBundle(CHANGE, image_path=str(gallery.query)))


def test_postprocessors_and_engines_get_scores(index: VectorStoreIndex, gallery: Gallery) -> None:
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=8)
    query = QueryBundle(CHANGE, image_path=str(gallery.query))
    cutoff = retriever.retrieve(query)[0].get_score() - 1e-6
    engine = RetrieverQueryEngine.from_args(
        retriever,
        llm=MockLLM(is_chat_model=True),
        multimodal=True,
        node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=cutoff)],
    )
    assert [number for number, _ in ranks(engine.query(query).source_nodes)] == [BLUE_CIRCLE]


def test_chunks_merge_to_their_parents_with_the_picture(embedding: GMEEmbedding, gallery: Gallery) -> None:
    parser = MultimodalNodeParser(HierarchicalNodeParser.from_defaults([200, 50], chunk_overlap=0))
    picture = MediaResource(path=gallery.query)
    nodes = parser([Document(text="A red disc is on the white wall. " * 20, image_resource=picture)])
    context = StorageContext.from_defaults()
    context.docstore.add_documents(nodes)
    index = VectorStoreIndex([], storage_context=context, embed_model=embedding)
    index.insert_nodes(list(embedding(get_leaf_nodes(nodes))))
    inner = MultimodalVectorIndexRetriever(index, similarity_top_k=20)
    (found,) = AutoMergingRetriever(inner, context).retrieve(QueryBundle("a wall", image_path=str(gallery.query)))
    assert isinstance(found.node, ImageNode)
    assert found.node.image_path == str(gallery.query)
    assert found.node_id == nodes[0].node_id
