"""What a file is taken for, by its name and by its content."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from st_modules import InputError
from st_modules.files.kinds import kind_by_name
from st_modules.inputs.formats import FORMATS
from st_modules.inputs.images import ImageSource
from tests.helpers.files import Read, write_pdf


def write_image(path: Path, kind: str) -> Path:
    Image.effect_noise((9, 7), 90).convert("RGB").save(path, kind)
    return path


def write_parquet(path: Path) -> Path:
    pq.write_table(pa.table({"text": ["a"]}), path)
    return path


def write_page(path: Path) -> Path:
    return write_pdf(path, ["red"])


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_without_a_suffix_is_an_image(tmp_path: Path, read: Read, kind: str) -> None:
    path = write_image(tmp_path / "picture", kind)
    assert ImageSource(path).size == (9, 7)
    assert [record.item for record in read(path).records] == [{"image": path}]


def test_no_suffix_that_pillow_has_for_our_formats_is_missing() -> None:
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    assert {suffix for suffix in known if kind_by_name(Path(f"a{suffix}")) != "image"} <= {".apng", ".avifs", ".pfm"}


@pytest.mark.parametrize("text", ["BMW is a make of cars", "P5 is next", "GIF or JPEG?", "RIFF", "PAR for the course"])
def test_a_text_that_begins_like_a_picture_is_a_text(tmp_path: Path, read: Read, text: str) -> None:
    (tmp_path / "texts").write_text(text)
    assert [record.text for record in read(tmp_path / "texts").records] == [text]


@pytest.mark.parametrize("name", ["a.txt", "a.bin", "a", "a.csv", "a.tsv", "a.jsonl"])
@pytest.mark.parametrize(("write", "suffix"), [(write_parquet, ".parquet"), (write_page, ".pdf")])
def test_a_file_that_is_not_what_its_name_says_is_told(
    tmp_path: Path, read: Read, write: Callable[[Path], Path], suffix: str, name: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: its content is .*rename it to {suffix}"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_an_image_is_not_read_as_a_table(tmp_path: Path, read: Read, name: str) -> None:
    write_image(tmp_path / name, "PNG")
    with pytest.raises(InputError, match=rf"{name}: its content is an image"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.txt", "a.docx", "a.csv", "a.jsonl"])
@pytest.mark.parametrize("content", [b"PK\x03\x04\0\0", "text\nhello".encode("utf-16")], ids=["zip", "utf-16"])
def test_binary_content_is_told(tmp_path: Path, read: Read, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: not UTF-8 text"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.pdf", "a.png", "a"])
def test_a_file_of_zero_bytes_is_told(tmp_path: Path, read: Read, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=rf"{name}: zero bytes"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", "id,text\n1,hello\n", "header of a table"),
        ("a.txt", '"image"\t"label"\na.png\tcat\n', "header of a table"),
        ("a.txt", "image;caption\n", "header of a table"),
        ("a.txt", '\ufeff{"text": "hello"}\n{"text": "you"}\n', "JSON"),
        ("a.json", '[\n  {"text": "hello"}\n]', "JSON"),
        ("a.json", '"hello"', "JSON"),
        ("a.txt", '\n[{"text": "hello"},\n', "JSON"),
        ("a.html", "<!DOCTYPE html>\n<p>hello", "HTML"),
        ("a.xml", "<?xml version='1.0'?>\n<a/>", "XML"),
    ],
)
def test_lines_that_are_parts_of_something_else_are_not_texts(
    tmp_path: Path, read: Read, name: str, content: str, told: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=f"{name}: .*{told}"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    "line",
    [
        "text",
        "[1]",
        "[1, 2]",
        "an image, with a text",
        "[a note in brackets]",
        "{curly}",
        "1 < 2",
        pytest.param("{" * 3000, id="{{{"),
        pytest.param('{"":' * 1000, id="deep"),
        pytest.param("[" * 3000, id="[[["),
    ],
)
def test_lines_that_only_look_like_it_are_texts(tmp_path: Path, read: Read, line: str) -> None:
    (tmp_path / "a.txt").write_text(line)
    assert [record.text for record in read(tmp_path / "a.txt").records] == [line]


@pytest.fixture
def irregular(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "link.txt").symlink_to("nowhere")
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("pipe.txt", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("link.txt", "a symbolic link that leads to nothing"),
        ("loop.txt", "a symbolic link that leads to nothing"),
        ("missing.txt", "no such file or folder"),
    ],
)
def test_what_is_no_regular_file_is_told(irregular: Path, read: Read, path: str, told: str) -> None:
    with pytest.raises(InputError, match=f"{path}: {told}"):
        read(irregular / path)


def test_a_file_without_permission_is_told(tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("hello")

    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"a.txt: cannot be read \(Permission denied\)"):
        read(tmp_path / "a.txt")


def test_a_name_that_is_not_utf8_is_told(tmp_path: Path, read: Read) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    path.write_text("hello")
    with pytest.raises(InputError, match="its name is not UTF-8"):
        read(path)
