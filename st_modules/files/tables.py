"""Files of rows, read by columns: JSONL, and CSV and its like."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from st_modules.errors import InputError
from st_modules.files.kinds import DELIMITERS
from st_modules.files.records import NamedImage, Problems, Record, check_fields, make_record, resolve_image
from st_modules.files.texts import LONGEST_LINE, number_lines, read_lines
from st_modules.inputs.limits import ImageLimits

_MOST_NAMES = 50  # in a message
_DELIMITED = "cells are separated by commas, and by tabs in a file that ends in .tsv"


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are embedded; all others are metadata.

    Attributes:
        text: The column of the texts. ``None`` is "text" where there is such a column, and "" is none.
        image: The column of the images, likewise.
        id: The column of the ids, likewise.
    """

    text: str | None = None
    image: str | None = None
    id: str | None = None

    def named(self) -> dict[str, str]:
        """The columns that were asked for by name, by what they are."""
        return {role: name for role, name in vars(self).items() if name}

    def used(self) -> set[str]:
        """The columns that are no metadata."""
        return {name for name in vars(self).values() if name}

    def choose(self, names: Sequence[str], place: str) -> Columns:
        """Return the columns that a table is read by, each one that it has, or "".

        Args:
            names: The table's columns.
            place: What error messages call the table.

        Raises:
            InputError: A column that was asked for is not there, nor is one to embed, or two have the same name.
        """
        _check_names(names, place)
        there = list_columns(names)
        if unknown := [name for name in self.named().values() if name not in names]:
            raise InputError(f"no column {quote(unknown[0])}; there are {there}.", place)
        chosen = {
            role: name if name is not None else role if role in names else "" for role, name in vars(self).items()
        }
        if not chosen["text"] and not chosen["image"]:
            named = f"pass --text or --image with one of {there}" if names else "there is none at all"
            raise InputError(f"no column to embed; {named}.", place)
        return Columns(**chosen)


def read_row(
    place: str, fields: dict[str, Any], columns: Columns, folder: Path, limits: ImageLimits | None = None
) -> Record:
    """Turn a row into a record.

    Args:
        place: Where it stands.
        fields: Its cells by column; ``None`` is none. Images are strings, or read already.
        columns: As ``Columns.choose`` returns them.
        folder: What image paths are relative to.
        limits: What the images may cost and where they may come from.

    Raises:
        InputError: It has nothing to embed, or a cell is of a wrong type or cannot be read.
    """
    text, image, id_ = (fields.get(name) if name else None for name in (columns.text, columns.image, columns.id))
    check_row(place, text, image, id_, columns)
    if isinstance(image, list):
        image = [_as_image(each, folder, limits) for each in cast("list[str | NamedImage]", image)]
    elif image is not None:
        image = _as_image(image, folder, limits)
    used = columns.used()
    metadata = {name: value for name, value in fields.items() if name not in used}
    check_fields(fields, place)
    return make_record(place, text, image or None, id_, metadata)


def check_row(place: str, text: Any, image: Any, id_: Any, columns: Columns) -> None:
    """Make sure that a row has something to embed, and cells of the right types.

    Args:
        place: Where it stands.
        text: Its text; ``None`` is none.
        image: Its image or a list of images: strings, encoded images, or read already.
        id_: Its id.
        columns: As ``Columns.choose`` returns them.

    Raises:
        InputError: It has not.
    """
    if text is None and not image:
        names = [quote(name) for name in (columns.text, columns.image) if name]
        nothing = f"neither a {names[0]} nor an {names[1]} field" if len(names) == 2 else f"no {names[0]} field"
        raise InputError(f"{nothing}; fill it, or leave the row out", place)
    if text is not None and not isinstance(text, str):
        raise InputError(f"{quote(columns.text)} must be a string, not {_show(text)}", place)
    images = cast("list[Any]", image if isinstance(image, list) else [image])
    if image is not None and not all(isinstance(name, (str, bytes, NamedImage)) and name for name in images):
        raise InputError(f"{quote(columns.image)} must be a path, a URL, or a list of them, not {_show(image)}", place)
    if id_ is not None and (isinstance(id_, bool) or not isinstance(id_, (str, int))):
        raise InputError(f"{quote(columns.id)} must be a string or a whole number, not {_show(id_)}", place)


def _as_image(value: str | NamedImage, folder: Path, limits: ImageLimits | None) -> NamedImage:
    return value if isinstance(value, NamedImage) else resolve_image(value, folder, limits)


def quote(name: str | None) -> str:
    """Return a name as JSON, so that a damaged one can be printed."""
    return json.dumps(name, ensure_ascii=not (name or "").isprintable())


def list_names(names: Sequence[str]) -> str:
    """Return names for a message, the first of many."""
    more = len(names) - _MOST_NAMES
    return ", ".join(map(quote, names[:_MOST_NAMES])) + (f" and {more} more" if more > 0 else "")


def list_columns(names: Sequence[str]) -> str:
    """Return the names of a table's columns for a message, which says so where something else is between the cells."""
    return (list_names(names) or "none") + (f"; {_DELIMITED}" if _is_joined(names) else "")


def _is_joined(names: Sequence[str]) -> bool:
    """Whether the only column of a table seems to be several, with another delimiter between them."""
    return len(names) == 1 and re.search("[,;\t]", names[0]) is not None


def _show(value: Any) -> str:
    return json.dumps(value, default=repr)[:40]


