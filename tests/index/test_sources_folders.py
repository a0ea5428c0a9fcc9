"""Folders, patterns and files: which of them are read, in which order, and what is told of the others."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from st_modules import InputError
from st_modules.errors import ArgumentError
from st_modules.index.entries import Entry, Finished, Unreadable
from st_modules.index.sources import SourceOptions, Sources
from st_modules.index.sources.listing import list_folder
from st_modules.index.sources.sorting import sort_names
from tests.helpers.files import write_pdf
from tests.helpers.sources import BLUE, RED, open_sources, read_entries, read_finished, read_parts, read_problems

TREE = ["b/a.JPG", "b/c/.hidden.png", "b/notes.md", "b.txt", "z.png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "b" / "c").mkdir(parents=True)
    for name in TREE:
        (folder / name).write_bytes(b"a text" if name.endswith(("md", "txt")) else RED)
    return folder


def names(folder: Path, sources: Any) -> list[str]:
    return [entry.place.removeprefix(f"{folder}/") for entry in read_entries(sources)]


def test_pictures_texts_and_pages_come_by_path_in_order(folder: Path) -> None:
    write_pdf(folder / "b" / "b.pdf", ["red", "blue"])
    assert names(folder, folder) == [
        *("b/a.JPG", "b/b.pdf#page=1", "b/b.pdf#page=2", "b/c/.hidden.png", "b/notes.md", "b.txt", "z.png"),
    ]


def test_every_source_is_finished_after_its_entries(folder: Path) -> None:
    write_pdf(folder / "a.pdf", ["red", "blue"])
    parts = read_parts(folder)
    ends = [place for place, part in enumerate(parts) if isinstance(part, Finished)]
    begin = 0
    for end in ends:
        assert {part.source for part in parts[begin : end + 1]} == {parts[end].source}
        begin = end + 1
    assert begin == len(parts)
    assert len(ends) == len(TREE) + 1


def test_it_is_read_again_and_again(folder: Path) -> None:
    sources = open_sources(folder)
    first = list(sources)
    assert list(sources) == first
    (folder / "new.png").write_bytes(RED)
    added = [part.source for part in sources if part not in first]
    assert added == [str(folder / "new.png")] * 2


def test_names_that_do_not_fit_into_memory_are_in_order_all_the_same() -> None:
    given = [f"{number}\n{os.fsdecode(bytes([number % 250 + 1]))}" for number in range(1000)]
    random.Random(0).shuffle(given)
    assert list(sort_names(given, at_once=64)) == sorted(given)


def test_names_that_fit_exactly_are_all_there() -> None:
    assert list(sort_names(["b", "a"], at_once=2)) == ["a", "b"]
    assert list(sort_names([], at_once=2)) == []


def test_what_is_neither_is_told_by_name(folder: Path) -> None:
    for name in ("t.csv", "b/t.parquet", "archive.zip", "notes.docx"):
        (folder / name).write_bytes(b"1")
    sources = open_sources(folder)
    assert len(list(sources)) == 2 * len(TREE)
    assert sources.notes == [
        f"{folder}: left out 4 files that are no pictures, texts or PDFs: archive.zip, b/t.parquet, notes.docx, t.csv"
    ]


def test_pictures_of_other_formats_and_videos_are_told_as_such(folder: Path) -> None:
    for name in ("a.HEIC", "b/raw.cr2", "drawing.psd", "clip.mov"):
        (folder / name).write_bytes(b"1")
    (folder / "logo.svg").write_text("<svg/>")
    sources = open_sources(folder)
    assert len(list(sources)) == 2 * len(TREE)
    assert sources.notes == [
        f"{folder}: left out 4 pictures of formats that are not read; convert them to JPEG or PNG: "
        "a.HEIC, b/raw.cr2, drawing.psd, logo.svg",
        f"{folder}: left out 1 video, which is not embedded: clip.mov",
    ]


def test_of_many_that_are_left_out_five_are_named(folder: Path) -> None:
    for letter in "gfedcba":
        (folder / f"{letter}.bin").write_bytes(b"1")
    sources = open_sources(folder)
    list(sources)
    assert sources.notes[0].endswith(
        "7 files that are no pictures, texts or PDFs: a.bin, b.bin, c.bin, d.bin, e.bin and 2 more"
    )


def test_what_is_left_out_of_a_folder_and_named_by_itself_is_not_told(folder: Path) -> None:
    (folder / "t.csv").write_text("text\na\n")
    sources = open_sources([folder, folder / "t.csv"])
    assert str(folder / "t.csv") in {part.source for part in sources}
    assert sources.notes == []


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "AVIF", "PPM"])
def test_a_picture_under_any_name_is_one(folder: Path, kind: str) -> None:
    from tests.helpers.sources import encoded

    (folder / "download").write_bytes(encoded("red", kind))
    assert "download" in names(folder, folder)


def test_a_pdf_under_any_name_is_one(folder: Path) -> None:
    write_pdf(folder / "download", ["red"])
    assert "download#page=1" in names(folder, folder)


def test_hidden_files_that_are_no_pictures_are_left_out_in_silence(folder: Path) -> None:
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "._z.png").write_bytes(b"\0\5\x16\7")
    (folder / ".notes.txt").write_text("a text")
    sources = open_sources(folder)
    assert len([part for part in sources if isinstance(part, Entry)]) == len(TREE)
    assert sources.notes == []


def test_folders_behind_links_are_told_and_links_to_files_read(folder: Path, tmp_path: Path) -> None:
    (folder / "loop").symlink_to(folder)
    (folder / "elsewhere").symlink_to(tmp_path)
    (folder / "link.png").symlink_to("z.png")
    sources = open_sources(folder)
    read = [part.source for part in sources if isinstance(part, Entry)]
    assert str(folder / "link.png") in read
    assert len(read) == len(TREE) + 1
    assert sources.notes == [f"{folder}: left out 2 folders behind symbolic links: elsewhere, loop"]


def test_what_cannot_be_opened_is_an_error_where_it_would_be_embedded_and_else_told(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "gone.pdf").symlink_to("nowhere")
    (folder / ".#lock").symlink_to("nowhere")
    sources = open_sources(folder)
    parts = list(sources)
    problems = {part.source: part.reason for part in parts if isinstance(part, Unreadable)}
    assert problems == dict.fromkeys(
        [str(folder / "gone.pdf"), str(folder / "pipe.jpg")],
        "a link that leads to nothing, or not a regular file; delete it.",
    )
    assert not problems.keys() & {part.source for part in parts if isinstance(part, Finished)}
    assert sources.notes == [f"{folder}: left out 1 file that cannot be read: pipe"]


def test_a_name_that_is_not_utf8_is_an_error_that_can_be_written(folder: Path) -> None:
    (folder / os.fsdecode(b"\xe9.png")).write_bytes(RED)
    (problem,) = read_problems(folder)
    assert problem.reason == "its name is not UTF-8; rename it."
    assert problem.source.encode("utf-8").endswith(rb"\udce9.png")


def test_a_folder_that_cannot_be_listed_stops_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(path: str) -> Any:
        if path.endswith("/c"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    sources = open_sources(folder)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"folder/b/c: cannot be read \(Permission denied\); what is in it would be"):
        list(sources)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("nowhere", "nowhere: no such file"),
        ("nowhere/*.png", "nowhere is no folder"),
        ("folder/*.gif", r"folder/\*.gif: nothing to embed in it"),
        ("folder/**x/*.png", "no pattern of paths"),
        ("other.bin", "other.bin: of no kind that is read"),
        ("a.heic", "a.heic: a picture of a format that is not read; convert it to JPEG or PNG"),
        ("clip.mov", "clip.mov: a video, which is not embedded"),
        ("empty", "empty: nothing to embed in it"),
        ("empty.jsonl", "empty.jsonl: nothing to embed in it"),
        ("empty.csv", r"empty.csv: (nothing to embed in it|no column)"),
        ("a\0b", "no path that a file can have"),
        ("nosuch://bucket/a.png", "cannot be opened"),
        ("zip://a.png::b.zip", "a chain of file systems"),
        ("https://example.org/*.png", "a pattern on the web"),
    ],
)
def test_a_source_with_nothing_is_an_error_at_once(
    folder: Path, given: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    Path("empty").mkdir()
    for name in ("empty.jsonl", "empty.csv"):
        Path(name).write_bytes(b"")
    for name in ("other.bin", "a.heic", "clip.mov"):
        Path(name).write_bytes(b"\1\2")
    with pytest.raises(InputError, match=told):
        Sources([folder, given])


def test_no_sources_are_an_error() -> None:
    with pytest.raises(InputError, match="no sources"):
        Sources([])


def test_a_folder_with_nothing_to_embed_says_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}')
    with pytest.raises(InputError) as caught:
        Sources(tmp_path)
    assert str(caught.value).splitlines() == [
        f"{tmp_path}: nothing to embed in it.",
        f"{tmp_path}: left out 1 file that is no picture, text or PDF: a.jsonl",
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["z.png"]),
        ("**/*.png", ["b/c/.hidden.png", "z.png"]),
        ("b/*", ["b/a.JPG", "b/notes.md"]),
        ("*/[a-m]*", ["b/a.JPG"]),
        ("b/**", ["b/a.JPG", "b/c/.hidden.png", "b/notes.md"]),
        ("?.[pt]?*", ["b.txt", "z.png"]),
    ],
)
def test_a_pattern_names_its_files(folder: Path, pattern: str, expected: list[str]) -> None:
    assert names(folder, f"{folder}/{pattern}") == expected


def test_a_pattern_names_tables_too(folder: Path) -> None:
    (folder / "b" / "t.jsonl").write_text('{"text": "a"}\n{"text": "b"}')
    assert names(folder, f"{folder}/*/*.jsonl") == ["b/t.jsonl:1", "b/t.jsonl:2"]


def test_a_file_whose_name_is_a_pattern_is_a_file(folder: Path) -> None:
    (folder / "[z].png").write_bytes(BLUE)
    assert names(folder, folder / "[z].png") == ["[z].png"]


@pytest.mark.parametrize(
    "second", ["{0}/z.png", "{0}", "{0}/*.png", "{0}/b/../z.png", "file://{0}/z.png"], ids=lambda text: text
)
def test_a_file_that_is_named_twice_comes_once(folder: Path, second: str) -> None:
    finished = read_finished([folder, second.format(folder)])
    assert sorted(finished) == sorted(str(folder / name) for name in TREE)


def test_the_first_that_names_a_file_has_it(folder: Path) -> None:
    assert names(folder, [folder / "z.png", folder])[0] == "z.png"


def test_a_file_behind_a_link_that_is_named_by_itself_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.png").write_bytes(RED)
    (folder / "link").symlink_to(tmp_path / "other")
    assert "link/x.png" in names(folder, [folder, folder / "link" / "x.png"])


def test_what_a_folder_covers(folder: Path) -> None:
    (folder / "t.jsonl").write_text('{"text": "a"}')
    (folder / "link").symlink_to(folder.parent)
    (folder / "data").mkdir()
    sources = open_sources(folder)
    expected = {
        "z.png": True,
        "gone.png": True,
        "gone/gone.txt": True,
        "download": True,
        "t.jsonl": False,
        "link/x.png": False,
        "data": False,
        "../outside.png": False,
        "../folder2/z.png": False,
    }
    assert {name: sources.covers(os.path.abspath(folder / name)) for name in expected} == expected


def test_what_a_pattern_and_a_file_cover(folder: Path) -> None:
    sources = open_sources([f"{folder}/b/*.JPG", folder / "z.png"])
    expected = {"b/gone.JPG": True, "b/gone.png": False, "b/c/gone.JPG": False, "z.png": True, "y.png": False}
    assert {name: sources.covers(str(folder / name)) for name in expected} == expected


def test_the_number_of_entries_is_known_where_that_is_cheap(folder: Path) -> None:
    write_pdf(folder / "a.pdf", ["red", "blue", "red"])
    (folder / "damaged.pdf").write_bytes(b"%PDF-1.7")
    (folder / "t.jsonl").write_text('{"text": "a"}\n' * 7)
    (folder / "t.csv").write_text("text,price\na,1\nb,2\nc,3")
    assert open_sources([folder, folder / "t.jsonl", folder / "t.csv"]).estimate() == len(TREE) + 3 + 1 + 7 + 3


def test_the_number_of_lines_is_told_from_the_first(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "some words"}\n' * 200_000)
    assert open_sources(tmp_path / "t.jsonl").estimate() == pytest.approx(200_000, rel=0.01)


def test_files_that_go_before_they_are_read_are_errors(folder: Path) -> None:
    sources = open_sources([folder / "z.png", folder / "b.txt"])
    parts: Iterator[Any] = iter(sources)
    next(parts)
    (folder / "b.txt").unlink()
    problem = [part for part in parts if isinstance(part, Unreadable)]
    assert [(each.source, each.reason) for each in problem] == [(str(folder / "b.txt"), "no such file.")]


def test_a_folder_of_many_files_is_listed_without_opening_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        (folder / f"{number:03}.jpg").write_bytes(b"not looked at")
    opened: list[object] = []
    open_file = os.open
    monkeypatch.setattr(os, "open", lambda *args: opened.append(args[0]) or open_file(*args))
    assert len(list(list_folder(str(folder)))) == 300 + 3
    read_entries([f"{folder}/*.jpg"])
    assert opened == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dpi": 0}, "dpi"),
        ({"limits": 3}, "image_limits"),
        ({"metadata": "price"}, "metadata='price'"),
        ({"metadata": [3]}, r"metadata=\[3\]"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        SourceOptions(**options)
