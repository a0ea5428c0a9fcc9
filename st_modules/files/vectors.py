"""What ``st-modules embed`` writes: vectors beside their records, complete or not at all."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_modules._imports import import_extra
from st_modules.errors import InputError
from st_modules.files.atomic import write_atomically
from st_modules.files.records import Record

if TYPE_CHECKING:
    import numpy as np


def check_target(path: Path, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Make sure, before any work is done, that vectors can be written to a path.

    Args:
        path: A ``.npy`` file (records go to the ``.jsonl`` beside it) or a ``.parquet`` file.
        overwrite: Whether files that exist may be replaced.
        inputs: Files that are read, which never are.

    Raises:
        InputError: They cannot, and why.
    """
    if path.suffix not in (".npy", ".parquet"):
        raise InputError(f"{path}: write to a .npy file (with a .jsonl beside it) or to a .parquet file.")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InputError('Parquet needs pyarrow: pip install "st-modules[parquet]", or write to a .npy file.')
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; make it first.")
    for target in _targets(path):
        if any(os.path.exists(each) and target.exists() and target.samefile(each) for each in inputs):
            raise InputError(f"{target}: it is read and would be written over; pass another name as --out.")
    existing = [str(target) for target in _targets(path) if target.exists()]
    if existing and not overwrite:
        raise InputError(f"{' and '.join(existing)} already there: pass --force to overwrite.")


def write_vectors(path: Path, vectors: np.ndarray, records: Sequence[Record]) -> list[Path]:
    """Write vectors and their records, row by row in the same order.

    Args:
        path: As ``check_target`` let it through.
        vectors: Shape (n, d).
        records: The n records.

    Returns:
        The files written.
    """
    targets = _targets(path)
    with write_atomically(targets) as parts:
        if path.suffix == ".parquet":
            _write_parquet(parts[0], vectors, records)
        else:
            _write_npy(parts[0], parts[1], vectors, records)
    return targets


def _targets(path: Path) -> list[Path]:
    return [path] if path.suffix == ".parquet" else [path, path.with_suffix(".jsonl")]


def _write_npy(vectors_path: Path, rows_path: Path, vectors: np.ndarray, records: Sequence[Record]) -> None:
    import numpy as np

    with vectors_path.open("wb") as stream:
        np.save(stream, vectors)
    with rows_path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(_row(record), ensure_ascii=False) + "\n" for record in records)


def _row(record: Record) -> dict[str, Any]:
    return {"id": record.id, "text": record.text, "image": record.image, "metadata": record.metadata}


def _write_parquet(path: Path, vectors: np.ndarray, records: Sequence[Record]) -> None:
    pa, pq = (import_extra(module, extra="parquet") for module in ("pyarrow", "pyarrow.parquet"))
    flat = pa.array(vectors.astype("float32", copy=False).ravel())
    columns = {
        "id": pa.array([str(record.id) for record in records], pa.string()),
        "text": pa.array([record.text for record in records], pa.string()),
        "image": pa.array([_as_list(record.image) for record in records], pa.list_(pa.string())),
        "metadata": pa.array([json.dumps(record.metadata, ensure_ascii=False) for record in records], pa.string()),
        "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
    }
    pq.write_table(pa.table(columns), path)


def _as_list(image: str | list[str] | None) -> list[str] | None:
    return [image] if isinstance(image, str) else image
