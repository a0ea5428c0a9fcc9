"""Vectors that ``st-modules embed`` wrote make the index that embedding would make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from st_modules import InputError, SentenceTransformer
from st_modules.index import IndexMismatchError, build
from tests.helpers.collections import draw_picture, read_items, write_jsonl
from tests.helpers.references import TOLERANCE

pytest.importorskip("lancedb")
PAGE = "d.pdf#page=2"


class Output:
    """Files as ``embed`` writes them, of two pictures, a text and a page of a PDF that is not there any more."""

    def __init__(self, folder: Path, model: SentenceTransformer) -> None:
        pictures = [draw_picture(folder / f"{number}.png", number) for number in range(2)]
        self.rows: list[dict[str, Any]] = [
            {"id": "a", "text": None, "image": str(pictures[0]), "metadata": {"price": 3}},
            {"id": 1, "text": "red", "image": str(pictures[1]), "metadata": {}},
            {"id": "c", "text": "a text", "image": None, "metadata": {"price": 4}},
            {"id": PAGE, "text": "page", "image": PAGE, "metadata": {}},
        ]
        self.vectors = model.encode_document(
            [{"image": pictures[0]}, {"text": "red", "image": pictures[1]}, {"text": "a text"}, {"text": "page"}]
        )
        self.records = write_jsonl(folder / "out.jsonl", self.rows)
        self.npy = folder / "out.npy"
        np.save(self.npy, self.vectors)


@pytest.fixture
def output(tmp_path: Path, tiny: SentenceTransformer) -> Output:
    return Output(tmp_path, tiny)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.index"


def test_records_have_their_vectors_and_their_metadata(output: Output, target: Path, tiny: SentenceTransformer) -> None:
    report = build(output.records, target, tiny, vectors=output.npy)
    assert (report.added, report.embedded, report.failed) == (4, 0, 0)
    rows = read_items(target)
    np.testing.assert_allclose([rows[id]["vector"] for id in ("a", "1", "c", PAGE)], output.vectors, atol=TOLERANCE)
    assert [rows[id]["price"] for id in ("a", "1", "c")] == [3, None, 4]


def test_only_the_records_that_have_changed_are_written_again(
    output: Output, target: Path, tiny: SentenceTransformer
) -> None:
    build(output.records, target, tiny, vectors=output.npy)
    output.rows[2]["text"] = "another"
    write_jsonl(output.records, output.rows)
    vectors = output.vectors.copy()
    vectors[2] = tiny.encode_document(["another"])[0]
    np.save(output.npy, vectors)
    report = build(output.records, target, tiny, vectors=output.npy)
    assert (report.updated, report.unchanged) == (1, 3)
    np.testing.assert_allclose(read_items(target)["c"]["vector"], vectors[2], atol=TOLERANCE)


def test_vectors_of_another_model_are_refused(output: Output, target: Path, tiny: SentenceTransformer) -> None:
    np.save(output.npy, -output.vectors)
    with pytest.raises(IndexMismatchError, match="is not the one that the model has for it"):
        build(output.records, target, tiny, vectors=output.npy)
    assert not read_items(target)


def test_vectors_that_are_too_short_are_refused(output: Output, target: Path, tiny: SentenceTransformer) -> None:
    np.save(output.npy, output.vectors[:, :64])
    with pytest.raises(IndexMismatchError, match="64 dimensions for an index of 128"):
        build(output.records, target, tiny, vectors=output.npy)


def test_vectors_are_cut_as_the_index_is(output: Output, target: Path, tiny: SentenceTransformer) -> None:
    build(output.records, target, tiny, vectors=output.npy, truncate_dim=16)
    cut = output.vectors[0, :16]
    np.testing.assert_allclose(read_items(target)["a"]["vector"], cut / np.linalg.norm(cut), atol=TOLERANCE)


def test_a_vector_that_is_none_fails_alone(output: Output, target: Path, tiny: SentenceTransformer) -> None:
    output.vectors[2] = np.nan
    np.save(output.npy, output.vectors)
    report = build(output.records, target, tiny, vectors=output.npy)
    assert (report.added, report.failed) == (3, 1)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY"])
def test_a_damaged_file_of_vectors_is_refused(
    output: Output, target: Path, tiny: SentenceTransformer, content: bytes
) -> None:
    output.npy.write_bytes(content)
    with pytest.raises(InputError, match=r"out\.npy: damaged, or no \.npy file"):
        build(output.records, target, tiny, vectors=output.npy)


@pytest.mark.parametrize(
    ("rows", "words"),
    [(np.ones((3, 128), np.float32), "3 vectors, and .* has 4 records"), (np.ones(4), "not rows of vectors")],
)
def test_vectors_that_do_not_fit_the_records_are_refused(
    output: Output, target: Path, tiny: SentenceTransformer, rows: np.ndarray, words: str
) -> None:
    np.save(output.npy, rows)
    with pytest.raises(InputError, match=words):
        build(output.records, target, tiny, vectors=output.npy)


def test_vectors_go_with_the_records_beside_them_alone(
    output: Output, target: Path, tiny: SentenceTransformer, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="goes with one source"):
        build(tmp_path, target, tiny, vectors=output.npy)


def test_a_line_that_is_no_record_fails_alone(output: Output, target: Path, tiny: SentenceTransformer) -> None:
    lines = output.records.read_text().splitlines()
    output.records.write_text("\n".join([lines[0], "no JSON", *lines[2:]]) + "\n")
    report = build(output.records, target, tiny, vectors=output.npy)
    assert [(error.place, error.reason) for error in report.errors] == [
        (f"{output.records}:2", "not a record that `st-modules embed` wrote")
    ]
    np.testing.assert_allclose(read_items(target)["c"]["vector"], output.vectors[2], atol=TOLERANCE)
