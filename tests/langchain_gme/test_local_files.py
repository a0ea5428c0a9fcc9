"""``ImageLimits(local_files=...)`` counts for every way in which LangChain holds a path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from langchain_core.messages import HumanMessage
from langchain_core.prompt_values import ChatPromptValue, ImagePromptValue
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_gme import (
    GMEEmbeddings,
    MultimodalFilter,
    MultimodalRetriever,
    MultimodalStore,
    add_multimodal,
    identify_images,
    to_content_blocks,
)
from st_modules import ImageLimits, InputError
from tests.helpers.gallery import Gallery

CLOSED = ImageLimits(local_files=False)
REFUSED = "opening files is turned off"
OUTSIDE = "not within the folder"

WAYS: dict[str, Callable[[Path], Any]] = {
    "path": Path,
    "image": lambda path: {"image": str(path)},
    "image url": lambda path: {"image": {"url": path.as_uri()}},
    "not decoded": lambda path: {"bytes": None, "path": str(path)},
    "block, url": lambda path: {"type": "image", "url": path.as_uri()},
    "block, path": lambda path: {"type": "image", "path": str(path)},
    "block, image": lambda path: {"type": "image", "image": path},
    "block of OpenAI": lambda path: {"type": "image_url", "image_url": {"url": path.as_uri()}},
    "block of Anthropic": lambda path: {"type": "image", "source": {"type": "url", "url": path.as_uri()}},
    "block of Google": lambda path: {"file_data": {"mime_type": "image/png", "file_uri": path.as_uri()}},
    "message": lambda path: HumanMessage([{"type": "image", "url": path.as_uri()}]),
    "prompt": lambda path: ChatPromptValue(messages=[HumanMessage([{"type": "image", "url": path.as_uri()}])]),
    "prompt of an image": lambda path: ImagePromptValue(image_url={"url": path.as_uri()}),
    "blob": Blob.from_path,
    "blob of a text": lambda path: Blob.from_path(path, mime_type="text/plain", encoding="latin-1"),
    "metadata": lambda path: Document("", metadata={"image": str(path)}),
    "metadata, path": lambda path: Document("", metadata={"image_path": path}),
    "metadata, url": lambda path: Document("", metadata={"image_url": path.as_uri()}),
    "metadata, blob": lambda path: Document("", metadata={"image": Blob.from_path(path)}),
    "metadata, several": lambda path: Document("", metadata={"image": json.dumps([str(path), str(path)])}),
}
DOCUMENTS = [way for way in WAYS if way.startswith("metadata")]


Make = Callable[[Any], GMEEmbeddings]


@pytest.fixture(scope="module", params=["local", "remote"])
def make(request: pytest.FixtureRequest) -> Make:
    """What makes embeddings that open the files it is given: of a model in this process, or of a server."""
    remote = request.param == "remote"
    fields = {"base_url": request.getfixturevalue("tiny_url")} if remote else {"model": "tiny"}
    own = {} if remote else {"device": "cpu"}
    return lambda local_files: GMEEmbeddings(
        **fields, model_kwargs={**own, "image_limits": ImageLimits(local_files=local_files)}
    )


@pytest.fixture(scope="module")
def closed(make: Make) -> GMEEmbeddings:
    return make(False)


@pytest.fixture(scope="module")
def rooted(make: Make, gallery: Gallery) -> GMEEmbeddings:
    return make(gallery.paths[0].parent)


@pytest.fixture
def outside(tmp_path: Path, gallery: Gallery) -> Path:
    path = tmp_path / "outside.png"
    path.write_bytes(gallery.paths[0].read_bytes())
    return path


@pytest.mark.parametrize("way", WAYS)
def test_no_file_is_opened_where_none_may_be(way: str, closed: GMEEmbeddings, gallery: Gallery) -> None:
    value = WAYS[way](gallery.paths[0])
    with pytest.raises(InputError, match=f"item 1.*{REFUSED}"):
        closed.embed_multimodal(["a text", value])
    with pytest.raises(InputError, match=f"query.*{REFUSED}"):
        closed.embed_query_multimodal(value)


@pytest.mark.parametrize("way", WAYS)
def test_files_of_the_folder_are_opened_and_no_others(
    way: str, rooted: GMEEmbeddings, gallery: Gallery, outside: Path
) -> None:
    if way != "metadata, several":  # "tiny" is asked with one image
        assert len(rooted.embed_multimodal([WAYS[way](gallery.paths[0])])) == 1
    with pytest.raises(InputError, match=f"item 0.*{OUTSIDE}"):
        rooted.embed_multimodal([WAYS[way](outside)])


@pytest.mark.parametrize("method", ["embed_image", "embed_images"])
def test_methods_for_images_open_no_file(method: str, closed: GMEEmbeddings, gallery: Gallery) -> None:
    for image in (str(gallery.paths[0]), gallery.paths[0].as_uri()):
        with pytest.raises(InputError, match=REFUSED):
            getattr(closed, method)([image])


@pytest.mark.parametrize("way", ["metadata", "blob of a text", "block, url"])
async def test_what_is_awaited_opens_no_file(way: str, closed: GMEEmbeddings, gallery: Gallery) -> None:
    value = WAYS[way](gallery.paths[0])
    with pytest.raises(InputError, match=REFUSED):
        await closed.aembed_multimodal([value])
    with pytest.raises(InputError, match=REFUSED):
        await closed.aembed_query_multimodal(value)


@pytest.mark.parametrize("way", WAYS)
def test_stores_and_retrievers_open_no_file(way: str, closed: GMEEmbeddings, gallery: Gallery) -> None:
    value = WAYS[way](gallery.paths[0])
    store = InMemoryVectorStore(closed)
    with pytest.raises(InputError, match=f"item 0.*{REFUSED}"):
        add_multimodal(store, [value])
    assert add_multimodal(store, ["a text", value], on_error="skip") == list(store.store)
    assert [row["text"] for row in store.store.values()] == ["a text"]
    with pytest.raises(InputError, match=REFUSED):
        MultimodalRetriever(vectorstore=store).invoke(value)
    with pytest.raises(InputError, match=REFUSED):
        MultimodalFilter(embeddings=closed).compress_documents([Document("a text")], value)


def test_a_search_reads_no_text_of_a_file(
    closed: GMEEmbeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.txt").write_text("a page", encoding="utf-8")
    opened: list[Path] = []
    monkeypatch.setattr(Path, "open", lambda path, *args: opened.append(path))
    retriever = MultimodalRetriever(vectorstore=InMemoryVectorStore(closed))
    with pytest.raises(InputError, match=REFUSED):
        retriever.invoke(Blob.from_path(tmp_path / "page.txt"))
    assert opened == []


@pytest.mark.parametrize("way", DOCUMENTS)
def test_documents_with_pictures_open_no_file(way: str, closed: GMEEmbeddings, gallery: Gallery) -> None:
    document = WAYS[way](gallery.paths[0])
    with pytest.raises(InputError, match=REFUSED):
        MultimodalStore.from_documents([document], closed, store=InMemoryVectorStore)
    with pytest.raises(InputError, match=REFUSED):
        MultimodalFilter(embeddings=closed).compress_documents([document], "a text")
    with pytest.raises(InputError, match=REFUSED):
        identify_images([document], CLOSED)
    with pytest.raises(InputError, match=REFUSED):
        to_content_blocks([document], CLOSED)


def test_given_embeddings_open_no_file(closed: GMEEmbeddings, gallery: Gallery) -> None:
    store = InMemoryVectorStore(closed)
    with pytest.raises(InputError, match=REFUSED):
        add_multimodal(store, [WAYS["metadata"](gallery.paths[0])], embeddings=[[0.0] * 128])
    assert store.store == {}


def test_a_blob_of_a_text_is_no_image_and_is_not_opened(closed: GMEEmbeddings, tmp_path: Path) -> None:
    document = Document("a", metadata={"image": Blob.from_path(tmp_path / "gone.txt")})
    with pytest.raises(InputError, match="a blob of a text, where an image belongs"):
        closed.embed_multimodal([document])


@pytest.mark.parametrize("form", [str, Path.as_uri])
def test_texts_that_are_paths_stay_texts(form: Callable[[Path], str], closed: GMEEmbeddings, gallery: Gallery) -> None:
    text = form(gallery.paths[0])
    assert closed.embed_documents([text]) == closed.embed_multimodal([text, Document(text)])[:1]
    assert len(closed.embed_query(text)) == 128
