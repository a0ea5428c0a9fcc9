"""Ingestion pipelines: what their cache mixes up, and the way through."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    MediaResource,
    MetadataMode,
    Node,
    TextNode,
)
from llama_index.core.storage.docstore import SimpleDocumentStore

from llamaindex_gme import GMEEmbedding, MultimodalNodeParser, identify_images
from llamaindex_gme.nodes import IMAGE_ID
from st_modules import ImageError, ImageLimits, InputError, SentenceTransformer
from tests.helpers.gallery import CAPTIONS, RED_CIRCLE, STAR, Gallery
from tests.helpers.loopback import Server
from tests.helpers.references import TOLERANCE


@pytest.fixture(scope="module", params=["local", "remote"])
def embedding(request: pytest.FixtureRequest) -> GMEEmbedding:
    """Of the model in this process, or in a server."""
    if request.param == "local":
        return GMEEmbedding("tiny", device="cpu")
    return GMEEmbedding(base_url=request.getfixturevalue("tiny_url"))


def embeddings_of(nodes: Sequence[BaseNode]) -> np.ndarray:
    return np.array([node.embedding for node in nodes])


def pictures(kind: str, gallery: Gallery) -> list[BaseNode]:
    """Two nodes with different pictures and no text."""
    paths = (gallery.paths[RED_CIRCLE], gallery.paths[STAR])
    if kind == "ImageNode by path":
        return [ImageNode(image_path=str(path)) for path in paths]
    if kind == "ImageNode as base64":
        return [ImageNode(image=gallery.base64(number)) for number in (RED_CIRCLE, STAR)]
    if kind == "ImageNode by url":
        return [ImageNode(image_url=path.as_uri()) for path in paths]
    if kind == "Node by path":
        return [Node(image_resource=MediaResource(path=path)) for path in paths]
    if kind == "Node of bytes":
        return [Node(image_resource=MediaResource(data=path.read_bytes())) for path in paths]
    return [ImageDocument(image_path=str(path)) for path in paths]


KINDS = [
    "ImageNode by path",
    "ImageNode as base64",
    "ImageNode by url",
    "Node by path",
    "Node of bytes",
    "ImageDocument",
]


def ingested_one_by_one(pipeline: IngestionPipeline, nodes: Sequence[BaseNode]) -> list[BaseNode]:
    return [pipeline.run(nodes=[node])[0] for node in nodes]


@pytest.mark.parametrize("parser", [None, MultimodalNodeParser()], ids=["embedding", "parser and embedding"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_cache_tells_pictures_without_text_apart(
    embedding: GMEEmbedding, tiny: SentenceTransformer, gallery: Gallery, kind: str, parser: MultimodalNodeParser | None
) -> None:
    """Of itself it does not (run-llama/llama_index#23002): its key is made of the text alone."""
    expected = tiny.encode_document([gallery.paths[RED_CIRCLE], gallery.paths[STAR]])
    pipeline = IngestionPipeline(transformations=[parser, embedding] if parser else [embedding])
    found = ingested_one_by_one(pipeline, pictures(kind, gallery))
    np.testing.assert_allclose(embeddings_of(found), expected, atol=TOLERANCE)
    again = [(await pipeline.arun(nodes=[node]))[0] for node in pictures(kind, gallery)]
    assert [node.node_id for node in again] == [node.node_id for node in found]


def test_the_cache_of_other_embeddings_mixes_them_up(gallery: Gallery) -> None:
    """Why the fields of ours say which pictures there are. If this fails, they need not."""
    pipeline = IngestionPipeline(transformations=[MockEmbedding(embed_dim=4)])
    first, second = ingested_one_by_one(pipeline, pictures("ImageDocument", gallery))
    assert second.node_id == first.node_id


def test_the_cache_goes_by_the_content_of_a_picture(
    embedding: GMEEmbedding, tiny: SentenceTransformer, gallery: Gallery, tmp_path: Path
) -> None:
    path = tmp_path / "picture.png"
    pipeline = IngestionPipeline(transformations=[MultimodalNodeParser(), embedding])
    for number in (RED_CIRCLE, STAR):
        path.write_bytes(gallery.paths[number].read_bytes())
        (node,) = pipeline.run(documents=[Document(text="a", image_resource=MediaResource(path=path))])
        expected = tiny.encode_document([{"text": "a", "image": path}])
        np.testing.assert_allclose(embeddings_of([node]), expected, atol=TOLERANCE)


def test_the_fields_name_pictures_for_a_cache_alone(embedding: GMEEmbedding) -> None:
    assert "images" not in embedding.to_dict()
    assert "images" not in MultimodalNodeParser().to_dict()


@pytest.mark.parametrize("kind", KINDS)
async def test_identified_pictures_keep_their_own_embeddings(
    embedding: GMEEmbedding, tiny: SentenceTransformer, gallery: Gallery, kind: str
) -> None:
    expected = tiny.encode_document([gallery.paths[RED_CIRCLE], gallery.paths[STAR]])
    nodes = identify_images(pictures(kind, gallery))
    pipeline = IngestionPipeline(transformations=[embedding])
    found = ingested_one_by_one(pipeline, nodes)
    assert [node.node_id for node in found] == [node.node_id for node in nodes]
    np.testing.assert_allclose(embeddings_of(found), expected, atol=TOLERANCE)
    again = [(await pipeline.arun(nodes=[node]))[0] for node in identify_images(pictures(kind, gallery))]
    np.testing.assert_allclose(embeddings_of(again), expected, atol=TOLERANCE)


def test_a_second_run_comes_from_the_cache(
    embedding: GMEEmbedding, gallery: Gallery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipeline = IngestionPipeline(transformations=[embedding])
    first = ingested_one_by_one(pipeline, identify_images(pictures("ImageNode by path", gallery)))
    pipeline.persist(str(tmp_path))
    later = IngestionPipeline(transformations=[embedding])
    later.load(str(tmp_path))
    monkeypatch.setattr(GMEEmbedding, "__call__", lambda *_, **__: pytest.fail("the cache was not used"))
    second = ingested_one_by_one(later, identify_images(pictures("ImageNode by path", gallery)))
    assert [node.embedding for node in second] == [node.embedding for node in first]


def test_another_instruction_or_model_has_a_key_of_its_own(gallery: Gallery) -> None:
    dicts = [
        GMEEmbedding("tiny", device="cpu", **options).to_dict()
        for options in ({}, {"fuse": False}, {"query_instruction": "Find."}, {"model_kwargs": {"max_image_tokens": 14}})
    ]
    assert len({str(fields) for fields in dicts}) == len(dicts)


def test_a_changed_file_is_embedded_anew(
    embedding: GMEEmbedding, tiny: SentenceTransformer, gallery: Gallery, tmp_path: Path
) -> None:
    path, pipeline = tmp_path / "picture.png", IngestionPipeline(transformations=[embedding])
    for number in (RED_CIRCLE, STAR):
        path.write_bytes(gallery.paths[number].read_bytes())
        (node,) = pipeline.run(nodes=identify_images([ImageNode(image_path=str(path))]))
        np.testing.assert_allclose(embeddings_of([node]), tiny.encode_document([path]), atol=TOLERANCE)


def test_the_identity_is_in_no_text(embedding: GMEEmbedding, gallery: Gallery) -> None:
    node = ImageNode(image_path=str(gallery.paths[STAR]), text=CAPTIONS[STAR], metadata={"page": 7})
    (identified,) = identify_images([node])
    assert identified.metadata[IMAGE_ID] == hashlib.sha256(gallery.paths[STAR].read_bytes()).hexdigest()
    assert identified.get_content(MetadataMode.EMBED) == node.get_content(MetadataMode.EMBED)
    assert identified.get_content(MetadataMode.LLM) == node.get_content(MetadataMode.LLM)
    assert identified.metadata[IMAGE_ID] in identified.get_content(MetadataMode.ALL)
    assert embedding([identified])[0].embedding == embedding([node])[0].embedding
    assert identified.node_id == node.node_id


def test_the_callers_nodes_are_not_changed_and_twice_is_once(gallery: Gallery) -> None:
    node, text = ImageNode(image_path=str(gallery.query)), TextNode(text="a")
    once = identify_images([node, text])
    assert node.metadata == {}
    assert node.excluded_embed_metadata_keys == []
    assert once[1] is text
    assert identify_images(once) == once


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ImageError, match=r"item 1, node n: missing\.png: no such file") as caught:
        identify_images([TextNode(text="a"), ImageNode(id_="n", image_path="missing.png")])
    assert caught.value.index == 1


def test_what_an_image_costs_has_limits(tmp_path: Path) -> None:
    (tmp_path / "long.png").touch()
    os.truncate(tmp_path / "long.png", 10**12)
    os.mkfifo(tmp_path / "fifo")
    for path in (Path("/dev/zero"), tmp_path / "fifo", tmp_path, tmp_path / "long.png"):
        for node in (ImageNode(id_="n", image_path=str(path)), Node(id_="n", image_resource=MediaResource(path=path))):
            with pytest.raises(ImageError, match="item 0, node n: .*(not a regular file|over the limit)"):
                identify_images([node])


def test_the_identity_is_of_the_bytes_in_every_form(gallery: Gallery) -> None:
    path, encoded = gallery.paths[STAR], gallery.base64(STAR)
    nodes: list[BaseNode] = [
        ImageNode(image_path=str(path)),
        ImageNode(image_url=path.as_uri()),
        ImageNode(image=encoded),
        ImageNode(image=f"data:image/png;base64,{encoded}"),
        Node(image_resource=MediaResource(data=path.read_bytes())),
        Node(image_resource=MediaResource(path=path)),
        ImageDocument(image=encoded),
    ]
    identities = {node.metadata[IMAGE_ID] for node in identify_images(nodes)}
    assert identities == {hashlib.sha256(path.read_bytes()).hexdigest()}


def test_an_address_is_not_fetched_to_identify_it(server: Server) -> None:
    (node,) = identify_images([ImageNode(image_url=server.url())])
    assert node.metadata[IMAGE_ID] == hashlib.sha256(server.url().encode()).hexdigest()
    assert server.requests == []


def test_a_document_whose_picture_changes_is_another(gallery: Gallery, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    hashes = set()
    for number in (RED_CIRCLE, STAR):
        path.write_bytes(gallery.paths[number].read_bytes())
        hashes |= {node.hash for node in identify_images([Document(image_resource=MediaResource(path=path))])}
    assert len(hashes) == 2


def test_documents_with_pictures_are_split_and_embedded(
    embedding: GMEEmbedding, tiny: SentenceTransformer, gallery: Gallery
) -> None:
    path = gallery.paths[STAR]
    documents = [
        ImageDocument(image_path=str(path), text=CAPTIONS[STAR]),
        ImageDocument(image_path=str(gallery.query), text=CAPTIONS[RED_CIRCLE]),
        Document(text=CAPTIONS[STAR]),
    ]
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), embedding],
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.DUPLICATES_ONLY,
    )
    nodes = pipeline.run(documents=identify_images(documents))
    expected = tiny.encode_document(
        [
            {"text": CAPTIONS[STAR], "image": path},
            {"text": CAPTIONS[RED_CIRCLE], "image": gallery.query},
            {"text": CAPTIONS[STAR]},
        ]
    )
    np.testing.assert_allclose(embeddings_of(nodes), expected, atol=TOLERANCE)
    assert pipeline.run(documents=identify_images(documents)) == []


