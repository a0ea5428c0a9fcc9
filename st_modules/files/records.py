"""What ``st-modules embed`` reads, as records with a place and an id, and the problems of reading, told together."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from st_modules.errors import InputError
from st_modules.files.atomic import name_file
from st_modules.inputs.images import ImageSource
from st_modules.inputs.items import check_text
from st_modules.inputs.limits import ImageLimits

_MOST_PROBLEMS = 100
_DEEPEST = 100
_REMOTE = re.compile(r"https?://", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)


@dataclass(frozen=True)
class Record:
    """One thing to embed.

    Attributes:
        place: Where it was read, as error messages say it: ``data.jsonl:3``.
        id: The record's own id, or its place.
        text: Its text.
        image: Its image or images, as they were written, or where they are: ``report.pdf#page=3``.
        item: What ``encode`` is given: image paths are resolved.
        metadata: The other fields of a row.
    """

    place: str
    id: str | int
    text: str | None
    image: str | list[str] | None
    item: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class NamedImage:
    """An image of a record.

    Attributes:
        name: What the record says of it.
        source: Its path or address.
        limits: What it may cost and where it may come from; ``None`` for what the user has named, and for what was kept
            of a file that is read.
    """

    name: str
    source: str | Path
    limits: ImageLimits | None = None


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be embedded.

    Attributes:
        place: Where it was read.
        id: Its own id, or its place.
        problem: What is wrong with it.
    """

    place: str
    id: str | int
    problem: str

    @classmethod
    def of(cls, error: InputError, place: str, id: str | int | None = None) -> BadRecord:
        """Say what is wrong with the record at a place, by the error that tells it."""
        return cls(place, place if id is None else id, str(error).removeprefix(place).lstrip(":, "))


@dataclass(frozen=True)
class Reading:
    """What was read of a path.

    Attributes:
        records: In order.
        notes: What was left out and why, a line each.
        bad: The records that cannot be read, where these were to be skipped.
    """

    records: list[Record]
    notes: list[str] = field(default_factory=list[str])
    bad: list[BadRecord] = field(default_factory=list[BadRecord])


def make_record(
    place: str,
    text: str | None = None,
    image: NamedImage | list[NamedImage] | None = None,
    id: str | int | None = None,
    metadata: dict[str, Any] | None = None,
) -> Record:
    """Put a record together.

    Raises:
        InputError: An image's header cannot be read (one that is fetched is not looked at yet).
    """
    images = [image] if isinstance(image, NamedImage) else image or []
    for each in images:
        if not _is_fetched(each):
            _ = ImageSource(each.source, place, each.limits).size
    written = [each.name for each in images]
    sources = [each.source if each.limits is None else ImageSource(each.source, place, each.limits) for each in images]
    single = isinstance(image, NamedImage)
    item = {"text": text, "image": (sources[0] if single else sources) if images else None}
    given = {name: value for name, value in item.items() if value is not None}
    return Record(
        place, place if id is None else id, text, written[0] if single else written or None, given, metadata or {}
    )


def _is_fetched(image: NamedImage) -> bool:
    may_be = image.limits is None or image.limits.remote_images
    return may_be and isinstance(image.source, str) and _REMOTE.match(image.source) is not None


def resolve_image(name: str, folder: Path, limits: ImageLimits | None = None) -> NamedImage:
    """An image by the path, URL or data URI that a file has for it; paths are relative to the file's folder."""
    return NamedImage(name, name if _ADDRESS.match(name) else folder / name, limits)


def keep_image(content: bytes, scratch: Path) -> Path:
    """Put an encoded image that is in no file of its own into one, so that it waits on the disk to be embedded.

    Args:
        content: The encoded image.
        scratch: A folder for such files; the same image twice is one file.
    """
    path = scratch / hashlib.blake2b(content, digest_size=16).hexdigest()
    if not path.exists():
        with name_file(path):
            path.write_bytes(content)
    return path


def check_name(path: str | Path) -> None:
    """Raise ``InputError`` where a path is not UTF-8: no record could be written that names it."""
    name = os.fspath(path)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError("its name is not UTF-8; rename it.", ascii(name)) from error


def check_fields(fields: dict[str, Any], place: str) -> None:
    """Make sure that fields can be written as JSON.

    Raises:
        InputError: A string, anywhere in lists and objects, has a lone surrogate, or these are nested too deeply.
    """
    for name, field_ in fields.items():
        try:
            _check_field(name, field_)
        except InputError as error:
            raise InputError(error.problem, f"{place}, field {json.dumps(name)}") from error


def _check_field(name: str, field_: object) -> None:
    remaining: list[tuple[object, int]] = [(name, 0), (field_, 0)]
    while remaining:
        value, depth = remaining.pop()
        if depth > _DEEPEST:
            raise InputError(f"lists and objects more than {_DEEPEST} deep; leave it out")
        if isinstance(value, str):
            check_text(value, "field")
        elif isinstance(value, list):
            remaining += [(each, depth + 1) for each in cast("list[object]", value)]
        elif isinstance(value, dict):
            pairs = cast("dict[object, object]", value).items()
            remaining += [(each, depth + 1) for pair in pairs for each in pair]


class Problems:
    """What is wrong with the parts of a file, so that all of it is told at once, or all that is right is read.

    Args:
        skip: Whether bad records are left out; what keeps others from being read is an error in any case.

    Attributes:
        bad: The bad records, where these are left out.
    """

    def __init__(self, skip: bool = False) -> None:
        self.bad: list[BadRecord] = []
        self._skip = skip
        self._id: str | int | None = None
        self._lines: list[str] = []
        self._more = 0

    def identify(self, id: object) -> None:
        """Say which id the record has that is being read; what is no id does not count."""
        self._id = id if isinstance(id, (str, int)) and not isinstance(id, bool) else None

    @contextmanager
    def collect_record(self, place: str) -> Generator[None, None, None]:
        """Take note of an ``InputError`` about the record at a place that is raised within, and go on."""
        self._id = None
        try:
            yield
        except InputError as error:
            if self._skip:
                self.bad.append(BadRecord.of(error, place, self._id))
            else:
                self._note(error)

    @contextmanager
    def collect(self) -> Generator[None, None, None]:
        """Take note of an ``InputError`` that is raised within, and go on."""
        try:
            yield
        except InputError as error:
            self._note(error)

    def _note(self, error: InputError) -> None:
        lines = str(error).splitlines()
        room = _MOST_PROBLEMS - len(self._lines)
        self._lines += lines[:room]
        self._more += len(lines[room:])

    def raise_all(self) -> None:
        """Raise what was noted, bad records that are left out aside, as one ``InputError``: up to a hundred lines."""
        if self._lines:
            rest = [f"… and {self._more} more."] if self._more else []
            raise InputError("\n".join(self._lines + rest))
