"""What ``st-modules embed`` writes: vectors beside their records, and what was skipped."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_modules._imports import import_extra
from st_modules.errors import InputError
from st_modules.files.atomic import name_file
from st_modules.files.records import BadRecord, Record, check_name

if TYPE_CHECKING:
    import numpy as np


def list_targets(path: Path) -> list[Path]:
    """Return the files of an output: the vectors, their records where these are in a file of their own, the skipped."""
    records = [] if path.suffix == ".parquet" else [path.with_suffix(".jsonl")]
    return [path, *records, path.with_suffix(".skipped.jsonl")]


def check_target(path: Path, inputs: Sequence[Path] = ()) -> None:
    """Make sure, before any work is done, that vectors can be written to a path.

    Args:
        path: A ``.npy`` file (records go to the ``.jsonl`` beside it) or a ``.parquet`` file.
        inputs: Files that are read, which are never written over.

    Raises:
        InputError: They cannot, and why.
    """
    check_name(path)
    if path.suffix not in (".npy", ".parquet"):
        raise InputError(f"{path}: write to a .npy file (with a .jsonl beside it) or to a .parquet file.")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InputError('Parquet needs pyarrow: pip install "st-modules[parquet]", or write to a .npy file.')
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; make it first.")
    for target in list_targets(path):
        if any(os.path.exists(each) and target.exists() and target.samefile(each) for each in inputs):
            raise InputError(f"{target}: it is read and would be written over; pass another name as --out.")
        if os.path.lexists(target) and not target.is_file():
            raise InputError(f"{target}: not a regular file; pass another name as --out.")


def list_existing(path: Path) -> list[str]:
    """Return the files of an output that are there."""
    return [str(target) for target in list_targets(path) if target.exists()]


def write_output(
    folder: Path, path: Path, vectors: np.ndarray, records: Sequence[Record], bad: Iterable[BadRecord]
) -> None:
    """Write the files of an output.

    Args:
        folder: Where they are written.
        path: Where the vectors go from there: it says their names and their format.
        vectors: Shape (n, d).
        records: The n records, row by row in the same order.
        bad: What was skipped; there is no file of it where nothing was.
    """
    files = [folder / target.name for target in list_targets(path)]
    with name_file(files[0]):
        if path.suffix == ".parquet":
            _write_parquet(files[0], vectors, records)
        else:
            _write_npy(files[0], vectors)
            _write_lines(files[1], map(_row, records))
    if lines := [asdict(each) for each in bad]:
        # Names that are no UTF-8 are among what is skipped.
        _write_lines(files[-1], lines, ascii=True)


def find_rows(path: Path, records: Sequence[Record]) -> list[Record]:
    """Return which of the records an output is of: all but those that it lists as skipped.

    Returns:
        The records, row by row; none where the output is of others, or damaged, or not complete.
    """
    *written, skipped = list_targets(path)
    if not all(target.exists() for target in written):
        return []
    left_out = [line["place"] for line in _read_rows(skipped) if "place" in line] if skipped.exists() else []
    expected = [record for record in records if record.place not in frozenset(map(str, left_out))]
    if path.suffix == ".npy":
        rows = _read_rows(written[1])
        return expected if all(row == given for row, given in zip_longest(rows, map(_row, expected))) else []
    pa, pq = (import_extra(module, extra="parquet") for module in ("pyarrow", "pyarrow.parquet"))
    columns = _columns(pa, expected)
    try:
        found = pq.read_table(path, columns=[*columns])
    except (pa.ArrowException, OSError):
        return []
    return expected if found.equals(pa.table(columns)) else []


def read_first(path: Path, count: int) -> np.ndarray | None:
    """Return the first vector of an output; ``None`` where it has not this number of vectors, or is damaged."""
    import numpy as np

    if path.suffix == ".npy":
        try:
            vectors = np.load(path, mmap_mode="r")
        except (EOFError, ValueError):
            return None
        is_whole = vectors.ndim == 2 and len(vectors) == count and vectors.dtype.kind == "f"
        return vectors[0] if is_whole else None
    pa, pq = (import_extra(module, extra="parquet") for module in ("pyarrow", "pyarrow.parquet"))
    try:
        column = pq.read_table(path, columns=["embedding"])
        return np.asarray(column[0][0].as_py(), np.float32) if len(column) == count else None
    except (pa.ArrowException, OSError, ValueError, IndexError, TypeError):
        return None


def _write_npy(path: Path, vectors: np.ndarray) -> None:
    import numpy as np

    # For a stream that may be read too, numpy goes through Python's write, whose errors say what is wrong.
    with path.open("w+b") as stream:
        np.save(stream, vectors)


def _row(record: Record) -> dict[str, Any]:
    return {"id": record.id, "text": record.text, "image": record.image, "metadata": record.metadata}


def _write_lines(path: Path, rows: Iterable[dict[str, Any]], ascii: bool = False) -> None:
    with name_file(path), path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=ascii) + "\n" for row in rows)


def _read_rows(path: Path) -> Iterable[dict[str, Any]]:
    """The objects of a file of lines, an empty one in the place of a line that is none."""
    with path.open("rb") as stream:
        for line in stream:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield row if isinstance(row, dict) else {}


def _write_parquet(path: Path, vectors: np.ndarray, records: Sequence[Record]) -> None:
    pa, pq = (import_extra(module, extra="parquet") for module in ("pyarrow", "pyarrow.parquet"))
    flat = pa.array(vectors.astype("float32", copy=False).ravel())
    columns = {**_columns(pa, records), "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}
    with path.open("wb") as stream:
        pq.write_table(pa.table(columns), stream)


def _columns(pa: Any, records: Sequence[Record]) -> dict[str, Any]:
    return {
        "id": pa.array([str(record.id) for record in records], pa.string()),
        "text": pa.array([record.text for record in records], pa.string()),
        "image": pa.array([_as_list(record.image) for record in records], pa.list_(pa.string())),
        "metadata": pa.array([json.dumps(record.metadata, ensure_ascii=False) for record in records], pa.string()),
    }


def _as_list(image: str | list[str] | None) -> list[str] | None:
    return [image] if isinstance(image, str) else image
