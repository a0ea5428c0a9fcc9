"""Indexes with known vectors, written through LanceDB itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import lancedb
import numpy as np
import pyarrow as pa

from st_modules.index.model_facts import ModelFacts
from st_modules.index.schema import ERRORS, ITEMS, MODEL_KEY, error_fields, item_fields

Columns: TypeAlias = dict[str, Any]
"""Columns whose names are no keywords, to be passed with two asterisks."""


def draw_vectors(rows: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    """Vectors of length 1 in random directions."""
    vectors = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def draw_clusters(rows: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    """Vectors as models make them: many near each other."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(rows // 50, 1), dimension))
    vectors = centres[rng.integers(len(centres), size=rows)] + 0.4 * rng.standard_normal((rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_rows(vectors: np.ndarray, dtype: str = "float32", **columns: Sequence[Any]) -> pa.Table:
    """The rows of an index; what has no column here is as good as missing, metadata in the order given."""
    rows, dimension = vectors.shape
    own = {"id": [f"i{row:05d}" for row in range(rows)], "source": ["made"] * rows}
    own |= {"content": own["id"], "state": own["id"]}
    fields = item_fields(pa, dimension, dtype)
    flat = pa.array(vectors.astype(dtype).ravel())
    arrays = {"vector": pa.FixedSizeListArray.from_arrays(flat, dimension)}
    for field in fields:
        if field.name != "vector":
            arrays[field.name] = pa.array(columns.get(field.name, own.get(field.name, [None] * rows)), field.type)
    names = {field.name for field in fields}
    metadata = {name: pa.array(values) for name, values in columns.items() if name not in names}
    schema = pa.schema([*fields, *(pa.field(name, array.type) for name, array in metadata.items())])
    return pa.table([*(arrays[field.name] for field in fields), *metadata.values()], schema=schema)


def make_index(
    path: Path,
    vectors: np.ndarray,
    dtype: str = "float32",
    facts: ModelFacts | None = None,
    errors: Sequence[Mapping[str, Any]] = (),
    **columns: Sequence[Any],
) -> Any:
    """Write an index, and return LanceDB's table of its items."""
    facts = facts or ModelFacts("tiny", "0" * 32, vectors.shape[1], dtype)
    rows = make_rows(vectors, dtype, **columns)
    database = lancedb.connect(str(path))
    if errors:
        database.create_table(ERRORS, pa.Table.from_pylist(list(errors), pa.schema(error_fields(pa))))
    return database.create_table(ITEMS, rows.replace_schema_metadata({MODEL_KEY: facts.to_json().encode()}))
