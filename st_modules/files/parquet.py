"""Parquet, by columns; images as paths, as bytes, or as ``datasets`` writes them."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from st_modules._imports import import_extra
from st_modules.errors import InputError
from st_modules.files.records import NamedImage, Problems, Reading, Record, keep_image
from st_modules.files.tables import Columns, read_row
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits

_ROWS_AT_ONCE = 64  # an image of a few MB in each
_STREAM_BUFFER = 1024 * 1024

MOST_ROWS = 10_000_000
"""A file of a kilobyte may have any number of rows that are the same."""


def read_parquet(
    path: Path, asked: Columns, scratch: Path, problems: Problems, limits: ImageLimits | None = None
) -> Reading:
    """Read a table, a part of it in memory at a time.

    Empty cells, null ones and empty strings, count as left out. Metadata is what JSON has a word for: dates and the
    like are strings, and NaN is null. Columns of bytes are left out.

    Args:
        path: A Parquet file.
        asked: Which columns to embed.
        scratch: A folder for images that are in cells.
        problems: Takes note of rows that are wrong.
        limits: What images that cells name may cost, and where they may come from.

    Raises:
        InputError: The file is damaged or has more than ``MOST_ROWS`` rows, or a column is of a wrong type.
        MissingExtraError: pyarrow is not installed.
    """
    records: list[Record] = []
    with open_parquet(path, str(path), asked) as table:
        for number, cells in table.rows:
            with problems.collect_record(f"{path}, row {number}"):
                records.append(_read_row(path, number, cells, table.columns, scratch, problems, limits))
    return Reading(
        records,
        [f"{path}: left out the column {name!r} of {kind}: metadata has no bytes." for name, kind in table.left_out],
    )


class Cells:
    """The cells of one row.

    Args:
        batch: The rows that it is among, as pyarrow has them.
        row: Which of them it is.
    """

    def __init__(self, batch: Any, row: int) -> None:
        self._batch = batch
        self._row = row

    @property
    def names(self) -> list[str]:
        """The columns."""
        return cast("list[str]", self._batch.schema.names)

    def read(self, place: str) -> Generator[tuple[str, Any], None, None]:
        """Yield the name of each column and its cell as Python has it.

        Raises:
            InputError: A cell cannot be read; ``place`` is what error messages call the row.
        """
        for name in self.names:
            try:
                value = self._batch.column(name)[self._row].as_py()
            except ValueError as error:  # a string that is not UTF-8, or a time within a list
                raise InputError(f"its {name!r} cannot be read: {error}", place) from error
            yield name, value


@dataclass(frozen=True)
class ArrowTable:
    """A table that is read row by row.

    Attributes:
        columns: The columns that are embedded, each one that it has, or "".
        left_out: Names and types of the columns that are not read, since metadata has no bytes.
        rows: The rows, numbered from 1. Going on raises ``InputError`` where the file is damaged.
    """

    columns: Columns
    left_out: list[tuple[str, str]]
    rows: Iterator[tuple[int, Cells]]


@contextmanager
def open_parquet(source: Path | BinaryIO, name: str, asked: Columns) -> Generator[ArrowTable, None, None]:
    """Open a Parquet file, of which a part is in memory at a time.

    Args:
        source: The file.
        name: What error messages call it.
        asked: Which columns to embed.

    Raises:
        InputError: The file is damaged or has more than ``MOST_ROWS`` rows, or a column is of a wrong type.
        MissingExtraError: pyarrow is not installed.
    """
    pa, pq = (import_extra(module, extra="parquet") for module in ("pyarrow", "pyarrow.parquet"))
    with name_errors(pa, name, "Parquet"):
        # Streamed: otherwise whole groups of rows are in memory, up to all of the file.
        file = pq.ParquetFile(source, pre_buffer=False, buffer_size=_STREAM_BUFFER)
    with file:
        expected = file.metadata.num_rows
        if expected > MOST_ROWS:
            raise InputError(f"{expected} rows; at most {MOST_ROWS} are read. Write it in parts.", name)
        columns, left_out = choose_columns(file.schema_arrow, asked, name)
        unread = {each for each, _ in left_out}
        names = [each for each in file.schema_arrow.names if each not in unread]
        rows = number_rows(_batches(pa, file, names, name))
        yield ArrowTable(columns, left_out, _count_rows(rows, expected, name))


def choose_columns(schema: Any, asked: Columns, name: str) -> tuple[Columns, list[tuple[str, str]]]:
    """Return the columns of a table that are embedded, and names and types of those that metadata cannot have.

    Args:
        schema: The table's schema, as pyarrow has it.
        asked: Which columns to embed.
        name: What error messages call the table.

    Raises:
        InputError: A column is missing or of a wrong type.
    """
    pa = import_extra("pyarrow", extra="parquet")
    columns = asked.choose(schema.names, name)
    _check_types(pa, schema, columns, name)
    left_out = [each for each in schema if each.name not in columns.used() and _has_bytes(pa, each.type)]
    return columns, [(each.name, str(each.type)) for each in left_out]


def number_rows(batches: Iterable[Any]) -> Generator[tuple[int, Cells], None, None]:
    """Number the rows of batches, as pyarrow has them, from 1."""
    pa = import_extra("pyarrow", extra="parquet")
    number = 0
    for batch in batches:
        written = pa.RecordBatch.from_arrays([_write_times(pa, each) for each in batch.columns], batch.schema.names)
        for row in range(written.num_rows):
            number += 1
            yield number, Cells(written, row)


def _count_rows(rows: Iterator[tuple[int, Cells]], expected: int, name: str) -> Iterator[tuple[int, Cells]]:
    number = 0
    for number, cells in rows:
        yield number, cells
    if number != expected:
        raise InputError(f"{number} rows were read of {expected}; write it again.", name)


def _batches(pa: Any, file: Any, names: list[str], name: str) -> Generator[Any, None, None]:
    with name_errors(pa, name, "Parquet"):
        yield from file.iter_batches(_ROWS_AT_ONCE, columns=names)


def _write_times(pa: Any, column: Any) -> Any:
    """Dates and times as text: Python's have no nanoseconds."""
    tests = (pa.types.is_timestamp, pa.types.is_date, pa.types.is_time)
    return column.cast(pa.string()) if any(test(column.type) for test in tests) else column


