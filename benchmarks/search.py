"""Recall and latency of searches in an index of random vectors: exact, and with each kind of vector index.

    python benchmarks/search.py --rows 1000000 --dimension 256

Vectors are in random directions, the hardest there are for a vector index, or with ``--clustered`` many near each
other, as models make them. Recall is of the ten nearest by numpy, for queries that are not in the table. ``--part``
also searches under a condition that so many of a hundred rows meet.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from st_modules.index.model_facts import ModelFacts
from st_modules.index.schema import ITEMS, MODEL_KEY, item_fields
from st_modules.index.searching import find_by_vector
from st_modules.index.vector_index import build_vector_index

BLOCK = 50_000
K = 10


def draw(rows: int, dimension: int, clustered: bool) -> Iterator[np.ndarray]:
    """Yield unit vectors, block by block."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(rows // 100, 1), dimension), dtype=np.float32)
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        block = rng.standard_normal((count, dimension), dtype=np.float32)
        if clustered:
            block = centres[rng.integers(len(centres), size=count)] + 0.5 * block
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def write(path: str, rows: int, dimension: int, dtype: str, clustered: bool) -> Any:
    """Write an index, and return LanceDB's table of its items."""
    facts = ModelFacts("random", "0" * 32, dimension, dtype)
    schema = pa.schema([*item_fields(pa, dimension, dtype), pa.field("part", pa.int64())])
    schema = schema.with_metadata({MODEL_KEY: facts.to_json().encode()})
    table = lancedb.connect(path).create_table(ITEMS, schema=schema)
    start = 0
    for block in draw(rows, dimension, clustered):
        numbers = range(start, start + len(block))
        columns: dict[str, Any] = {name: [f"{number:09d}" for number in numbers] for name in ("id", "content", "state")}
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(block.astype(dtype).ravel()), dimension)
        columns |= {"source": ["random"] * len(block), "part": [number % 100 for number in numbers]}
        nothing = [None] * len(block)
        table.add(pa.table([pa.array(columns.get(field.name, nothing), field.type) for field in schema], schema=schema))
        start += len(block)
    table.optimize()
    return table


def nearest(queries: np.ndarray, part: int, arguments: argparse.Namespace) -> list[set[str]]:
    """Return the ids of the nearest rows of each query by numpy, of those that meet the condition."""
    scores = np.concatenate(
        [queries @ block.T for block in draw(arguments.rows, arguments.dimension, arguments.clustered)], 1
    )
    scores[:, np.arange(arguments.rows) % 100 >= part] = -np.inf
    return [{f"{row:09d}" for row in np.argpartition(-line, K)[:K]} for line in scores]


def search(table: Any, queries: np.ndarray, expected: list[set[str]], where: str | None, exact: bool) -> str:
    """Search, and return recall and times in words."""
    seconds, found = [], 0
    for query, right in zip(queries, expected, strict=True):
        start = time.perf_counter()
        hits = find_by_vector(table, query, K, where, exact)
        seconds.append(time.perf_counter() - start)
        found += len({hit.id for hit in hits} & right)
    milliseconds = [1000 * each for each in seconds]
    high = statistics.quantiles(milliseconds, n=20)[-1]
    recall = found / (K * len(queries))
    return f"recall@{K} {recall:.3f}, median {statistics.median(milliseconds):.1f} ms, 95% within {high:.1f} ms"


def main() -> None:
    """Write, search exactly, build each index, search again, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16"])
    parser.add_argument("--clustered", action="store_true")
    parser.add_argument("--part", type=int, help="of a hundred rows, how many a condition leaves")
    parser.add_argument("--kinds", nargs="*", default=["hnsw", "ivf_pq"])
    arguments = parser.parse_args()
    rng = np.random.default_rng(1)
    rows = next(draw(arguments.rows, arguments.dimension, arguments.clustered))[: arguments.queries]
    noise = rng.standard_normal(rows.shape, dtype=np.float32) / np.sqrt(arguments.dimension)
    queries = rows + noise if arguments.clustered else noise
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    where = None if arguments.part is None else f"part < {arguments.part}"
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        table = write(
            str(Path(folder) / "my.index"), arguments.rows, arguments.dimension, arguments.dtype, arguments.clustered
        )
        print(f"{arguments.rows} vectors of {arguments.dimension}, written in {time.perf_counter() - start:.1f} s")
        asked = {"": (None, nearest(queries, 100, arguments))}
        if where is not None:
            asked[f" where {where}"] = (where, nearest(queries, arguments.part, arguments))
        for name, (condition, expected) in asked.items():
            print(f"exact{name}: {search(table, queries, expected, condition, exact=True)}", flush=True)
        for kind in arguments.kinds:
            report = build_vector_index(table, kind)
            print(f"{kind}: built in {report.seconds:.1f} s, by its own measure {report.recall:.3f}, {report.effort}")
            for name, (condition, expected) in asked.items():
                print(f"{kind}{name}: {search(table, queries, expected, condition, exact=False)}", flush=True)


if __name__ == "__main__":
    main()
