"""Tables of columns: Parquet files, and the folders that ``datasets`` saves."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from st_modules._imports import import_extra
from st_modules.errors import InputError
from st_modules.files.parquet import ArrowTable, choose_columns, name_errors, number_rows, open_parquet
from st_modules.files.tables import Columns
from st_modules.index.entries import Entry, Unreadable
from st_modules.index.sources.notes import Notes
from st_modules.index.sources.options import SourceOptions
from st_modules.index.sources.rows import Row, read_row, report, write_id
from st_modules.index.sources.stored import StoredFile, find_file, is_remote
from st_modules.index.sources.tables import check_metadata

_LARGEST_STATE = 64 * 1024 * 1024  # of the JSON that says which files a dataset has


def read_parquet(file: StoredFile, options: SourceOptions, notes: Notes) -> Iterator[Entry | Unreadable]:
    """Yield a row after the other.

    Raises:
        InputError: The file is damaged, or has changed, or a column is missing or of a wrong type.
        MissingExtraError: pyarrow is not installed.
    """
    with file.open() as stream, open_parquet(stream, file.source, options.columns) as table:
        yield from _read_rows(file.source, table, options, notes)
    file.check()


def check_parquet(file: StoredFile, options: SourceOptions) -> None:
    """Make sure that a file has rows, and the columns that were asked for.

    Raises:
        InputError: It has not.
        MissingExtraError: pyarrow is not installed.
    """
    with file.open() as stream, open_parquet(stream, file.source, options.columns) as table:
        _check_rows(file.source, table, options)


def read_dataset(folder: StoredFile, options: SourceOptions, notes: Notes) -> Iterator[Entry | Unreadable]:
    """Yield the rows of what ``Dataset.save_to_disk`` wrote.

    Args:
        folder: The folder, which is the source of the rows: into how many files these are divided says nothing.
        options: How they are read.
        notes: Takes note of columns that are left out.

    Raises:
        InputError: Files are missing or damaged, or have changed, or a column is missing or of a wrong type.
        MissingExtraError: pyarrow is not installed.
    """
    files = _list_files(folder.source)
    with _open_dataset(folder.source, files, options.columns) as table:
        yield from _read_rows(folder.source, table, options, notes)
    for file in files:
        file.check()


def check_dataset(folder: StoredFile, options: SourceOptions) -> None:
    """Make sure that a dataset has rows, and the columns that were asked for.

    Raises:
        InputError: It has not.
        MissingExtraError: pyarrow is not installed.
    """
    with _open_dataset(folder.source, _list_files(folder.source), options.columns) as table:
        _check_rows(folder.source, table, options)


def _read_rows(
    source: str, table: ArrowTable, options: SourceOptions, notes: Notes
) -> Generator[Entry | Unreadable, None, None]:
    for name, kind in table.left_out:
        if options.keeps(name):
            notes.add(f"left out the column {name!r} of {kind}: metadata has no bytes", source)
    for number, cells in table.rows:
        place = f"{source}#row={number}"
        fields: dict[str, Any] = {}
        try:
            for name, value in cells.read(place):
                fields[name] = _as_cell(name, value, table.columns)
        except InputError as error:
            yield report(error, source, place, write_id(fields.get(table.columns.id or "")))
            continue
        yield read_row(Row(source, place, place, fields), table.columns, options)


def _check_rows(source: str, table: ArrowTable, options: SourceOptions) -> None:
    first = next(table.rows, None)
    if first is None:
        raise InputError("nothing to embed in it.", source)
    check_metadata([*first[1].names, *(name for name, _ in table.left_out)], options, source)


def _as_cell(name: str, value: Any, columns: Columns) -> Any:
    if name == columns.image:
        return _as_images(value)
    return None if value == "" and name in columns.used() else value


def _as_images(value: Any) -> Any:
    """A cell of pictures: bytes, paths and addresses, one or a list."""
    if isinstance(value, list):
        return [_as_images(each) for each in cast("list[Any]", value)]
    if isinstance(value, dict):  # as ``datasets`` writes an image
        image = cast("dict[str, Any]", value)
        return image["bytes"] or image["path"] or None
    return value or None


@contextmanager
def _open_dataset(source: str, files: list[StoredFile], asked: Columns) -> Generator[ArrowTable, None, None]:
    pa = import_extra("pyarrow", extra="parquet")
    with files[0].open() as stream, name_errors(pa, files[0].source, "an Arrow file of datasets"):
        schema = pa.ipc.open_stream(stream).schema
    columns, left_out = choose_columns(schema, asked, source)
    unread = {name for name, _ in left_out}
    names = [name for name in schema.names if name not in unread]
    yield ArrowTable(columns, left_out, number_rows(_batches(pa, files, names)))


def _batches(pa: Any, files: Iterable[StoredFile], names: list[str]) -> Generator[Any, None, None]:
    for file in files:
        with file.open() as stream, name_errors(pa, file.source, "an Arrow file of datasets"):
            for batch in pa.ipc.open_stream(stream):
                yield batch.select(names)


def _list_files(folder: str) -> list[StoredFile]:
    """The files of a dataset, in order.

    Raises:
        InputError: ``state.json`` cannot be read, or files are missing.
    """
    state = _read_json(_join(folder, "state.json"))
    entries: Any = state.get("_data_files")
    listed: list[Any] = cast("list[Any]", entries) if isinstance(entries, list) else []
    names: list[Any] = [each.get("filename") if isinstance(each, dict) else None for each in listed]
    if not names or not all(map(_is_name, names)):
        raise InputError("its state.json names no files; save the dataset again with save_to_disk.", folder)
    return [find_file(_join(folder, name)) for name in names]


def list_splits(folder: str) -> list[str] | None:
    """Return the folders of the datasets that ``save_to_disk`` wrote into a folder; ``None`` where it wrote none.

    Raises:
        InputError: What says which these are cannot be read.
    """
    if _exists(_join(folder, "dataset_dict.json")):
        splits = _read_json(_join(folder, "dataset_dict.json")).get("splits")
        if not isinstance(splits, list) or not splits or not all(map(_is_name, splits)):
            raise InputError("its dataset_dict.json names no splits; save it again with save_to_disk.", folder)
        return [_join(folder, split) for split in splits]
    if _exists(_join(folder, "state.json")) and _exists(_join(folder, "dataset_info.json")):
        return [folder]
    return None


def _is_name(text: object) -> bool:
    """Whether something is the name of what is in the folder itself, and leads nowhere else."""
    return isinstance(text, str) and text == posixpath.basename(text) and text not in ("", ".", "..")


def _exists(source: str) -> bool:
    try:
        find_file(source)
    except InputError:
        return False
    return True


def _read_json(source: str) -> dict[str, Any]:
    try:
        value: Any = json.loads(find_file(source).read(_LARGEST_STATE))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"not valid JSON: {error}", source) from error
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else os.path.join(folder, name)
