"""PDFs: a page is an item, its picture and what is written on it."""

from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from st_modules import ImageLimits, InputError
from st_modules.files import pages
from st_modules.index.entries import Entry, Finished, Unreadable
from st_modules.index.sources import SourceOptions, Sources
from tests.helpers.files import write_pdf
from tests.helpers.paths import ROOT
from tests.helpers.sources import picture_of, read_entries, read_finished, read_parts, touch


def make_pdf(*contents: bytes, kids: str = "", extra: bytes = b"") -> bytes:
    """A PDF by hand: each page is drawn as its content says; F1 is Helvetica."""
    numbers = [10 + 2 * place for place in range(len(contents))]
    listed = kids or " ".join(f"{number} 0 R" for number in numbers)
    count = len(listed.split()) // 3
    parts = [
        b"1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj",
        f"2 0 obj<</Type/Pages/Kids[{listed}]/Count {count}>>endobj".encode(),
        b"3 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>endobj",
    ]
    for number, content in zip(numbers, contents, strict=True):
        page = f"/Contents {number + 1} 0 R/Resources<</Font<</F1 3 0 R>>>>/MediaBox[0 0 200 100]"
        parts += [
            f"{number} 0 obj<</Type/Page/Parent 2 0 R{page}>>endobj".encode(),
            f"{number + 1} 0 obj<</Length {len(content)}>>stream\n".encode() + content + b"\nendstream endobj",
        ]
    return b"%PDF-1.7\n" + b"\n".join(parts) + b"\ntrailer<</Root 1 0 R" + extra + b">>"


def written(*lines: str) -> bytes:
    shown = "".join(f"({line})Tj 0 -20 Td " for line in lines)
    return f"BT /F1 12 Tf 10 80 Td {shown}ET".encode()


SCAN = b"1 0 0 rg 0 0 200 100 re f"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "report.pdf").write_bytes(
        make_pdf(written("The first page", "has two lines"), SCAN, written("The last"))
    )
    return tmp_path / "report.pdf"


def test_pages_are_named_and_numbered(path: Path) -> None:
    entries = read_entries(path)
    assert [entry.page for entry in entries] == [1, 2, 3]
    assert [entry.place for entry in entries] == [f"{path}#page={number}" for number in (1, 2, 3)]
    assert [entry.image for entry in entries] == [entry.place for entry in entries]
    assert {entry.source for entry in entries} == {str(path)}
    assert read_finished(path) == [str(path)]


def test_text_and_picture_are_one_item_and_a_scan_is_a_picture_alone(path: Path) -> None:
    first, scan, last = (entry.content.load() for entry in read_entries(path))
    assert first.text == first.item["text"] == "The first page\nhas two lines"
    assert (scan.text, scan.item.keys()) == (None, {"image"})
    assert last.item.keys() == {"text", "image"}


def test_a_page_is_rendered_at_144_dpi_or_what_is_asked_for(path: Path) -> None:
    scan = read_entries(path)[1]
    with Image.open(io.BytesIO(picture_of(scan))) as image:
        assert image.size == (400, 200)
        assert np.array(image).reshape(-1, 3).tolist() == [[255, 0, 0]] * 80_000
    coarse = [part for part in Sources(path, SourceOptions(dpi=36)) if isinstance(part, Entry)][1]
    with Image.open(io.BytesIO(picture_of(coarse))) as image:
        assert image.size == (100, 50)
    assert coarse.state != scan.state


def test_a_page_is_within_the_limit_of_pixels(path: Path) -> None:
    (entry, *_) = Sources(path, SourceOptions(limits=ImageLimits(max_pixels=5000)))
    assert isinstance(entry, Entry)
    with Image.open(io.BytesIO(picture_of(entry))) as image:
        assert 4500 < image.width * image.height <= 5000


