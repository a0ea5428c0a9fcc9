"""An index as a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from st_modules._imports import import_extra
from st_modules.errors import InputError
from st_modules.files.atomic import name_file, write_atomically
from st_modules.index.hits import list_metadata
from st_modules.index.problems import name_problems

# A row of 4096 numbers has 16 KiB.
_ROWS_AT_ONCE = 4096


def check_target(path: Path, force: bool) -> None:
    """Raise where an index cannot be exported to a path.

    Args:
        path: The file.
        force: Whether a file that is there is written over.

    Raises:
        InputError: It is no Parquet file by its name, is there already, or its folder is not.
    """
    if path.suffix.lower() != ".parquet":
        raise InputError(f"{path}: an index is exported to a file that ends with .parquet.")
    if path.is_dir() or (path.exists() and not force):
        raise InputError(f"{path}: already there{'' if path.is_dir() else '; pass --force (force=True) to overwrite'}.")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}.")


def export_items(table: Any, path: Path, name: str) -> int:
    """Write the columns id, vector, source, page, text and image, and those of metadata, as Parquet.

    The rows are read as they are written. The file is there when all of it is written, and not before.

    Args:
        table: LanceDB's table of items.
        path: The file; one that is there is replaced.
        name: The index, for messages.

    Raises:
        InputError: The index cannot be read.
        OSError: The file cannot be written.

    Returns:
        How many rows were written. Their vectors are float32, also where the index keeps float16.
    """
    pa, parquet = import_extra("pyarrow", extra="index"), import_extra("pyarrow.parquet", extra="index")
    stored = table.schema
    names = ["id", "vector", "source", "page", "text", "image", *list_metadata(pa, stored)]
    dimension = stored.field("vector").type.list_size
    vectors = pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False)
    # The description of the model goes with them.
    schema = pa.schema([vectors if name == "vector" else stored.field(name) for name in names], stored.metadata)
    written = 0
    with write_atomically([path]) as (part,), name_file(path), parquet.ParquetWriter(part, schema) as writer:
        for batch in _read_batches(table, names, name):
            rows = pa.Table.from_batches([batch]).select(names)
            writer.write_table(rows.cast(schema))
            written += len(rows)
    return written


def _read_batches(table: Any, names: list[str], name: str) -> Iterator[Any]:
    with name_problems(name):
        yield from table.search().select(names).limit(None).to_batches(batch_size=_ROWS_AT_ONCE)