@contextmanager
def name_errors(pa: Any, name: str, kind: str) -> Generator[None, None, None]:
    """Turn errors of pyarrow into ``InputError`` that says which file cannot be read, and as what."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"cannot be read as {kind}: {str(error).splitlines()[0]}", name) from error


def _check_types(pa: Any, schema: Any, columns: Columns, place: str) -> None:
    for name, fits, expected in (
        (columns.text, _is_string, "texts are strings"),
        (columns.image, _is_image, "images are paths, URLs, bytes, or what datasets writes"),
        (columns.id, _is_id, "ids are strings or whole numbers"),
    ):
        kind = schema.field(name).type if name else None
        if name and not fits(pa, _plain_type(pa, kind)):
            raise InputError(f"its column {name!r} has values of type {kind}; {expected}.", place)


def _plain_type(pa: Any, kind: Any) -> Any:
    """A type without what only says how it is stored."""
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_string(pa: Any, kind: Any) -> bool:
    types = pa.types
    return any(test(kind) for test in (types.is_string, types.is_large_string, types.is_string_view, types.is_null))


def _is_bytes(pa: Any, kind: Any) -> bool:
    types = pa.types
    tests = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    return any(test(kind) for test in tests)


def _is_image(pa: Any, kind: Any) -> bool:
    types = pa.types
    if any(test(kind) for test in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        return _is_image(pa, _plain_type(pa, kind.value_type))
    if types.is_struct(kind):
        return {each.name for each in kind} == {"bytes", "path"}
    return _is_string(pa, kind) or _is_bytes(pa, kind)


def _is_id(pa: Any, kind: Any) -> bool:
    return _is_string(pa, kind) or pa.types.is_integer(kind)


def _has_bytes(pa: Any, kind: Any) -> bool:
    kind = _plain_type(pa, kind)
    return _is_bytes(pa, kind) or any(_has_bytes(pa, kind.field(number).type) for number in range(kind.num_fields))


def _read_row(
    path: Path,
    number: int,
    cells: Cells,
    columns: Columns,
    scratch: Path,
    problems: Problems,
    limits: ImageLimits | None,
) -> Record:
    place = f"{path}, row {number}"
    fields: dict[str, Any] = {}
    for name, value in cells.read(place):
        if name == columns.image:
            fields[name] = _read_image(value, place, f"{path}#row={number}", scratch)
        elif name in (columns.text, columns.id):
            fields[name] = None if value == "" else value
            if name == columns.id:
                problems.identify(value)
        else:
            fields[name] = _as_json(value)
    return read_row(place, fields, columns, path.parent, limits)


def _read_image(cell: Any, place: str, name: str, scratch: Path) -> Any:
    """A cell with its images, those that are not in files of their own put into one."""
    if isinstance(cell, list):
        cells = cast("list[Any]", cell)
        return [_read_image(each, place, f"{name}&image={number}", scratch) for number, each in enumerate(cells, 1)]
    if isinstance(cell, dict):
        image = cast("dict[str, Any]", cell)
        if not image["bytes"]:
            return image["path"] or None
        cell, name = image["bytes"], f"{name}&path={image['path']}" if image["path"] else name
    if not isinstance(cell, bytes):
        return cell or None
    if not cell:
        return None
    _ = ImageSource(cell, place).size
    return NamedImage(name, keep_image(cell, scratch))


def _as_json(value: Any) -> Any:
    """A value of metadata as JSON has it."""
    if isinstance(value, (list, tuple)):
        return [_as_json(each) for each in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {str(name): _as_json(each) for name, each in cast("dict[Any, Any]", value).items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
