"""The order of another model."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from st_modules import CrossEncoder, ImageError, ImageLimits, InputError
from st_modules.errors import ArgumentError
from st_modules.index import Hit, Index
from st_modules.index.reranking import rerank_hits
from tests.helpers.files import write_pdf
from tests.helpers.gallery import Gallery
from tests.helpers.index_tables import Columns, draw_vectors, make_index
from tests.helpers.rerankers import write_checkpoint

TEXTS = [f"number {number}" for number in range(100)]
IDS = [f"i{number:05}" for number in range(4)]


class Recorder:
    """A reranker that keeps what it was asked, and likes some documents better the later they come."""

    def __init__(self, score: Callable[[Sequence[Any]], Any]) -> None:
        self.pairs: list[tuple[Any, Any]] = []
        self._score = score

    def predict(self, inputs: Sequence[tuple[Any, Any]]) -> Any:
        self.pairs = list(inputs)
        return self._score(self.pairs)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    make_index(tmp_path / "my.index", draw_vectors(100), text=TEXTS)
    return Index.open(tmp_path / "my.index")


def last_first(pairs: Sequence[Any]) -> np.ndarray:
    return np.arange(len(pairs), dtype=np.float32)


def hit_of(record: dict[str, Any]) -> dict[str, Any]:
    return {"score": 0.0, **{name: record[name] for name in ("id", "source", "page", "text", "image")}}


def test_reranker_decides_on_the_order_of_the_first_ones(index: Index) -> None:
    found = index.search("number", 100, mode="text")
    reranker = Recorder(last_first)
    hits = index.search("number", 3, mode="text", rerank=reranker, rerank_k=20)
    assert [document for _, document in reranker.pairs] == [hit.text for hit in found[:20]]
    assert {query for query, _ in reranker.pairs} == {"number"}
    assert [(hit.id, hit.score) for hit in hits] == [(found[place].id, place) for place in (19, 18, 17)]


@pytest.mark.parametrize(("k", "read"), [(3, 50), (70, 70)])
def test_fifty_are_read_or_as_many_as_are_wanted(index: Index, k: int, read: int) -> None:
    reranker = Recorder(last_first)
    assert len(index.search("number", k, mode="text", rerank=reranker)) == k
    assert len(reranker.pairs) == read


def test_equal_scores_are_in_the_order_of_the_ids() -> None:
    hits = [Hit(name, 1.0, "a", text="b") for name in "cab"]
    ranked = rerank_hits(Recorder(lambda pairs: [0.5] * len(pairs)), "q", hits, ImageLimits())
    assert [hit.id for hit in ranked] == ["a", "b", "c"]


def test_no_candidates_are_no_question(index: Index) -> None:
    reranker = Recorder(last_first)
    assert index.search("nothing like it", mode="text", rerank=reranker) == []
    assert reranker.pairs == []


def test_documents_have_their_pictures(tmp_path: Path, gallery: Gallery) -> None:
    pdf = str(write_pdf(tmp_path / "a.pdf", ["lime"]))
    picture = str(gallery.paths[0])
    columns: Columns = {"text": ["a one", "a two", "a three"], "image": [picture, None, None]}
    make_index(tmp_path / "my.index", draw_vectors(3), page=[None, None, 1], source=["x", "y", pdf], **columns)
    reranker = Recorder(last_first)
    Index.open(tmp_path / "my.index").search({"text": "a"}, mode="text", rerank=reranker)
    documents: dict[str, Any] = {
        document if isinstance(document, str) else document["text"]: document for _, document in reranker.pairs
    }
    assert documents["a two"] == "a two"
    assert documents["a one"]["image"].tobytes() == Image.open(picture).tobytes()
    assert documents["a three"]["image"].convert("RGB").getpixel((5, 5)) == (0, 255, 0)
    assert {query for query, _ in reranker.pairs} == {"a"}


@pytest.mark.parametrize(
    "reranker",
    [
        object(),
        Recorder(lambda pairs: [1.0]),
        Recorder(lambda pairs: np.zeros((len(pairs), 3))),
        Recorder(lambda pairs: [float("nan")] * len(pairs)),
    ],
    ids=["no reranker", "too few", "several labels", "nan"],
)
def test_what_is_no_score_is_told(index: Index, reranker: Any) -> None:
    with pytest.raises(ArgumentError, match="rerank"):
        index.search("number", mode="text", rerank=reranker)


def test_picture_that_is_gone_is_told(tmp_path: Path) -> None:
    hits = [Hit("i00000", 1.0, "x", image=str(tmp_path / "gone.png"))]
    with pytest.raises(ImageError, match=r"i00000: .*gone\.png"):
        rerank_hits(Recorder(last_first), "a", hits, ImageLimits())


def test_what_cannot_be_read_again_is_reranked_by_what_the_index_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "lime").save(stream, "PNG")
    kept = {"thumbnail": [stream.getvalue(), None], "text": ["a one", "a two"], "image": ["wds.tar#a.png", "gone.png"]}
    make_index(tmp_path / "my.index", draw_vectors(2), **kept)
    reranker = Recorder(last_first)
    Index.open(tmp_path / "my.index").search("a", mode="text", rerank=reranker)
    documents = [document for _, document in reranker.pairs]
    (pictured,) = [document for document in documents if not isinstance(document, str)]
    assert (pictured["text"], pictured["image"].getpixel((4, 4))) == ("a one", (0, 255, 0))
    assert "a two" in documents
    assert "by its text alone: i00001: gone.png: no such file" in caplog.text


@pytest.mark.parametrize("image", ["wds.tar#a.png", '["x.parquet#row=1&image=0", "b.png"]'])
def test_a_picture_in_an_archive_is_not_called_missing(image: str) -> None:
    hits = [Hit("x", 1.0, "y", image=image)]
    with pytest.raises(ImageError, match="index it with thumbnails"):
        rerank_hits(Recorder(last_first), "a", hits, ImageLimits())


def test_item_without_anything_to_read_is_told() -> None:
    with pytest.raises(InputError, match="neither a text nor a picture"):
        rerank_hits(Recorder(last_first), "a", [Hit("x", 1.0, "y")], ImageLimits())


def test_qwen3s_reranker_reads_texts_and_pictures_of_an_index(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.effect_noise((96, 64), 80).convert("RGB").save(picture)
    # The second text is the path of a picture, and is a text nevertheless.
    texts = ["a cat", str(picture), "a dog", None]
    images = [None, None, str(picture), str(picture)]
    make_index(tmp_path / "my.index", draw_vectors(4), text=texts, image=images)
    model = CrossEncoder("qwen3-vl-reranker-2b", weights=write_checkpoint(tmp_path / "weights", "tied"))
    documents = [{"text": text, "image": image} for text, image in zip(texts, images, strict=True)]
    documents = [{name: part for name, part in document.items() if part is not None} for document in documents]
    expected = model.predict([({"text": "cat"}, document) for document in documents])
    assert len(set(expected.round(4).tolist())) == 4
    index = Index.open(tmp_path / "my.index")
    hits = rerank_hits(model, {"text": "cat"}, [Hit(**hit_of(each)) for each in index.get(IDS)], ImageLimits())
    assert {hit.id: hit.score for hit in hits} == pytest.approx(
        dict(zip(IDS, expected.tolist(), strict=True)), abs=1e-5
    )
