"""The columns of a batch, whatever library holds them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np


def list_columns(batch: Any) -> list[str]:
    """Return the names of the columns of a dictionary, a table or record batch of Arrow, or a data frame of pandas."""
    return list(batch.schema.names if _is_arrow(batch) else batch)


def list_values(column: Any) -> list[Any]:
    """Return the values of a list, an array of numpy or Arrow, or a series; ``None`` where there is none."""
    if isinstance(column, np.ndarray):
        # The values of an array of several dimensions are arrays themselves, such as pictures of one size.
        values = column.tolist() if column.ndim == 1 else list(column)
    else:
        convert = next((getattr(column, name) for name in ("to_pylist", "to_list") if hasattr(column, name)), None)
        values = list(column) if convert is None else convert()
    return [None if _is_missing(value) else value for value in values]


def add_columns(batch: Any, columns: Mapping[str, Any]) -> Any:
    """Return a batch of the same kind with more columns.

    Args:
        batch: A dictionary, a table or record batch of Arrow, or a data frame of pandas.
        columns: An array of vectors, or a list of strings and ``None``, a column.
    """
    if _is_arrow(batch):
        for name, values in columns.items():
            batch = _set_column(batch, name, values)
        return batch
    if isinstance(batch, Mapping):
        return {**batch, **{name: _as_array(values) for name, values in columns.items()}}
    return batch.assign(**{name: _as_array(list(values)) for name, values in columns.items()})


def _set_column(batch: Any, name: str, values: Any) -> Any:
    pa = sys.modules["pyarrow"]
    if isinstance(values, np.ndarray):
        flat = pa.array(values.reshape(-1))
        array = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    else:
        array = pa.array(values, pa.string())
    if name in batch.schema.names:
        return batch.set_column(batch.schema.names.index(name), name, array)
    return batch.append_column(name, array)


def _as_array(values: Any) -> np.ndarray:
    """Return a list as an array of objects, and an array as it is."""
    if isinstance(values, np.ndarray):
        return values
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):  # at once, numpy would take arrays of one length for another dimension
        array[place] = value
    return array


def _is_arrow(batch: object) -> bool:
    pa = sys.modules.get("pyarrow")
    return pa is not None and isinstance(batch, pa.Table | pa.RecordBatch)


def _is_missing(value: object) -> bool:
    """Whether a value is what pandas has where there is none."""
    return type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
