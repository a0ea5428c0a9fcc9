"""LanceDB's indexes of vectors: which one, how hard it is searched, and how much of the exact answer it finds."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from st_modules._imports import import_extra
from st_modules.arguments import check_choice
from st_modules.errors import InputError
from st_modules.index.schema import MODEL_KEY

if TYPE_CHECKING:
    import numpy as np

Kind: TypeAlias = Literal["hnsw", "ivf_pq"]

WANTED_RECALL = 0.95
"""How much of the exact answer a search through an index is to find."""
FEWEST_ROWS = 256
"""A codebook of product quantisation is trained on no fewer vectors."""

# Below, comparing all vectors takes milliseconds.
_EXACT_BELOW = 100_000
# So many numbers of a vector, or twice as many, become a byte in LanceDB; of another dimension all of them become one.
_NUMBERS_A_BYTE = 8
# Equal vectors have equal scores up to rounding, and any of them is right.
_SAME_SCORE = 1e-6


@dataclass(frozen=True)
class Effort:
    """How hard an index is searched.

    Attributes:
        nprobes: How many of its partitions are looked into.
        refine_factor: How many candidates are compared by their own vectors, for each answer.
        ef: How many candidates a graph is searched for; 0 where the index has no graph.
    """

    nprobes: int
    refine_factor: int
    ef: int = 0


_LADDERS = {
    "hnsw": [Effort(32, 4, 128), Effort(32, 4, 256), Effort(32, 8, 512), Effort(64, 8, 1024), Effort(64, 16, 2048)],
    "ivf_pq": [Effort(16, 10), Effort(32, 20), Effort(64, 40), Effort(128, 80), Effort(256, 160)],
}


@dataclass(frozen=True)
class VectorIndexReport:
    """What was built.

    Attributes:
        kind: ``"hnsw"`` or ``"ivf_pq"``.
        recall: Share of the exact ten nearest that a search finds, measured on vectors of the table.
        seconds: How long building took.
        effort: How hard it has to be searched for that.
    """

    kind: Kind
    recall: float
    seconds: float
    effort: Effort


def choose(rows: int, dimension: int) -> Kind | None:
    """Return the kind of index that suits a table; ``None`` where an exact search is fast enough.

    Partitions of compressed vectors find as much as graphs do, and are built more than ten times as fast:
    ``benchmarks/search.py``.
    """
    if rows < _EXACT_BELOW:
        return None
    return "hnsw" if dimension % _NUMBERS_A_BYTE else "ivf_pq"


def build_vector_index(table: Any, kind: Kind = "hnsw", *, k: int = 10, samples: int = 100) -> VectorIndexReport:
    """Build an index of the vectors, in the place of the one that there is.

    It is searched as hard as it takes to find 95% of the exact answers, or as hard as is sensible; the table keeps how
    hard, and searches follow it.

    Args:
        table: LanceDB's table of items.
        kind: ``"hnsw"``: graphs over vectors in bytes, the most exact. ``"ivf_pq"``: partitions of compressed vectors,
            the smallest.
        k: How many answers of a search the recall is of.
        samples: How many searches it is measured by.

    Raises:
        ArgumentError: There is no such kind.
        InputError: The table is too small for an index.
    """
    check_choice("kind", kind, _LADDERS)
    if (rows := table.count_rows()) < FEWEST_ROWS:
        raise InputError(f"a vector index of {rows} rows; from {FEWEST_ROWS} on there can be one.")
    indexes = import_extra("lancedb.index", extra="index")
    start = time.perf_counter()
    make = indexes.HnswSq if kind == "hnsw" else indexes.IvfPq
    table.create_index("vector", config=make(distance_type="cosine"), replace=True)
    seconds = time.perf_counter() - start
    effort, recall = _find_effort(table, _LADDERS[kind], k, samples)
    kept = {MODEL_KEY.decode(): json.dumps(asdict(effort))}
    table.update_field_metadata({"path": "vector", "metadata": kept})
    return VectorIndexReport(kind, recall, seconds, effort)


def measure_recall(table: Any, k: int = 10, samples: int = 100) -> float:
    """Measure how much of the exact answer a search through the index finds.

    The queries are vectors of the table, each of which is left out of its own answers. Queries of another kind than
    the items, as texts to pictures, are further away from what they find, and may find less of it.

    Args:
        table: LanceDB's table of items, with rows.
        k: How many answers a search has.
        samples: How many searches.
    """
    queries = _draw_queries(table, samples)
    return _measure(table, queries, _answer_exactly(table, queries, k), read_effort(table), k)


def read_effort(table: Any) -> Effort | None:
    """Return how hard a table's index is to be searched; ``None`` where no index was built."""
    described = (table.schema.field("vector").metadata or {}).get(MODEL_KEY)
    return Effort(**json.loads(described)) if described else None


def aim(query: Any, effort: Effort | None, k: int) -> Any:
    """Have a query of LanceDB search the index as hard as is asked for."""
    if effort is None:
        return query
    query = query.nprobes(effort.nprobes).refine_factor(effort.refine_factor)
    # A graph that is asked for more than it is searched for gives an error.
    return query.ef(max(effort.ef, k * effort.refine_factor)) if effort.ef else query


def _find_effort(table: Any, ladder: Sequence[Effort], k: int, samples: int) -> tuple[Effort, float]:
    queries = _draw_queries(table, samples)
    exact = _answer_exactly(table, queries, k)
    recall = 0.0
    for effort in ladder:
        recall = _measure(table, queries, exact, effort, k)
        if recall >= WANTED_RECALL:
            return effort, recall
    return ladder[-1], recall


def _draw_queries(table: Any, samples: int) -> list[tuple[str, np.ndarray]]:
    import numpy as np

    rows = table.count_rows()
    # The same every time, so that a report can be had again.
    offsets = random.Random(0).sample(range(rows), min(samples, rows))
    found = table.take_offsets(sorted(offsets)).select(["id", "vector"]).to_arrow()
    return [(row["id"], np.asarray(row["vector"], np.float32)) for row in found.to_pylist()]


def _answer_exactly(table: Any, queries: Sequence[tuple[str, np.ndarray]], k: int) -> list[list[float]]:
    return [_search(table, query, k, lambda search: search.bypass_vector_index()) for query in queries]


def _measure(
    table: Any,
    queries: Sequence[tuple[str, np.ndarray]],
    exact: Sequence[Sequence[float]],
    effort: Effort | None,
    k: int,
) -> float:
    found = right = 0
    for query, answers in zip(queries, exact, strict=True):
        distances = _search(table, query, k, lambda search: aim(search, effort, k + 1))
        found += sum(distance <= answers[-1] + _SAME_SCORE for distance in distances) if answers else 0
        right += len(answers)
    return found / right if right else 1.0


def _search(table: Any, query: tuple[str, np.ndarray], k: int, how: Any) -> list[float]:
    """Return the distances of the nearest to an item of the table, itself left out."""
    own, vector = query
    search = how(table.search(vector, vector_column_name="vector").distance_type("cosine").limit(k + 1))
    rows = search.select(["id", "_distance"]).to_arrow().to_pylist()
    return [row["_distance"] for row in rows if row["id"] != own][:k]