def read_jsonl(path: Path, asked: Columns, problems: Problems, limits: ImageLimits | None = None) -> list[Record]:
    """Read one JSON object a line; empty lines are left out.

    Args:
        path: The file.
        asked: Which fields to embed.
        problems: Takes note of lines that are wrong.
        limits: What images that objects name may cost, and where they may come from.

    Raises:
        InputError: No object has a field that was asked for, or a line is too long.
    """
    columns = Columns(*(role if name is None else name for role, name in vars(asked).items()))
    if not columns.text and not columns.image:
        raise InputError("no field to embed; pass --text or --image with the name of one.", str(path))
    records: list[Record] = []
    seen: dict[str, None] = {}
    with path.open("rb") as stream:
        for number, line in number_lines(read_lines(stream, str(path))):
            place = f"{path}:{number}"
            with problems.collect_record(place):
                fields = parse_object(line, place)
                seen |= dict.fromkeys(fields)
                problems.identify(fields.get(columns.id or ""))
                records.append(read_row(place, fields, columns, path.parent, limits))
    if seen and (unknown := [name for name in asked.named().values() if name not in seen]):
        raise InputError(f"no field {quote(unknown[0])}; there are {list_names(list(seen))}.", str(path))
    return records


def parse_object(line: bytes, place: str) -> dict[str, Any]:
    """Return the fields of a line of JSONL.

    Raises:
        InputError: It is no JSON object, or has a field twice.
    """
    try:
        fields = json.loads(line, object_pairs_hook=_unique_fields, parse_constant=_read_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not valid JSON: {error}", place) from error
    if not isinstance(fields, dict):
        raise InputError('not a JSON object; write {"text": ..., "image": ...}', place)
    return cast("dict[str, Any]", fields)


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field is there twice")
    return fields


def read_csv(path: Path, asked: Columns, problems: Problems, limits: ImageLimits | None = None) -> list[Record]:
    """Read a table whose first row has the names of its columns; the suffix says what is between the cells.

    Empty cells count as left out. Ids are strings.

    Args:
        path: The file.
        asked: Which columns to embed.
        problems: Takes note of rows that are wrong, and of what keeps the rest from being read.
        limits: What images that cells name may cost, and where they may come from.

    Raises:
        InputError: The file is no such table.
    """
    records: list[Record] = []
    with open_csv(path) as (names, rows):
        columns = asked.choose(names, str(path))
        used = columns.used()
        with problems.collect():
            for place, cells in rows:
                with problems.collect_record(place):
                    fields = name_cells(names, cells, place)
                    given = {name: None if name in used and not cell else cell for name, cell in fields.items()}
                    problems.identify(given.get(columns.id or ""))
                    records.append(read_row(place, given, columns, path.parent, limits))
    return records


@contextmanager
def open_csv(path: Path) -> Generator[tuple[list[str], Iterator[tuple[str, list[str]]]], None, None]:
    """Open a CSV file, or one whose suffix says that something else is between the cells.

    Yields:
        The names of the columns, and the rows: each its place, the line that it begins in, and its cells. Empty lines
        are left out. Going on to a row raises ``InputError`` where the file is not UTF-8, or its quotes are wrong, or a
        cell is longer than ``LONGEST_LINE``.

    Raises:
        InputError: Two columns have the same name, or the first row cannot be read.
    """
    with path.open("rb") as stream, open_csv_stream(stream, str(path), DELIMITERS[path.suffix.lower()]) as table:
        yield table


@contextmanager
def open_csv_stream(
    stream: BinaryIO, name: str, delimiter: str
) -> Generator[tuple[list[str], Iterator[tuple[str, list[str]]]], None, None]:
    """Read a CSV file that is open already.

    Args:
        stream: The file.
        name: What error messages call it.
        delimiter: What is between the cells.

    Yields:
        As ``open_csv``.

    Raises:
        InputError: As ``open_csv``.
    """
    usual = csv.field_size_limit(LONGEST_LINE)
    try:
        rows = _read_rows(stream, name, delimiter)
        place, names = next(rows, (name, list[str]()))
        _check_names(names, place)
        yield names, rows
    finally:
        csv.field_size_limit(usual)


def check_csv(path: Path) -> list[str]:
    """Read a CSV file for another reader, which would fill up short rows and rename columns without a word.

    Returns:
        The names of its columns.

    Raises:
        InputError: As ``open_csv``, or rows have more or fewer cells than there are columns: one line for each.
    """
    problems = Problems()
    with open_csv(path) as (names, rows), problems.collect():
        for place, cells in rows:
            with problems.collect():
                name_cells(names, cells, place)
    problems.raise_all()
    return names


def name_cells(names: list[str], cells: list[str], place: str) -> dict[str, str]:
    """Return the cells of a row by their columns.

    Raises:
        InputError: There are more or fewer cells than columns.
    """
    if len(cells) != len(names):
        mended = "put quotes around a cell that has a delimiter or a line break in it"
        raise InputError(
            f"{len(cells)} cells for {len(names)} columns; {_DELIMITED if _is_joined(names) else mended}", place
        )
    return dict(zip(names, cells, strict=True))


def _read_rows(stream: BinaryIO, name: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    rows = csv.reader(_decode_lines(stream, name), delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in rows:
            if cells:
                yield f"{name}:{start}", cells
            start = rows.line_num + 1
    except csv.Error as error:
        raise InputError(f"cannot be read as CSV: {error}", f"{name}:{start}") from error


def _decode_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    for number, line in enumerate(read_lines(stream, name), 1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError("cannot be read as CSV: not UTF-8 text; save it as UTF-8", f"{name}:{number}") from error


def _read_constant(name: str) -> None:
    """NaN and infinity, which JSON has no word for and Python writes, as null."""


def _check_names(names: Sequence[str], place: str) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"more than one column has the name {quote(twice[0])}; rename it.", place)
