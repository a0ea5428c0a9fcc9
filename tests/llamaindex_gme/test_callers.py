"""The doors of core that leave pictures out: each is refused, and those that are meant are not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llama_index.core import SimpleDirectoryReader, SummaryIndex, VectorStoreIndex
from llama_index.core.indices import MultiModalVectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.postprocessor import SentenceEmbeddingOptimizer
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    MediaResource,
    Node,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)

from llamaindex_gme import GMEEmbedding, MultimodalVectorIndexRetriever, identify_images
from st_modules import InputError, SentenceTransformer
from tests.helpers.gallery import STAR, Gallery
from tests.helpers.references import TOLERANCE


@pytest.fixture(scope="module")
def embedding() -> GMEEmbedding:
    return GMEEmbedding("tiny", device="cpu")


def document(gallery: Gallery) -> Document:
    return Document(text="a star", image_resource=MediaResource(path=gallery.paths[STAR]))


def image_node(gallery: Gallery) -> ImageNode:
    return ImageNode(id_="n", image_path=str(gallery.paths[STAR]), text="a star")


def index_of(embedding: GMEEmbedding, *transformations: Any) -> VectorStoreIndex:
    return VectorStoreIndex([], transformations=[SentenceSplitter(), *transformations], embed_model=embedding)


Door = Callable[[GMEEmbedding, Gallery], Any]
LEFT_OUT: dict[str, Door] = {
    "VectorStoreIndex(nodes)": lambda e, g: VectorStoreIndex([image_node(g)], embed_model=e),
    "VectorStoreIndex(nodes, use_async)": lambda e, g: VectorStoreIndex([image_node(g)], embed_model=e, use_async=True),
    "insert_nodes": lambda e, g: index_of(e).insert_nodes([image_node(g)]),
    "insert_nodes of a picture": lambda e, g: index_of(e).insert_nodes(
        [Node(id_="n", image_resource=MediaResource(path=g.query))]
    ),
    "ainsert_nodes": lambda e, g: asyncio.run(index_of(e).ainsert_nodes([image_node(g)])),
    "from_documents of ImageDocument": lambda e, g: VectorStoreIndex.from_documents(
        [ImageDocument(image_path=str(g.query), metadata={"file_path": str(g.query)})],
        transformations=[SentenceSplitter(id_func=lambda number, node: "n")],
        embed_model=e,
    ),
}
DROPPED: dict[str, Door] = {
    "from_documents": lambda e, g: VectorStoreIndex.from_documents(
        [document(g)], transformations=[SentenceSplitter(), e], embed_model=e
    ),
    "from_documents, texts": lambda e, g: VectorStoreIndex.from_documents(
        [document(g)], transformations=[SentenceSplitter()], embed_model=e
    ),
    "insert": lambda e, g: index_of(e, e).insert(document(g)),
    "insert, texts": lambda e, g: index_of(e).insert(document(g)),
    "refresh_ref_docs": lambda e, g: index_of(e, e).refresh_ref_docs([document(g)]),
    "ainsert": lambda e, g: asyncio.run(index_of(e, e).ainsert(document(g))),
    "IngestionPipeline.run": lambda e, g: IngestionPipeline(transformations=[SentenceSplitter(), e]).run(
        documents=[document(g)]
    ),
    "IngestionPipeline.arun": lambda e, g: asyncio.run(
        IngestionPipeline(transformations=[SentenceSplitter(), e]).arun(documents=[document(g)])
    ),
}


@pytest.mark.parametrize("door", LEFT_OUT)
def test_an_index_that_would_embed_texts_alone_is_refused(embedding: GMEEmbedding, gallery: Gallery, door: str) -> None:
    with pytest.raises(InputError, match="item 0, node n: it has an image, and core's index embeds texts alone"):
        LEFT_OUT[door](embedding, gallery)
    LEFT_OUT[door](GMEEmbedding("tiny", device="cpu", fuse=False), gallery)


ASKING: dict[str, Callable[[VectorStoreIndex, QueryBundle], Any]] = {
    "as_retriever": lambda index, query: index.as_retriever().retrieve(query),
    "aretrieve": lambda index, query: asyncio.run(index.as_retriever().aretrieve(query)),
    "as_query_engine": lambda index, query: index.as_query_engine(llm=MockLLM()).query(query),
    "aquery": lambda index, query: asyncio.run(index.as_query_engine(llm=MockLLM()).aquery(query)),
    "fusion with ours": lambda index, query: QueryFusionRetriever(
        [index.as_retriever(), MultimodalVectorIndexRetriever(index)], llm=MockLLM(), num_queries=1, use_async=False
    ).retrieve(query),
    "SummaryIndex": lambda index, query: (
        SummaryIndex([TextNode(text="a star")])
        .as_retriever(retriever_mode="embedding", embed_model=index._embed_model)
        .retrieve(query)
    ),
}


@pytest.mark.parametrize("door", ASKING)
def test_a_retriever_that_would_ask_with_the_text_alone_is_refused(
    embedding: GMEEmbedding, gallery: Gallery, door: str
) -> None:
    query = QueryBundle("a star", image_path=str(gallery.query))
    index = VectorStoreIndex([TextNode(text="a star")], embed_model=embedding)
    with pytest.raises(InputError, match=r"The query has an image, .*ask with MultimodalVectorIndexRetriever\(index\)"):
        ASKING[door](index, query)
    ASKING[door](index, QueryBundle("a star"))


def test_texts_of_queries_with_pictures_may_be_meant(embedding: GMEEmbedding, gallery: Gallery) -> None:
    def query() -> QueryBundle:  # core writes into it
        return QueryBundle("a star", image_path=str(gallery.query))

    unfused = VectorStoreIndex([TextNode(text="a star")], embed_model=GMEEmbedding("tiny", device="cpu", fuse=False))
    assert len(unfused.as_retriever().retrieve(query())) == 1
    both = MultiModalVectorStoreIndex([image_node(gallery)], embed_model=embedding, image_embed_model=embedding)
    assert both.as_retriever().text_to_image_retrieve(query())
    assert both.as_retriever().image_to_image_retrieve(query())
    optimizer = SentenceEmbeddingOptimizer(embed_model=embedding, percentile_cutoff=1.0)
    found = [NodeWithScore(node=TextNode(text="a star"))]
    assert len(optimizer.postprocess_nodes(found, query_bundle=query())) == 1


@pytest.mark.parametrize("door", DROPPED)
def test_a_splitter_that_drops_pictures_is_refused(embedding: GMEEmbedding, gallery: Gallery, door: str) -> None:
    with pytest.raises(InputError, match="item 0, node .*: its document .* has an image, which the splitter has dropp"):
        DROPPED[door](embedding, gallery)
    DROPPED[door](GMEEmbedding("tiny", device="cpu", fuse=False), gallery)


def test_a_picture_that_was_identified_and_is_lost_is_told_anywhere(embedding: GMEEmbedding, gallery: Gallery) -> None:
    chunks = SentenceSplitter()(identify_images([document(gallery)]))
    with pytest.raises(InputError, match="item 0, node .*: its image is lost, by a splitter that keeps texts alone"):
        embedding(chunks)
    with pytest.raises(InputError, match="it has an image, and core's index embeds texts alone"):
        VectorStoreIndex(chunks, embed_model=embedding)


def test_pixels_that_were_read_as_text_are_refused(embedding: GMEEmbedding, gallery: Gallery) -> None:
    documents = SimpleDirectoryReader(str(gallery.query.parent)).load_data()
    ways: list[list[Any]] = [[SentenceSplitter()], [SentenceSplitter(), embedding]]
    for transformations in ways:
        with pytest.raises(InputError, match="the bytes of a file of type image/png were read as text; pass Simple"):
            VectorStoreIndex.from_documents(documents, transformations=transformations, embed_model=embedding)
    with pytest.raises(InputError, match="item 0, node .*: the bytes of a file of type image/png"):
        embedding(documents)
    page = TextNode(text="%PDF-1.7 ...", metadata={"file_type": "application/pdf"})
    with pytest.raises(InputError, match="of type application/pdf were read as text"):
        embedding([page])


def test_texts_about_pictures_are_texts(embedding: GMEEmbedding, tiny: SentenceTransformer) -> None:
    hidden: dict[str, Any] = {"excluded_embed_metadata_keys": ["file_type"]}
    nodes = [
        TextNode(text="read\tby OCR\n", metadata={"file_type": "image/png"}, **hidden),
        TextNode(text="a page\x00 of text", metadata={"file_type": "application/pdf"}, **hidden),
    ]
    expected = tiny.encode_document([node.text for node in nodes])
    np.testing.assert_allclose([node.get_embedding() for node in embedding(nodes)], expected, atol=TOLERANCE)


def test_a_parser_that_keeps_picture_and_text_apart_is_not_refused(embedding: GMEEmbedding, gallery: Gallery) -> None:
    class Apart(SentenceSplitter):
        def _parse_nodes(self, nodes: Any, show_progress: bool = False, **kwargs: Any) -> list[BaseNode]:
            source: dict[Any, Any] = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=nodes[0].node_id)}
            image = ImageNode(image_path=str(gallery.query), relationships=source)
            return [TextNode(text="a star", relationships=source), image]

    pipeline = IngestionPipeline(transformations=[Apart(), embedding])
    assert len(pipeline.run(documents=[document(gallery)])) == 2


def test_cores_index_of_two_stores_embeds_both(embedding: GMEEmbedding, gallery: Gallery) -> None:
    index = MultiModalVectorStoreIndex([image_node(gallery)], embed_model=embedding, image_embed_model=embedding)
    assert len(index.index_struct.nodes_dict) == 1


def test_nodes_that_are_embedded_already_go_anywhere(embedding: GMEEmbedding, gallery: Gallery) -> None:
    index = VectorStoreIndex(list(embedding([image_node(gallery)])), embed_model=embedding)
    index.insert_nodes(list(embedding([ImageNode(image_path=str(gallery.query))])))
    assert len(index.docstore.docs) == 2
