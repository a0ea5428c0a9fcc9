"""What ``st-modules embed`` reads: arguments, text files, images and JSONL, each as records with a place and an id."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from st_modules.errors import ImageError, InputError
from st_modules.inputs.images import ImageSource

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"})
JSONL_SUFFIXES = frozenset({".jsonl", ".ndjson"})
_REMOTE = re.compile(r"https?://", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)


@dataclass(frozen=True)
class Record:
    """One thing to embed.

    Attributes:
        place: Where it was read, as error messages say it: ``data.jsonl:3``.
        id: The record's own id, or its place.
        text: Its text.
        image: Its image or images, as they were written.
        item: What ``encode`` is given: image paths are resolved.
        metadata: The other fields of a JSONL record.
    """

    place: str
    id: str | int
    text: str | None
    image: str | list[str] | None
    item: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])


def read_texts(texts: Sequence[str]) -> list[Record]:
    """Turn texts of the command line into records; they are always text, never paths or URLs."""
    return [
        Record(f"text {number}", f"text {number}", text, None, {"text": text}) for number, text in enumerate(texts, 1)
    ]


def is_file_name(text: str) -> bool:
    """Whether a text of the command line is more likely a file that was meant to be read."""
    return Path(text).suffix.lower() in IMAGE_SUFFIXES | JSONL_SUFFIXES | {".txt"} and Path(text).is_file()


def read_file(path: Path) -> list[Record]:
    """Read what a path holds.

    Args:
        path: A folder (its images, recursively), an image, a JSONL file with ``text`` and/or ``image`` fields, any
            other file (one text a line; empty lines are left out), or ``-`` (texts from standard input).

    Returns:
        The records, in the file's order; a folder's are sorted by path.

    Raises:
        InputError: The path is missing or holds nothing, or some of its records are wrong: one line for each.
    """
    if str(path) == "-":
        records = _text_records("stdin", sys.stdin.buffer.read())
    elif path.is_dir():
        records = _require_good(_image_record(image) for image in _images_below(path))
    elif not path.exists():
        raise InputError(f"{path}: no such file or folder.")
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        records = _require_good([_image_record(path)])
    elif path.suffix.lower() in JSONL_SUFFIXES:
        records = _require_good(_json_record(path, place, line) for place, line in _lines(str(path), path.read_bytes()))
    else:
        records = _text_records(str(path), path.read_bytes())
    if not records:
        raise InputError(f"{path}: nothing to embed in it.")
    return records


def _text_records(name: str, content: bytes) -> list[Record]:
    return _require_good(_text_record(place, line) for place, line in _lines(name, content))


def _text_record(place: str, line: bytes) -> Record | str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return f"{place}: not UTF-8 text"
    return Record(place, place, text, None, {"text": text})


def _image_record(path: Path) -> Record | str:
    problem = _image_problem(path, str(path))
    return problem or Record(str(path), str(path), None, str(path), {"image": path})


def _images_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _json_record(path: Path, place: str, line: bytes) -> Record | str:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"{place}: not valid JSON: {error}"
    if problem := _field_problem(fields):
        return f"{place}: {problem}"
    text, image = fields.pop("text", None), fields.pop("image", None)
    images = [_resolve(name, path.parent) for name in ([image] if isinstance(image, str) else image or [])]
    for source in images:
        if problem := _image_problem(source, place):
            return problem
    item = {"text": text, "image": images[0] if isinstance(image, str) else images or None}
    given = {name: value for name, value in item.items() if value is not None}
    return Record(place, fields.pop("id", place), text, image, given, fields)


def _field_problem(fields: object) -> str | None:
    """What is wrong with a JSONL record, apart from its images."""
    if not isinstance(fields, dict):
        return 'not a JSON object; write {"text": ..., "image": ...}'
    fields = cast("dict[str, Any]", fields)
    text, image, id_ = (fields.get(name) for name in ("text", "image", "id"))
    if text is None and not image:
        return 'neither a "text" nor an "image" field'
    if text is not None and not isinstance(text, str):
        return f'"text" must be a string, not {json.dumps(text)[:40]}'
    names = cast("list[Any]", image) if isinstance(image, list) else [image]
    if image is not None and not all(isinstance(name, str) and name for name in names):
        return f'"image" must be a path, a URL, or a list of them, not {json.dumps(image)[:40]}'
    if "id" in fields and (isinstance(id_, bool) or not isinstance(id_, (str, int))):
        return f'"id" must be a string or a whole number, not {json.dumps(id_)[:40]}'
    return None


def _resolve(image: str, folder: Path) -> str | Path:
    return image if _ADDRESS.match(image) else folder / image


def _image_problem(source: str | Path, place: str) -> str | None:
    """What is wrong with an image's header; a remote image is not fetched for this."""
    if isinstance(source, str) and _REMOTE.match(source):
        return None
    try:
        _ = ImageSource(source, place).size
    except ImageError as error:
        return str(error)
    return None


def _lines(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    # Split as bytes: str.splitlines also cuts at U+2028 and others, which are legal inside a JSON string.
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if line.strip():
            yield f"{name}:{number}", line


def _require_good(records: Iterator[Record | str] | list[Record | str]) -> list[Record]:
    """Split records from problems, and raise all of the problems together."""
    good: list[Record] = []
    problems: list[str] = []
    for record in records:
        good.append(record) if isinstance(record, Record) else problems.append(record)
    if problems:
        raise InputError("\n".join(problems))
    return good