def test_an_index_of_documents_fuses_them_with_the_embedding_among_its_transformations(
    embedding: GMEEmbedding, tiny: SentenceTransformer, gallery: Gallery
) -> None:
    documents = [
        ImageDocument(image_path=str(path), text=text) for path, text in zip(gallery.paths, CAPTIONS, strict=True)
    ]
    splitter = SentenceSplitter(chunk_size=64, chunk_overlap=0)
    index = VectorStoreIndex.from_documents(
        documents[:-1], transformations=[splitter, embedding], embed_model=embedding
    )
    index.insert(documents[-1])
    stored = index.vector_store.to_dict()["embedding_dict"]
    found = {node.get_content(): stored[key] for key, node in index.docstore.docs.items()}
    items = [{"text": text, "image": path} for path, text in zip(gallery.paths, CAPTIONS, strict=True)]
    np.testing.assert_allclose([found[text] for text in CAPTIONS], tiny.encode_document(items), atol=TOLERANCE)


@pytest.mark.parametrize("damage", ["missing", "empty", "no base64", "outside"])
def test_a_picture_that_cannot_be_read_does_not_stop_a_catalogue(gallery: Gallery, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = {"outside": tmp_path}.get(damage, folder) / "picture.png"
    encoded = gallery.paths[STAR].read_bytes()
    path.write_bytes(encoded)
    good = folder / "good.png"
    good.write_bytes(encoded)
    bad = ImageNode(image="!") if damage == "no base64" else ImageNode(image_path=str(path))
    limits = ImageLimits(local_files=folder)
    if damage in ("missing", "empty"):
        (bad,) = identify_images([bad])
        path.write_bytes(b"")
        if damage == "missing":
            path.unlink()
    nodes = [bad, ImageNode(image_path=str(good)), TextNode(text="a")]
    with pytest.raises(InputError, match=f"item 0, node {bad.node_id}: "):
        identify_images(nodes, limits)
    found = identify_images(nodes, limits, on_error="skip")
    assert [node.node_id for node in found] == [node.node_id for node in nodes]
    assert [node.metadata.get(IMAGE_ID) for node in found] == [None, hashlib.sha256(encoded).hexdigest(), None]
    skipping = GMEEmbedding("tiny", device="cpu", on_error="skip", model_kwargs={"image_limits": limits})
    assert skipping(found) == found[1:]


def test_what_becomes_of_a_picture_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="on_error='ignore'; pass"):
        identify_images([], on_error="ignore")  # type: ignore[arg-type]
