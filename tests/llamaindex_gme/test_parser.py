"""``MultimodalNodeParser``: what core's parsers do with the text, and the picture with every chunk."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import (
    HierarchicalNodeParser,
    MarkdownNodeParser,
    NodeParser,
    SemanticSplitterNodeParser,
    SentenceSplitter,
    SentenceWindowNodeParser,
    SimpleFileNodeParser,
    TokenTextSplitter,
)
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    TextNode,
)
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore

from llamaindex_gme import GMEEmbedding, MultimodalNodeParser, MultimodalVectorIndexRetriever, identify_images
from llamaindex_gme.nodes import IMAGE_ID, image_id, node_image
from st_modules import InputError, SentenceTransformer
from tests.helpers.gallery import CAPTIONS, RED_CIRCLE, STAR, Gallery
from tests.helpers.references import TOLERANCE

TEXT = " ".join(f"Sentence {number} is about a red circle. It is large." for number in range(30))


@pytest.fixture(scope="module")
def embedding() -> GMEEmbedding:
    return GMEEmbedding("tiny", device="cpu")


def number_chunks(number: int, document: BaseNode) -> str:
    return f"{document.node_id}-{number}"


def parsers(**options: Any) -> dict[str, NodeParser]:
    return {
        "sentences": SentenceSplitter(chunk_size=60, chunk_overlap=10, **options),
        "tokens": TokenTextSplitter(chunk_size=60, chunk_overlap=5, **options),
        "window": SentenceWindowNodeParser(window_size=1, **options),
        "hierarchy": HierarchicalNodeParser.from_defaults([200, 60], chunk_overlap=5),
        "markdown": MarkdownNodeParser(**options),
        "file": SimpleFileNodeParser(**options),
        "semantic": SemanticSplitterNodeParser(embed_model=MockEmbedding(embed_dim=4), **options),
    }


def documents(gallery: Gallery) -> dict[str, BaseNode]:
    path = gallery.paths[STAR]
    options: dict[str, Any] = {"id_": "d", "metadata": {"page": 7}, "excluded_embed_metadata_keys": ["page"]}
    resource, words = MediaResource(path=path), MediaResource(text=TEXT)
    return {
        "Document": Document(text=TEXT, image_resource=resource, **options),
        "Document of bytes": Document(text=TEXT, image_resource=MediaResource(data=path.read_bytes()), **options),
        "ImageDocument": ImageDocument(text=TEXT, image_path=str(path), **options),
        "ImageNode": ImageNode(text=TEXT, image_path=str(path), **options),
        "Node": Node(text_resource=words, image_resource=resource, **options),
    }


DOCUMENTS = ["Document", "Document of bytes", "ImageDocument", "ImageNode", "Node"]


def shape(node: BaseNode) -> dict[str, Any]:
    """What core gives a chunk, but for random ids."""
    related = {kind.name: info for kind, info in node.relationships.items()}
    return {
        "text": node.get_content(MetadataMode.EMBED),
        "llm": node.get_content(MetadataMode.LLM),
        "span": (getattr(node, "start_char_idx", None), getattr(node, "end_char_idx", None)),
        "metadata": {key: value for key, value in node.metadata.items() if key != IMAGE_ID},
        "related": sorted(related),
        "source": node.ref_doc_id,
    }


@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("name", parsers())
async def test_every_chunk_is_cores_and_has_the_picture(gallery: Gallery, name: str, kind: str) -> None:
    document = documents(gallery)[kind]
    plain = Document(text=TEXT, id_="d", metadata={"page": 7}, excluded_embed_metadata_keys=["page"])
    expected = parsers()[name]([plain])
    parser = MultimodalNodeParser(parsers()[name])
    found = parser([document])
    assert [shape(node) for node in found] == [shape(node) for node in expected]
    assert {type(node) for node in found} == {ImageNode}
    picture = node_image(document)
    assert {node_image(node) for node in found} == {picture}
    assert picture is not None
    assert {node.metadata[IMAGE_ID] for node in found} == {image_id(picture, "picture")}
    infos = {node.node_id: node.as_related_node_info() for node in [*found, document]}
    for related in (each for node in found for each in node.relationships.values()):
        for each in related if isinstance(related, list) else [related]:
            assert each == infos[each.node_id]
    again = await parser.acall([document])
    assert [shape(node) for node in again] == [shape(node) for node in expected]


@pytest.mark.parametrize("name", parsers())
def test_documents_without_a_picture_are_split_as_they_are(name: str) -> None:
    texts: list[Any] = [Document(text=TEXT, id_="a"), TextNode(text="short", id_="b"), Document(text=TEXT, id_="c")]
    found, expected = MultimodalNodeParser(parsers()[name])(texts), parsers()[name](texts)
    assert [shape(node) for node in found] == [shape(node) for node in expected]
    assert [type(node) for node in found] == [type(node) for node in expected]


@pytest.mark.parametrize("options", [{"include_metadata": False}, {"include_prev_next_rel": False}, {}])
@pytest.mark.parametrize("outside", [True, False])
def test_what_a_node_parser_is_told_is_kept(gallery: Gallery, options: dict[str, Any], outside: bool) -> None:
    options = {**options, "id_func": number_chunks}
    inner = SentenceSplitter(chunk_size=60, chunk_overlap=10, **({} if outside else options))
    parser = MultimodalNodeParser(inner, **(options if outside else {}))
    plain = Document(text=TEXT, id_="d", metadata={"page": 7}, excluded_embed_metadata_keys=["page"])
    expected = SentenceSplitter(chunk_size=60, chunk_overlap=10, **options)([plain])
    found = parser([documents(gallery)["Document"]])
    assert [shape(node) for node in found] == [shape(node) for node in expected]
    assert [node.node_id for node in found] == [node.node_id for node in expected]
    assert parser.include_metadata is parser.node_parser.include_metadata is options.get("include_metadata", True)
    assert parser([Document(id_="p", image_resource=MediaResource(path=gallery.query))])[0].node_id == "p-0"


def test_order_is_kept_in_a_mixture(gallery: Gallery) -> None:
    mixture: list[Any] = [
        Document(text="first", id_="0"),
        Document(image_resource=MediaResource(path=gallery.query), id_="1"),
        Document(text="third", id_="2"),
        Document(text=TEXT, image_resource=MediaResource(path=gallery.query), id_="3"),
        Document(text="fifth", id_="4"),
    ]
    found = MultimodalNodeParser(SentenceSplitter(chunk_size=60, chunk_overlap=10))(mixture, show_progress=True)
    assert list(dict.fromkeys(node.ref_doc_id for node in found)) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("make", [Document, Node, ImageDocument], ids=lambda each: each.__name__)
def test_a_picture_without_a_text_is_one_node_that_core_keeps(
    embedding: GMEEmbedding, tiny: SentenceTransformer, gallery: Gallery, make: Callable[..., BaseNode]
) -> None:
    document = make(image_resource=MediaResource(path=gallery.paths[STAR]), metadata={"page": 7}, id_="d")
    (node,) = MultimodalNodeParser()([document])
    assert isinstance(node, ImageNode)
    assert node.relationships == {NodeRelationship.SOURCE: document.as_related_node_info()}
    assert node.metadata["page"] == 7
    assert node.get_content(MetadataMode.EMBED) != ""  # core's index leaves out nodes without one
    assert node.metadata[IMAGE_ID] not in node.get_content(MetadataMode.LLM)
    np.testing.assert_allclose(
        embedding([node])[0].get_embedding(), tiny.encode_document(gallery.paths[STAR]), atol=TOLERANCE
    )


def test_references_to_something_else_stay_what_they_are(gallery: Gallery) -> None:
    class Linker(SentenceSplitter):
        def _parse_nodes(self, nodes: Any, show_progress: bool = False, **kwargs: Any) -> list[BaseNode]:
            return [IndexNode(text="a", index_id="i")]

    (node,) = MultimodalNodeParser(Linker())([documents(gallery)["Document"]])
    assert type(node) is IndexNode


def test_a_picture_that_cannot_be_read_is_for_the_embedding_to_tell(embedding: GMEEmbedding) -> None:
    nodes = MultimodalNodeParser()([Document(image_resource=MediaResource(path=Path("missing.png")))])
    with pytest.raises(ValueError, match=r"item 0, node .*missing\.png: no such file"):
        embedding(nodes)
    assert GMEEmbedding("tiny", device="cpu", on_error="skip")(nodes) == []


@pytest.mark.parametrize("name", parsers())
def test_it_is_the_same_after_a_dump_and_a_pickle(gallery: Gallery, name: str) -> None:
    parser = MultimodalNodeParser(parsers()[name])
    document = documents(gallery)["Document"]
    expected = [shape(node) for node in parser([document])]  # core's parsers do not survive being pickled
    fields = parser.to_dict()
    assert fields["class_name"] == "MultimodalNodeParser"
    for again in (MultimodalNodeParser.from_dict(fields), pickle.loads(pickle.dumps(parser))):
        assert type(again.node_parser) is type(parser.node_parser)
        assert again.to_dict() == fields
        assert [shape(node) for node in again([document])] == expected


def test_it_is_the_same_around_a_semantic_splitter_with_our_embedding(embedding: GMEEmbedding) -> None:
    parser = MultimodalNodeParser(SemanticSplitterNodeParser(embed_model=embedding))
    again = MultimodalNodeParser.from_json(parser.to_json())
    assert again.to_dict() == parser.to_dict()
    assert isinstance(again.node_parser, SemanticSplitterNodeParser)
    assert isinstance(again.node_parser.embed_model, GMEEmbedding)


def test_what_is_no_node_parser_is_refused() -> None:
    with pytest.raises(TypeError, match="node_parser is of type int; pass a node parser of LlamaIndex"):
        MultimodalNodeParser(3)  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r"node_parser is the class SentenceSplitter; pass one of it: SentenceSplitter\(\)"
    ):
        MultimodalNodeParser(SentenceSplitter)  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match="type GMEEmbedding; pass a node parser of LlamaIndex. Your own is a subclass of"
    ):
        MultimodalNodeParser(GMEEmbedding("tiny", device="cpu"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Nowhere: no component that is imported; import its class first"):
        MultimodalNodeParser({"class_name": "Nowhere"})


def test_arguments_that_it_does_not_know_are_refused() -> None:
    with pytest.raises(TypeError, match=r"takes no splitter; the splitter comes first"):
        MultimodalNodeParser(splitter=SentenceSplitter())
    with pytest.raises(TypeError, match=r"takes no chunk_overlap, chunk_size; .*SentenceSplitter\(chunk_size=512\)"):
        MultimodalNodeParser(chunk_size=100, chunk_overlap=0)


def test_the_class_among_transformations_is_told_its_parentheses(embedding: GMEEmbedding) -> None:
    transformations: list[Any] = [MultimodalNodeParser, embedding]
    with pytest.raises(TypeError, match=r"called with a list; among transformations write MultimodalNodeParser\(\)"):
        VectorStoreIndex.from_documents([Document(text="a")], transformations=transformations, embed_model=embedding)


EMBEDDED: dict[str, Callable[[list[Any], list[Document]], Any]] = {
    "from_documents": lambda each, given: VectorStoreIndex.from_documents(
        given, transformations=each, embed_model=each[0]
    ),
    "IngestionPipeline.run": lambda each, given: IngestionPipeline(transformations=each).run(documents=given),
    "IngestionPipeline.arun": lambda each, given: asyncio.run(
        IngestionPipeline(transformations=each).arun(documents=given)
    ),
}


@pytest.mark.parametrize("door", EMBEDDED)
def test_documents_that_are_embedded_before_they_are_split_are_refused(
    embedding: GMEEmbedding, gallery: Gallery, door: str
) -> None:
    for given in gallery_documents(gallery):
        with pytest.raises(
            InputError, match=f"item 0, node {given.node_id}: it has an embedding already, .*put the node parser bef"
        ):
            EMBEDDED[door]([embedding, MultimodalNodeParser()], [given])
        given.embedding = None
        EMBEDDED[door]([embedding], [given])


@pytest.mark.parametrize("wrong", ["a text", Document(text="a"), 3])
def test_what_is_no_list_of_documents_is_named(wrong: Any) -> None:
    with pytest.raises(InputError, match=f"A {type(wrong).__name__} where a list of nodes belongs"):
        MultimodalNodeParser()(wrong)
    with pytest.raises(InputError, match=f"item 1: a {type([wrong]).__name__}, which is no node"):
        MultimodalNodeParser().get_nodes_from_documents([Document(text="a"), [wrong]])  # type: ignore[list-item]


def gallery_documents(gallery: Gallery) -> list[Document]:
    """A picture, a picture with a text, a text."""
    return identify_images(
        [
            Document(id_="picture", image_resource=MediaResource(path=gallery.paths[STAR])),
            Document(id_="both", text=CAPTIONS[0], image_resource=MediaResource(path=gallery.paths[RED_CIRCLE])),
            Document(id_="text", text=CAPTIONS[1]),
        ]
    )


def gallery_items(gallery: Gallery) -> dict[str, Any]:
    return {
        "picture": {"image": gallery.paths[STAR]},
        "both": {"image": gallery.paths[RED_CIRCLE], "text": CAPTIONS[0]},
        "text": {"text": CAPTIONS[1]},
    }


def from_documents(embedding: GMEEmbedding, given: list[Document]) -> VectorStoreIndex:
    return VectorStoreIndex.from_documents(
        given, transformations=[MultimodalNodeParser(), embedding], embed_model=embedding
    )


def from_settings(embedding: GMEEmbedding, given: list[Document]) -> VectorStoreIndex:
    Settings.embed_model, Settings.transformations = embedding, [MultimodalNodeParser(), embedding]
    return VectorStoreIndex.from_documents(given)


def inserted(embedding: GMEEmbedding, given: list[Document]) -> VectorStoreIndex:
    index = VectorStoreIndex([], transformations=[MultimodalNodeParser(), embedding], embed_model=embedding)
    for document in given:
        index.insert(document)
    return index


def refreshed(embedding: GMEEmbedding, given: list[Document]) -> VectorStoreIndex:
    index = VectorStoreIndex([], transformations=[MultimodalNodeParser(), embedding], embed_model=embedding)
    assert index.refresh_ref_docs(given) == [True] * len(given)
    assert index.refresh_ref_docs(given) == [False] * len(given)
    return index


def ingested(embedding: GMEEmbedding, given: list[Document]) -> VectorStoreIndex:
    index = VectorStoreIndex([], embed_model=embedding)
    index.insert_nodes(
        list(IngestionPipeline(transformations=[MultimodalNodeParser(), embedding]).run(documents=given))
    )
    return index


@pytest.mark.parametrize("build", [from_documents, from_settings, inserted, refreshed, ingested])
def test_documents_of_every_kind_get_into_an_index(
    embedding: GMEEmbedding,
    tiny: SentenceTransformer,
    gallery: Gallery,
    monkeypatch: pytest.MonkeyPatch,
    build: Callable[[GMEEmbedding, list[Document]], VectorStoreIndex],
) -> None:
    monkeypatch.setattr(Settings, "_embed_model", None)
    monkeypatch.setattr(Settings, "_transformations", None)
    index = build(embedding, gallery_documents(gallery))
    stored = index.vector_store.to_dict()["embedding_dict"]
    found = {node.ref_doc_id: stored[key] for key, node in index.docstore.docs.items()}
    assert set(found) == set(gallery_items(gallery))
    for name, item in gallery_items(gallery).items():
        np.testing.assert_allclose(found[name], tiny.encode_document(item), atol=TOLERANCE)


@pytest.mark.parametrize("strategy", [DocstoreStrategy.UPSERTS, DocstoreStrategy.UPSERTS_AND_DELETE])
def test_a_picture_that_has_changed_takes_the_place_of_the_other(
    embedding: GMEEmbedding, tiny: SentenceTransformer, gallery: Gallery, tmp_path: Any, strategy: DocstoreStrategy
) -> None:
    path, store = tmp_path / "picture.png", SimpleVectorStore()
    pipeline = IngestionPipeline(
        transformations=[MultimodalNodeParser(), embedding],
        docstore=SimpleDocumentStore(),
        docstore_strategy=strategy,
        vector_store=store,
    )
    for number in (RED_CIRCLE, RED_CIRCLE, STAR):
        path.write_bytes(gallery.paths[number].read_bytes())
        pipeline.run(documents=identify_images([Document(id_="d", image_resource=MediaResource(path=path))]))
    (found,) = store.to_dict()["embedding_dict"].values()
    np.testing.assert_allclose(found, tiny.encode_document(gallery.paths[STAR]), atol=TOLERANCE)


def test_a_persisted_cache_answers(
    embedding: GMEEmbedding, gallery: Gallery, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformations: list[Any] = [MultimodalNodeParser(), embedding]
    pipeline = IngestionPipeline(transformations=transformations)
    first = pipeline.run(documents=gallery_documents(gallery))
    pipeline.persist(str(tmp_path))
    later = IngestionPipeline(transformations=transformations)
    later.load(str(tmp_path))
    monkeypatch.setattr(GMEEmbedding, "__call__", lambda *_, **__: pytest.fail("the cache was not used"))
    second = later.run(documents=gallery_documents(gallery))
    assert [node.embedding for node in second] == [node.embedding for node in first]
    assert [node_image(node) for node in second] == [node_image(node) for node in first]


def test_found_chunks_of_bytes_have_their_picture(embedding: GMEEmbedding, gallery: Gallery) -> None:
    data = MediaResource(data=gallery.paths[STAR].read_bytes())
    index = from_documents(embedding, [Document(text=CAPTIONS[STAR], image_resource=data)])
    (found,) = MultimodalVectorIndexRetriever(index).retrieve(CAPTIONS[STAR])
    assert node_image(found.node) == f"data:image/*;base64,{gallery.base64(STAR)}"
