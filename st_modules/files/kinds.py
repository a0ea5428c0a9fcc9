"""What a file holds: by its name, and by its first bytes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Literal, TypeAlias

from st_modules.errors import InputError
from st_modules.inputs.formats import IMAGE_SUFFIXES, begins_like_image, has_image_suffix

JSONL_SUFFIXES = frozenset({".jsonl", ".ndjson"})
DELIMITERS = {".csv": ",", ".tsv": "\t"}

Kind: TypeAlias = Literal["image", "pdf", "jsonl", "csv", "parquet", "text"]

_HEAD = 4096  # bytes that tell what a file holds

_SUFFIXES: dict[str, Kind] = {
    **dict.fromkeys(IMAGE_SUFFIXES, "image"),
    **dict.fromkeys(JSONL_SUFFIXES, "jsonl"),
    **dict.fromkeys(DELIMITERS, "csv"),
    ".parquet": "parquet",
    ".pdf": "pdf",
}
_VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".flv", ".mpg", ".mpeg", ".3gp"})
_JSON = re.compile(r"\{\s*$|\[\s*($|[{\"])")
_MARKUP = re.compile(r"\s*<(\?xml|!doctype|html|svg)\b", re.IGNORECASE)
_NAMES = {"image": "an image", "pdf": "a PDF", "parquet": "Parquet"}


def read_head(path: Path) -> bytes:
    """Return the beginning of a file, which tells what it holds.

    Raises:
        InputError: It is missing, or no regular file, or cannot be opened.
    """
    if not os.path.isfile(path):  # opening a FIFO would wait for its writer
        if os.path.islink(path) and not os.path.exists(path):
            raise InputError("a symbolic link that leads to nothing; delete it, or put its target back.", str(path))
        if os.path.lexists(path):
            raise InputError("not a regular file; texts of a pipe are read from standard input: --file -", str(path))
        raise InputError("no such file or folder.", str(path))
    try:
        with path.open("rb") as stream:
            return stream.read(_HEAD)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}).", str(path)) from error


def kind_by_name(path: Path) -> Kind:
    """What a file is taken for by its suffix; texts where the suffix is no other kind's."""
    return _SUFFIXES.get(path.suffix.lower(), "text")


def kind_by_content(head: bytes) -> Kind | None:
    """What a file is by its first bytes, where these are an image's, a PDF's or Parquet's."""
    if begins_like_image(head):
        return "image"
    return "pdf" if head.startswith(b"%PDF-") else "parquet" if head.startswith(b"PAR1") else None


def find_kind(path: Path, head: bytes) -> Kind:
    """What a file is read as: what its suffix says, and an image under any name that is no other kind's."""
    named = kind_by_name(path)
    return "image" if named == "text" and kind_by_content(head) == "image" else named


def describe_unread(path: Path) -> tuple[str, str] | None:
    """What a file is called that is not read, and what several are; ``None`` where its name is of no such kind.

    Args:
        path: A file that is none of those that are read, by its name and by its content.
    """
    if has_image_suffix(str(path)):
        return (
            "picture of a format that is not read; convert it to JPEG or PNG",
            "pictures of formats that are not read; convert them to JPEG or PNG",
        )
    if path.suffix.lower() in _VIDEO_SUFFIXES:
        return "video, which is not embedded", "videos, which are not embedded"
    return None


def check_content(path: Path, kind: Kind, head: bytes) -> None:
    """Make sure that lines or rows are read from a file that has them.

    Images, PDFs and Parquet are checked by those who read them.

    Args:
        path: The file.
        kind: What it is about to be read as.
        head: Its beginning.

    Raises:
        InputError: Its content is something else.
    """
    if not head:
        raise InputError("zero bytes; it was not written or downloaded completely.", str(path))
    if kind not in ("jsonl", "csv", "text"):
        return
    if found := kind_by_content(head):
        suffix = ".png, .jpg …" if found == "image" else f".{found}"
        raise InputError(f"its content is {_NAMES[found]}, whatever its name says; rename it to {suffix}", str(path))
    if kind == "text" and (unread := describe_unread(path)):
        raise InputError(f"a {unread[0]}.", str(path))
    if b"\0" in head:
        raise InputError(
            "not UTF-8 text but binary; pass images, PDFs, Parquet, CSV, JSONL, or texts saved as UTF-8.", str(path)
        )
    if kind == "text" and (structure := _find_structure(path, head.decode("utf-8", "replace"))):
        raise InputError(
            f"{structure}. If its lines are texts nevertheless, pass them by standard input: --file - < FILE", str(path)
        )


def _find_structure(path: Path, beginning: str) -> str | None:
    """What speaks against a file of one text a line."""
    first = next((line.strip("\ufeff \t\r") for line in beginning.split("\n") if line.strip("\ufeff \t\r")), "")
    if path.suffix.lower() == ".json" or _is_json(first):
        return "JSON, not one text a line; write one object a line into a .jsonl file"
    if _MARKUP.match(first):
        return "HTML or XML, not one text a line; extract its text"
    cells = [cell.strip(' "') for cell in re.split("[,;\t]", first)]
    if len(cells) > 1 and not {"text", "image"}.isdisjoint(cells):
        return "its first line is the header of a table; rename it to .csv or .tsv"
    return None


def _is_json(line: str) -> bool:
    if _JSON.match(line):
        return True
    try:
        return line.startswith("{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
