"""What is loaded of an entry, anywhere and at any time after it was found."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from st_modules import ImageLimits, InputError, SentenceTransformer
from st_modules.index.entries import Entry
from st_modules.index.sources import SourceOptions, Sources, whole_files
from st_modules.index.sources.stored import StoredFile
from tests.helpers.files import write_pdf
from tests.helpers.sources import BLUE, RED, read_entries, touch, write_tar


@pytest.fixture
def collection(tmp_path: Path) -> list[str]:
    """One source of every kind."""
    folder = tmp_path / "collection"
    folder.mkdir()
    (folder / "a.png").write_bytes(RED)
    (folder / "a.txt").write_text("some words")
    write_pdf(folder / "a.pdf", ["red", "blue"])
    (folder / "t.jsonl").write_text('{"text": "a", "image": "a.png"}\n{"text": "b"}\n')
    (folder / "t.csv").write_text("text,n\na,1\n")
    pq.write_table(pa.table({"text": ["a", "b"], "image": [RED, BLUE]}), folder / "t.parquet")
    write_tar(folder / "t.tar", [("a.png", RED), ("b.txt", b"words")])
    write_tar(folder / "t.tar.gz", [("a.png", RED), ("b.txt", b"words")], "w:gz")
    return [str(folder), f"{folder}/t.*"]


def test_entries_are_embedded_as_they_are_loaded(collection: list[str], tiny: SentenceTransformer) -> None:
    entries = read_entries(collection)
    assert len(entries) == 13
    vectors = tiny.encode_document([entry.content.load().item for entry in entries])
    assert vectors.shape == (13, 128)
    by_place = {entry.place.rpartition("/")[2]: vector for entry, vector in zip(entries, vectors, strict=True)}
    for same in ("t.tar#a", "t.tar.gz#a"):
        assert by_place[same] == pytest.approx(by_place["a.png"], abs=1e-6)
    assert by_place["t.jsonl:1"] == pytest.approx(by_place["t.parquet#row=1"], abs=1e-6)
    assert by_place["t.csv:2"] != pytest.approx(by_place["t.jsonl:1"], abs=1e-2)


def test_content_can_be_loaded_in_another_process(collection: list[str], tmp_path: Path) -> None:
    entries = read_entries(collection)
    (tmp_path / "pickled").write_bytes(pickle.dumps(entries))
    script = (
        "import pickle, sys\n"
        "for entry in pickle.load(open(sys.argv[1], 'rb')):\n"
        "    print(entry.content.load().content)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "pickled")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [entry.content.load().content for entry in entries]


def test_content_is_small_until_it_is_loaded(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(RED + os.urandom(500_000))
    write_pdf(tmp_path / "a.pdf", ["red"] * 5)
    assert all(len(pickle.dumps(entry)) < 2000 for entry in read_entries(tmp_path))


def test_threads_load_at_the_same_time(collection: list[str]) -> None:
    entries = read_entries(collection) * 20
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda entry: entry.content.load().content, entries))
    assert found == [entry.content.load().content for entry in entries]


def test_nothing_is_left_open(collection: list[str]) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc here")
    loaded = [entry.content.load() for entry in read_entries(collection)]
    before = count()
    for _ in range(20):
        for entry in read_entries(collection):
            entry.content.load()
    assert count() <= before
    assert loaded


def rewrite(path: Path) -> None:
    path.write_bytes(BLUE + b"more")


def delete(path: Path) -> None:
    path.unlink()


def block(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (rewrite, "changed while it was read; run again"),
        (lambda path: touch(path, 1), "changed while it was read; run again"),
        (delete, "no such file"),
        (block, "not a regular file"),
    ],
    ids=["rewritten", "touched", "deleted", "a pipe"],
)
@pytest.mark.parametrize("name", ["a.png", "a.txt", "a.pdf", "t.jsonl", "t.tar"])
def test_what_has_changed_since_it_was_found_is_an_error(
    collection: list[str], change: Callable[[Path], Any], told: str, name: str
) -> None:
    folder = Path(collection[0])
    entry = next(entry for entry in read_entries(folder / name))
    change(folder / ("a.png" if name == "t.jsonl" else name))
    with pytest.raises(InputError, match=told):
        entry.content.load()


def test_what_changes_while_it_is_read_is_an_error(collection: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(collection[0]) / "a.png"
    (entry,) = read_entries(path)
    open_file = StoredFile.open

    @contextmanager
    def open_and_change(file: StoredFile) -> Iterator[BinaryIO]:
        with open_file(file) as stream:
            yield stream
        touch(path, 1)

    monkeypatch.setattr(StoredFile, "open", open_and_change)
    with pytest.raises(InputError, match="changed while it was read"):
        entry.content.load()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "nothing is written in it"),
        (b" \n\t", "nothing is written in it"),
        (b"\xff\xfe", "not UTF-8 text; save it as UTF-8"),
        (b"a\0b", "not UTF-8 text but binary"),
        (b"a" * 101, "over the limit of 100 bytes"),
    ],
    ids=["empty", "blank", "UTF-16", "binary", "long"],
)
def test_a_text_that_is_none_is_an_error(
    tmp_path: Path, content: bytes, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_files, "LONGEST_TEXT", 100)
    (tmp_path / "a.txt").write_bytes(content)
    (entry,) = read_entries(tmp_path / "a.txt")
    with pytest.raises(InputError, match=told):
        entry.content.load()


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a mark"])
def test_a_text_is_all_of_its_file(tmp_path: Path, mark: bytes) -> None:
    (tmp_path / "a.md").write_bytes(mark + "# Tïtle\n\nwords\n".encode())
    (entry,) = read_entries(tmp_path / "a.md")
    assert entry.text is None
    loaded = entry.content.load()
    assert (loaded.text, loaded.item) == ("# Tïtle\n\nwords\n", {"text": "# Tïtle\n\nwords\n"})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "zero bytes"),
        (RED[:20], "a.png"),
        (b"<svg></svg>", "HTML, XML or SVG text, not a raster image"),
    ],
    ids=["empty", "cut off", "SVG"],
)
def test_a_picture_that_is_none_is_an_error(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    (entry,) = read_entries(tmp_path / "a.png")
    with pytest.raises(InputError, match=told):
        entry.content.load()


@pytest.mark.parametrize("limits", [ImageLimits(max_bytes=50), ImageLimits(max_pixels=20)], ids=["bytes", "pixels"])
def test_pictures_are_within_the_limits(tmp_path: Path, limits: ImageLimits) -> None:
    (tmp_path / "a.png").write_bytes(RED)
    entry, _ = Sources(tmp_path, SourceOptions(limits=limits))
    assert isinstance(entry, Entry)
    with pytest.raises(InputError, match="over the limit of|pixels"):
        entry.content.load()


def test_what_the_user_names_is_read_wherever_a_table_may_not(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(RED)
    entry, _ = Sources(tmp_path, SourceOptions(limits=ImageLimits(local_files=False)))
    assert isinstance(entry, Entry)
    assert entry.content.load().item.keys() == {"image"}
