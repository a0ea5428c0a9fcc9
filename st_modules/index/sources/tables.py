"""Tables in lines: JSONL, and CSV and its like, a row in memory at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from st_modules.errors import InputError
from st_modules.files.tables import Columns, list_names, name_cells, open_csv_stream, parse_object, quote
from st_modules.files.texts import number_lines, read_lines
from st_modules.index.entries import Entry, Unreadable
from st_modules.index.sources.notes import Notes
from st_modules.index.sources.options import SourceOptions
from st_modules.index.sources.rows import Row, read_row, report
from st_modules.index.sources.stored import StoredFile

_FIRST_ROWS = 1000
_FIRST_BYTES = 64 * 1024 * 1024
# Longer ones are codes, of which a number would lose digits.
_INT = re.compile(r"0|-?[1-9][0-9]{0,17}")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,300})?(?:[eE][+-]?[0-9]{1,2})?")


def read_jsonl(file: StoredFile, options: SourceOptions, notes: Notes) -> Iterator[Entry | Unreadable]:
    """Yield a row a line; empty lines are left out.

    Raises:
        InputError: The file cannot be read on, or has changed.
    """
    columns = choose_fields(options, file.source)
    with file.open() as stream:
        for number, line in number_lines(read_lines(stream, file.source)):
            place = f"{file.source}:{number}"
            try:
                fields = parse_object(line, place)
            except InputError as error:
                yield report(error, file.source, place)
                continue
            yield read_row(Row(file.source, place, f"{file.source}#line={number}", fields), columns, options)
    file.check()


def choose_fields(options: SourceOptions, source: str) -> Columns:
    """Return the fields of objects that are embedded; each of them may have any of these.

    Raises:
        InputError: There is none.
    """
    columns = Columns(*(role if name is None else name for role, name in vars(options.columns).items()))
    if not columns.text and not columns.image:
        raise InputError("no field to embed; name one for the text or for the image.", source)
    return columns


def check_jsonl(file: StoredFile, options: SourceOptions) -> None:
    """Make sure that the first objects of a file have the fields that were asked for.

    Raises:
        InputError: None of them has one of these, or there is no line in the file.
    """
    choose_fields(options, file.source)
    seen: dict[str, None] = {}
    lines = size = 0
    with file.open() as stream:
        for number, line in number_lines(read_lines(stream, file.source)):
            lines, size = lines + 1, size + len(line)
            if lines > _FIRST_ROWS or size > _FIRST_BYTES:
                break
            try:
                seen |= dict.fromkeys(parse_object(line, f"{file.source}:{number}"))
            except InputError:
                continue
    if not lines:
        raise InputError("nothing to embed in it.", file.source)
    asked = [*options.columns.named().values(), *(options.metadata or ())]
    if seen and (unknown := [name for name in asked if name not in seen]):
        raise InputError(
            f"no field {quote(unknown[0])} in its first objects; there are {list_names(list(seen))}.",
            file.source,
        )


def read_csv(file: StoredFile, options: SourceOptions, notes: Notes) -> Iterator[Entry | Unreadable]:
    """Yield a row after the other; empty cells are left out, and columns of numbers are numbers.

    Raises:
        InputError: The file is no such table, or cannot be read on, or has changed.
    """
    types = _find_types(file, options)
    with file.open() as stream, open_csv_stream(stream, file.source, _delimiter(file)) as (names, rows):
        columns = choose_columns(names, options, file.source)
        for place, cells in rows:
            try:
                fields = _type_cells(name_cells(names, cells, place), types)
            except InputError as error:
                yield report(error, file.source, place)
                continue
            line = place.rpartition(":")[2]
            yield read_row(Row(file.source, place, f"{file.source}#line={line}", fields), columns, options)
    file.check()


def check_csv(file: StoredFile, options: SourceOptions) -> None:
    """Make sure that a file has a row, and the columns that were asked for.

    Raises:
        InputError: It has not, or is no such table.
    """
    with file.open() as stream, open_csv_stream(stream, file.source, _delimiter(file)) as (names, rows):
        choose_columns(names, options, file.source)
        if next(rows, None) is None:
            raise InputError("nothing to embed in it.", file.source)


def choose_columns(names: Sequence[str], options: SourceOptions, source: str) -> Columns:
    """Return the columns of a table that are embedded, each one that it has, or "".

    Raises:
        InputError: A column that was asked for is not there, nor is one to embed, or two have the same name.
    """
    columns = options.columns.choose(names, source)
    check_metadata(names, options, source)
    return columns


def check_metadata(names: Sequence[str], options: SourceOptions, source: str) -> None:
    """Raise ``InputError`` where a table has not a column that is to be kept as metadata."""
    if unknown := [name for name in options.metadata or () if name not in names]:
        raise InputError(f"no column {quote(unknown[0])}; there are {list_names(names)}.", source)


def _delimiter(file: StoredFile) -> str:
    return "\t" if file.source.lower().endswith(".tsv") else ","


def _find_types(file: StoredFile, options: SourceOptions) -> dict[str, type[int] | type[float]]:
    """The columns of metadata whose cells are all numbers, as one writes them: a code with leading zeros is none."""
    with file.open() as stream, open_csv_stream(stream, file.source, _delimiter(file)) as (names, rows):
        used = choose_columns(names, options, file.source).used()
        kept = {place: name for place, name in enumerate(names) if name not in used and options.keeps(name)}
        found: dict[int, type[int] | type[float] | None] = {}
        for _, cells in rows:
            # A row of another length is told when it is read.
            if len(cells) == len(names):
                for place in [place for place in kept if cells[place]]:
                    found[place] = _join_types(found.get(place, int), cells[place])
                    if found[place] is None:
                        del kept[place]
    return {kept[place]: kind for place, kind in found.items() if kind is not None}


def _join_types(kind: type[int] | type[float] | None, cell: str) -> type[int] | type[float] | None:
    if kind is int and _INT.fullmatch(cell):
        return int
    return float if kind is not None and _FLOAT.fullmatch(cell) else None


def _type_cells(cells: dict[str, str], types: dict[str, type[int] | type[float]]) -> dict[str, Any]:
    return {name: types.get(name, str)(cell) if cell else None for name, cell in cells.items()}
