"""Folders: what is read of them, and what is told to be left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from st_modules import InputError
from tests.helpers.files import Read, write_pdf


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "b" / "c").mkdir(parents=True)
    for name in ("z.png", "b/a.JPG", "b/c/.hidden.png"):
        Image.new("RGB", (6, 4), "red").save(folder / name)
    return folder


def names(folder: Path, read: Read) -> list[str]:
    return [record.id.removeprefix(f"{folder}/") for record in read(folder).records if isinstance(record.id, str)]


PICTURES = ["b/a.JPG", "b/c/.hidden.png", "z.png"]


def test_images_and_pages_are_sorted_by_path_and_nothing_is_said(folder: Path, read: Read) -> None:
    write_pdf(folder / "b" / "b.pdf", ["red", "blue"])
    assert names(folder, read) == ["b/a.JPG", "b/b.pdf, page 1", "b/b.pdf, page 2", "b/c/.hidden.png", "z.png"]
    assert read(folder).notes == []


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "AVIF", "PPM"])
def test_images_are_found_by_their_content_too(folder: Path, read: Read, kind: str) -> None:
    Image.new("RGB", (6, 4), "red").save(folder / "0download", kind)
    assert names(folder, read) == ["0download", *PICTURES]
    assert read(folder).notes == []


@pytest.mark.parametrize(
    ("others", "told"),
    [
        (["a.txt"], "1 file that is neither image nor PDF: a.txt"),
        (["b/t.csv", "a.txt"], "2 files that are neither images nor PDFs: a.txt, b/t.csv"),
        (list("gfedcAB"), "7 files that are neither images nor PDFs: A, B, c, d, e and 2 more"),
    ],
)
def test_other_files_are_named(folder: Path, read: Read, others: list[str], told: str) -> None:
    for name in others:
        (folder / name).write_text("text")
    assert names(folder, read) == PICTURES
    assert read(folder).notes == [f"{folder}: left out {told}"]


def test_pictures_of_other_formats_and_videos_are_told_as_such(folder: Path, read: Read) -> None:
    for name in ("notes.heic", "logo.svg", "b/clip.mov", "a.txt"):
        (folder / name).write_text("text")
    assert names(folder, read) == PICTURES
    assert read(folder).notes == [
        f"{folder}: left out 1 file that is neither image nor PDF: a.txt",
        f"{folder}: left out 2 pictures of formats that are not read; convert them to JPEG or PNG: "
        "logo.svg, notes.heic",
        f"{folder}: left out 1 video, which is not embedded: b/clip.mov",
    ]


def test_a_picture_of_another_format_says_what_to_do(folder: Path, read: Read) -> None:
    (folder / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(InputError, match=r"a\.heic: a picture of a format that is not read; convert it to JPEG or PNG"):
        read(folder / "a.heic")


def test_hidden_files_that_are_no_pictures_are_left_out_in_silence(folder: Path, read: Read) -> None:
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "._z.png").write_bytes(b"\0\5\x16\7")
    (folder / ".git").mkdir()
    (folder / ".git" / ".config").write_text("[core]")
    assert names(folder, read) == PICTURES
    assert read(folder).notes == []


def test_links_to_folders_are_named_and_links_to_images_read(folder: Path, read: Read, tmp_path: Path) -> None:
    (folder / "loop").symlink_to(folder)
    (folder / "elsewhere").symlink_to(tmp_path)
    (folder / "link.png").symlink_to("z.png")
    assert names(folder, read) == [*PICTURES[:2], "link.png", "z.png"]
    assert read(folder).notes == [f"{folder}: left out 2 folders behind symbolic links: elsewhere, loop"]


def test_what_cannot_be_opened_is_named(folder: Path, read: Read) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("nowhere")
    (folder / ".#lock").symlink_to("nowhere")
    assert names(folder, read) == PICTURES
    assert read(folder).notes == [f"{folder}: left out 2 files that cannot be read: link, pipe"]


def test_all_that_should_have_been_embedded_and_cannot_is_told_together(folder: Path, read: Read) -> None:
    (folder / "0.png").write_bytes(b"not an image")
    (folder / "1.png").symlink_to("nowhere")
    (folder / "2.pdf").write_bytes(b"not a PDF")
    (folder / "3.bin").write_bytes(b"%PDF-1.7")
    os.mkfifo(folder / "4.jpg")
    (folder / os.fsdecode(b"\xe9.png")).symlink_to("z.png")
    with pytest.raises(InputError) as caught:
        read(folder)
    lines = str(caught.value).splitlines()
    told = sorted(line.removeprefix(f"{folder}/").partition(":")[0] for line in lines)
    assert told == sorted(["0.png", "1.png", "2.pdf", "3.bin", "4.jpg", ascii(f"{folder}/\udce9.png")])


def test_a_folder_that_cannot_be_listed_is_told(folder: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    list_folder = Path.iterdir

    def refuse(path: Path) -> object:
        if path.name == "c":
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match=r"folder/b/c: cannot be read \(Permission denied\)"):
        read(folder)


def test_a_folder_with_nothing_to_embed_says_what_is_in_it(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert str(caught.value).splitlines() == [
        f"{tmp_path}: nothing to embed in it.",
        f"{tmp_path}: left out 1 file that is neither image nor PDF: a.txt",
    ]
