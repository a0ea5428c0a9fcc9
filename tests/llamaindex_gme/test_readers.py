"""``multimodal_readers``: what ``SimpleDirectoryReader`` makes of a folder with them."""

from __future__ import annotations

import builtins
import hashlib
import pickle
import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.schema import Document
from PIL import Image

from examples.pages import write_pdf
from llamaindex_gme import GMEEmbedding, MultimodalNodeParser, MultimodalVectorIndexRetriever, multimodal_readers
from llamaindex_gme.nodes import IMAGE_ID, node_image
from st_modules import ImageLimits, SentenceTransformer, image_suffixes
from tests.helpers.gallery import RED_CIRCLE, STAR, Gallery
from tests.helpers.references import TOLERANCE


@pytest.fixture(scope="module")
def folder(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder")
    shutil.copy(gallery.paths[STAR], folder / "STAR.PNG")
    shutil.copy(gallery.paths[RED_CIRCLE], folder / "circle.jfif")
    (folder / "note.txt").write_text("two small black crosses")
    write_pdf(folder / "report.pdf")
    return folder


def read(folder: Path, readers: dict[str, Any] | None = None, **options: Any) -> list[Document]:
    return SimpleDirectoryReader(str(folder), file_extractor=readers or multimodal_readers(), **options).load_data()


def test_a_folder_becomes_an_index(tiny: SentenceTransformer, folder: Path) -> None:
    embedding = GMEEmbedding("tiny", device="cpu")
    index = VectorStoreIndex.from_documents(
        read(folder), transformations=[MultimodalNodeParser(), embedding], embed_model=embedding
    )
    stored = index.vector_store.to_dict()["embedding_dict"]
    found = {node.metadata["file_name"]: stored[key] for key, node in index.docstore.docs.items()}
    for name in ("STAR.PNG", "circle.jfif"):
        np.testing.assert_allclose(found[name], tiny.encode_document(folder / name), atol=TOLERANCE)
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=1)
    (page,) = retriever.retrieve("three small green stars at the top on a white background")
    assert (page.node.metadata["file_name"], page.node.metadata["page_label"]) == ("report.pdf", "2")
    text = f"file_path: {folder / 'note.txt'}\n\ntwo small black crosses"
    np.testing.assert_allclose(found["note.txt"], tiny.encode_document({"text": text}), atol=TOLERANCE)


async def test_documents_have_their_picture_and_cores_metadata(gallery: Gallery, folder: Path) -> None:
    documents = {document.metadata["file_name"]: document for document in read(folder, exclude=["report.pdf"])}
    core = SimpleDirectoryReader(str(folder), exclude=["report.pdf"], file_extractor={}).load_data()
    by_name = {document.metadata["file_name"]: document for document in core}
    assert documents.keys() == by_name.keys()
    for name, document in documents.items():
        metadata = {key: value for key, value in document.metadata.items() if key != IMAGE_ID}
        assert metadata == by_name[name].metadata
        assert document.excluded_embed_metadata_keys == by_name[name].excluded_embed_metadata_keys
        assert document.text == ("two small black crosses" if name == "note.txt" else "")
    star = documents["STAR.PNG"]
    assert node_image(star) == folder / "STAR.PNG"
    assert star.metadata[IMAGE_ID] == hashlib.sha256(gallery.paths[STAR].read_bytes()).hexdigest()
    again = await SimpleDirectoryReader(str(folder), file_extractor=multimodal_readers()).aload_data(num_workers=4)
    assert [document.metadata for document in again] == [document.metadata for document in read(folder)]


@pytest.mark.parametrize("kept", [True, False])
def test_a_page_is_a_document_of_its_picture_and_its_text(folder: Path, tmp_path: Path, kept: bool) -> None:
    readers = multimodal_readers(page_folder=tmp_path / "pages") if kept else multimodal_readers()
    pages = read(folder, readers, required_exts=[".pdf"])
    assert [page.metadata["page_label"] for page in pages] == ["1", "2", "3", "4", "5"]
    assert pages[1].text.strip() == "three small green stars at the top on a white background"
    images = [node_image(page) for page in pages]
    assert len(set(images)) == 5
    assert all(isinstance(image, Path) is kept for image in images)
    assert len(list(tmp_path.glob("pages/*.png"))) == (5 if kept else 0)
    assert {page.excluded_embed_metadata_keys.count("page_label") for page in pages} == {1}


def test_there_is_a_reader_for_every_suffix_of_pictures() -> None:
    assert multimodal_readers().keys() == image_suffixes() | {".pdf"}
    assert {".png", ".jpg", ".jfif", ".avif", ".tif", ".heic"} <= image_suffixes()


@pytest.mark.parametrize("suffix", [".png", ".heic", ".pdf"])
def test_a_broken_file_is_skipped_or_raises_as_core_says(
    gallery: Gallery, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.txt").write_text("a")
    (tmp_path / f"broken{suffix}").write_bytes(gallery.query.read_bytes()[:-40])
    (document,) = read(tmp_path)
    assert document.text == "a"
    assert f"broken{suffix}" in capsys.readouterr().out
    with pytest.raises(Exception, match="Error loading file") as caught:
        read(tmp_path, raise_on_error=True)
    assert isinstance(caught.value.__cause__, ValueError)


def test_limits_hold(folder: Path) -> None:
    readers = multimodal_readers(limits=ImageLimits(max_pixels=4000))
    with pytest.raises(ValueError, match="pixels are over the limit of 4000"):
        readers[".png"].load_data(folder / "STAR.PNG")
    (first, *_) = multimodal_readers(limits=ImageLimits(max_pixels=40_000))[".pdf"].load_data(folder / "report.pdf")
    with Image.open(first.resolve_image()) as page:  # type: ignore[attr-defined]
        assert 30_000 < page.width * page.height <= 40_000


def test_too_many_pages_and_pages_without_breadth_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = multimodal_readers(limits=ImageLimits(max_pixels=1))[".pdf"]
    with pytest.raises(ValueError, match=r"report\.pdf, page 1: .* points are too elongated to be rendered"):
        reader.load_data(folder / "report.pdf")
    monkeypatch.setattr("llamaindex_gme.readers.MOST_PAGES", 4)
    with pytest.raises(ValueError, match="a PDF of 5 pages; between 1 and 4 are read"):
        reader.load_data(folder / "report.pdf")


def test_files_of_another_file_system_are_in_the_documents(folder: Path) -> None:
    remote = fsspec.filesystem("memory")
    for name in ("STAR.PNG", "report.pdf"):
        remote.pipe_file(f"/remote/{name}", (folder / name).read_bytes())
    reader = SimpleDirectoryReader("/remote", fs=remote, file_extractor=multimodal_readers(), raise_on_error=True)
    documents = reader.load_data()
    local = read(folder, exclude=["circle.jfif", "note.txt"])
    assert [each.metadata[IMAGE_ID] for each in documents] == [each.metadata[IMAGE_ID] for each in local]
    assert [each.text for each in documents] == [each.text for each in local]
    assert all(str(node_image(each)).startswith("data:") for each in documents)


def test_without_pypdfium2_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pypdfium2":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "st-modules\[pdf\]"'):
        read(folder, required_exts=[".pdf"])


def test_readers_go_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(multimodal_readers())).keys() == multimodal_readers().keys()