def test_equal_pages_have_equal_content_and_others_other(path: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.pdf").write_bytes(make_pdf(SCAN, written("The last"), written("The Last")))
    first, scan, last = (entry.content.load().content for entry in read_entries(path))
    assert [entry.content.load().content for entry in read_entries(tmp_path / "copy.pdf")][:2] == [scan, last]
    assert len({first, scan, last, read_entries(tmp_path / "copy.pdf")[2].content.load().content}) == 4


def test_hidden_characters_and_hyphens_are_not_in_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(make_pdf(written("a \\001 b", "divi\\255", "ded")))
    (entry,) = read_entries(tmp_path / "a.pdf")
    text = entry.content.load().text
    assert text is not None
    assert all(character.isprintable() or character == "\n" for character in text)
    assert text.startswith("a")


def test_a_page_of_too_many_characters_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_CHARACTERS", 20)
    first, scan, _ = read_entries(path)
    with pytest.raises(InputError, match=r"report.pdf#page=1: \d+ characters; at most 20 are read of a page"):
        first.content.load()
    scan.content.load()


def test_a_damaged_page_is_an_error_of_that_page(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(make_pdf(SCAN, written("fine"), kids="10 0 R 9 0 R 12 0 R"))
    first, damaged, last = read_entries(path)
    assert damaged.page == 2
    with pytest.raises(InputError, match=r"a.pdf#page=2: damaged or not readable"):
        damaged.content.load()
    first.content.load()
    assert last.content.load().text == "fine"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"%PDF-1.7\n", "not a PDF with pages that can be read"),
        (b"<html>", "not a PDF with pages that can be read"),
        (make_pdf(SCAN)[:60], "not a PDF with pages that can be read"),
        (
            make_pdf(
                SCAN,
                extra=b"/ID[<00><00>]/Encrypt <</Filter/Standard/V 1/R 2/P -4/O<"
                + b"00" * 32
                + b">/U<"
                + b"11" * 32
                + b">>>",
            ),
            "needs a password; save it without one",
        ),
    ],
    ids=["empty", "HTML", "cut off", "encrypted"],
)
def test_a_file_without_readable_pages_is_told_and_not_finished(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.pdf").write_bytes(content)
    (tmp_path / "b.txt").write_text("a text")
    problem, entry, end = read_parts(tmp_path)
    assert isinstance(problem, Unreadable)
    assert (problem.source, problem.place) == (str(tmp_path / "a.pdf"),) * 2
    assert told in problem.reason
    assert isinstance(entry, Entry)
    assert end == Finished(str(tmp_path / "b.txt"))


def test_the_number_of_pages_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_PAGES", 2)
    (problem,) = read_parts(path)
    assert isinstance(problem, Unreadable)
    assert problem.reason == "a PDF of 3 pages; between 1 and 2 are read."


def test_a_file_that_has_changed_is_not_read(path: Path) -> None:
    first, *_, last = read_entries(path)
    first.content.load()
    path.write_bytes(make_pdf(SCAN, SCAN, SCAN))
    with pytest.raises(InputError, match=r"report.pdf: changed while it was read; run again"):
        last.content.load()


def test_a_change_changes_the_state_of_every_page(path: Path) -> None:
    before = {entry.state for entry in read_entries(path)}
    assert {entry.state for entry in read_entries(path)} == before
    touch(path, 1)
    assert before.isdisjoint(entry.state for entry in read_entries(path))


def test_threads_load_pages_of_several_files_at_a_time(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.pdf").write_bytes(
            make_pdf(*(written(f"file {number} page {page}") for page in range(4)))
        )
    entries = read_entries(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda entry: entry.content.load().text, entries * 5))
    assert texts == [f"file {number} page {page}" for number in range(5) for page in range(4)] * 5


def test_pages_that_hold_pictures_only_are_scans(tmp_path: Path) -> None:
    write_pdf(tmp_path / "a.pdf", ["red", "blue"])
    assert [entry.content.load().text for entry in read_entries(tmp_path / "a.pdf")] == [None, None]
    Image.new("RGB", (40, 30), "green").save(tmp_path / "scan.pdf")
    (scan,) = read_entries(tmp_path / "scan.pdf")
    assert scan.content.load().item.keys() == {"image"}


def test_a_process_that_has_read_pages_ends_without_a_word(path: Path) -> None:
    # With a finaliser that is older than PDFium's, as every program has one that uses temporary folders.
    reading = (
        "import weakref\n"
        "class Thing: pass\n"
        "thing = Thing()\n"
        "weakref.finalize(thing, len, '')\n"
        "from st_modules.index.sources import Sources\n"
        f"[each.content.load() for each in Sources({str(path)!r}) if hasattr(each, 'content')]"
    )
    ended = subprocess.run([sys.executable, "-c", reading], capture_output=True, text=True, cwd=ROOT)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
