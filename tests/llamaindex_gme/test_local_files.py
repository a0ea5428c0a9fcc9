"""``ImageLimits(local_files=...)`` counts for every way in which LlamaIndex holds a path."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document, ImageDocument, ImageNode, MediaResource, Node, QueryBundle, TextNode
from pydantic import AnyUrl

from llamaindex_gme import (
    GMEEmbedding,
    MultimodalNodeParser,
    MultimodalVectorIndexRetriever,
    identify_images,
    multimodal_readers,
)
from st_modules import ImageLimits, InputError
from tests.helpers.files import write_pdf
from tests.helpers.gallery import Gallery

CLOSED = ImageLimits(local_files=False)
REFUSED = "opening files is turned off"
OUTSIDE = "not within the folder"

WAYS: dict[str, Callable[[Path], Any]] = {
    "ImageNode, path": lambda path: ImageNode(image_path=str(path)),
    "ImageNode, file URL as path": lambda path: ImageNode(image_path=path.as_uri()),
    "ImageNode, URL": lambda path: ImageNode(image_url=path.as_uri()),
    "ImageDocument": lambda path: ImageDocument(text="a", image_path=str(path)),
    "resource, path": lambda path: Node(image_resource=MediaResource(path=path)),
    "resource, URL": lambda path: Node(image_resource=MediaResource(url=AnyUrl(path.as_uri()))),
    "document": lambda path: Document(text="a", image_resource=MediaResource(path=path)),
}


Make = Callable[[Any], GMEEmbedding]


@pytest.fixture(scope="module", params=["local", "remote"])
def make(request: pytest.FixtureRequest) -> Make:
    """What makes embeddings that open the files it is given: of a model in this process, or of a server."""
    remote = request.param == "remote"
    fields: dict[str, Any] = (
        {"base_url": request.getfixturevalue("tiny_url")} if remote else {"model_name": "tiny", "device": "cpu"}
    )
    return lambda local_files: GMEEmbedding(
        **fields, model_kwargs={"image_limits": ImageLimits(local_files=local_files)}
    )


@pytest.fixture(scope="module")
def closed(make: Make) -> GMEEmbedding:
    return make(False)


@pytest.fixture(scope="module")
def rooted(make: Make, gallery: Gallery) -> GMEEmbedding:
    return make(gallery.paths[0].parent)


@pytest.fixture
def outside(tmp_path: Path, gallery: Gallery) -> Path:
    path = tmp_path / "outside.png"
    path.write_bytes(gallery.paths[0].read_bytes())
    return path


@pytest.mark.parametrize("way", WAYS)
def test_no_file_is_opened_where_none_may_be(way: str, closed: GMEEmbedding, gallery: Gallery) -> None:
    node = WAYS[way](gallery.paths[0])
    with pytest.raises(InputError, match=f"item 1.*{REFUSED}"):
        closed([TextNode(text="a"), node])
    with pytest.raises(InputError, match=REFUSED):
        identify_images([node], CLOSED)


@pytest.mark.parametrize("way", WAYS)
def test_files_of_the_folder_are_opened_and_no_others(
    way: str, rooted: GMEEmbedding, gallery: Gallery, outside: Path
) -> None:
    (node,) = rooted([WAYS[way](gallery.paths[0])])
    assert node.embedding is not None
    with pytest.raises(InputError, match=f"item 0.*{OUTSIDE}"):
        rooted([WAYS[way](outside)])


async def test_what_is_awaited_opens_no_file(closed: GMEEmbedding, gallery: Gallery) -> None:
    with pytest.raises(InputError, match=REFUSED):
        await closed.acall([WAYS["document"](gallery.paths[0])])
    with pytest.raises(InputError, match=REFUSED):
        await closed.aget_image_embedding(str(gallery.paths[0]))


@pytest.mark.parametrize("form", [str, Path, Path.as_uri])
def test_images_and_queries_open_no_file(form: Callable[[Path], Any], closed: GMEEmbedding, gallery: Gallery) -> None:
    image = form(gallery.paths[0])
    index = VectorStoreIndex.from_documents([Document(text="a")], embed_model=closed)
    retriever = MultimodalVectorIndexRetriever(index)
    for ask in (
        lambda: closed.get_image_embedding(image),
        lambda: closed.get_image_embedding_batch([image]),
        lambda: closed.get_multimodal_query_embedding(QueryBundle("a", image_path=image)),
        lambda: retriever.retrieve(QueryBundle("a", image_path=image)),
        lambda: retriever.image_to_image_retrieve(image),
    ):
        with pytest.raises(InputError, match=REFUSED):
            ask()


def test_nodes_that_are_left_out_are_not_opened(gallery: Gallery) -> None:
    skipping = GMEEmbedding("tiny", device="cpu", on_error="skip", model_kwargs={"image_limits": CLOSED})
    (kept,) = skipping([TextNode(text="a"), WAYS["document"](gallery.paths[0])])
    assert kept.embedding is not None


RESTORED: dict[str, Callable[[MultimodalNodeParser], MultimodalNodeParser]] = {
    "as it is": lambda parser: parser,
    "pickled": lambda parser: pickle.loads(pickle.dumps(parser)),
    "from a dictionary": lambda parser: MultimodalNodeParser.from_dict(parser.to_dict()),
    "from JSON": lambda parser: MultimodalNodeParser.from_json(parser.to_json()),
}


@pytest.mark.parametrize("form", RESTORED)
def test_a_node_parser_opens_no_file(form: str, gallery: Gallery, outside: Path) -> None:
    limits = ImageLimits(local_files=gallery.paths[0].parent)
    parser = RESTORED[form](MultimodalNodeParser(SentenceSplitter(), image_limits=limits))
    (inside,), (other,) = (parser([WAYS["document"](path)]) for path in (gallery.paths[0], outside))
    assert "image_sha256" in inside.metadata
    assert "image_sha256" not in other.metadata  # it was not read


def test_the_key_of_a_cache_opens_no_file(closed: GMEEmbedding, gallery: Gallery, monkeypatch: Any) -> None:
    asked: list[Path] = []
    call = Path.open

    def record(path: Path, *args: Any, **options: Any) -> Any:
        asked.append(path)
        return call(path, *args, **options)

    monkeypatch.setattr(Path, "open", record)
    parser = MultimodalNodeParser(image_limits=CLOSED)
    pipeline = IngestionPipeline(transformations=[parser, closed], cache=IngestionCache())
    with pytest.raises(InputError, match=REFUSED):
        pipeline.run(documents=[WAYS["document"](gallery.paths[0])])
    assert gallery.paths[0] not in asked


def test_readers_open_no_file_outside_of_the_folder(tmp_path: Path, gallery: Gallery, outside: Path) -> None:
    write_pdf(tmp_path / "report.pdf", ["red"])
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link.png").symlink_to(outside)
    (tmp_path / "inside" / "link.pdf").symlink_to(tmp_path / "report.pdf")
    readers = multimodal_readers(limits=ImageLimits(local_files=tmp_path / "inside"))
    for name in ("link.png", "link.pdf"):
        with pytest.raises(InputError, match=f"{name}.*{OUTSIDE}"):
            readers[name[4:]].load_data(tmp_path / "inside" / name)
    everything = multimodal_readers(limits=ImageLimits(local_files=tmp_path))
    found = SimpleDirectoryReader(str(tmp_path / "inside"), file_extractor=everything, raise_on_error=True).load_data()
    assert len(found) == 2
