"""A disk that is full: what was committed stays, the error says what to do, and the next run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from st_modules import SentenceTransformer, STModulesError
from st_modules.index import IndexStorageError, build
from st_modules.index.entries import Finished
from st_modules.index.seen import SeenItem, open_seen
from tests.helpers.collections import Parts, read_items
from tests.helpers.entries import write_entry

pytest.importorskip("lancedb")
resource = pytest.importorskip("resource")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Have the system refuse to write larger files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def texts(count: int) -> Parts:
    return Parts([*(write_entry(number, f"text {number}") for number in range(count)), Finished("words")])


def test_a_run_that_cannot_write_leaves_what_was_committed_and_is_gone_on_with(
    tmp_path: Path, tiny: SentenceTransformer
) -> None:
    target = tmp_path / "texts.index"
    build(texts(20), target, tiny)
    before = read_items(target)
    with (
        largest_file(2**16),
        pytest.raises(IndexStorageError, match=r"texts\.index: the index cannot be read or written: .*File too large"),
    ):
        build(texts(400), target, tiny)
    assert read_items(target) == before
    report = build(texts(400), target, tiny)
    assert (report.unchanged, report.added) == (20, 380)
    assert len(read_items(target)) == 400


def test_notes_that_cannot_be_written_are_told_by_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("st_modules.index.seen._SETTINGS", ("PRAGMA journal_mode = OFF", "PRAGMA cache_size = 1"))
    with (
        largest_file(2**16),
        pytest.raises(STModulesError, match=f"{tmp_path}: a temporary file there cannot be read or written"),
        open_seen() as seen,
    ):
        seen.add(SeenItem(f"mark {number}", f"id {number}", "a" * 100) for number in range(10_000))
