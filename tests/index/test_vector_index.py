"""Indexes of vectors: their recall, the rows that came later, and conditions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from st_modules import InputError
from st_modules.errors import ArgumentError
from st_modules.index import Index
from st_modules.index.searching import find_by_vector
from st_modules.index.vector_index import WANTED_RECALL, Kind, build_vector_index, choose, measure_recall, read_effort
from tests.helpers.index_tables import draw_clusters, draw_vectors, make_index, make_rows

ROWS = 3000


def exact_recall(
    index: Index, vectors: np.ndarray, where: str | None = None, allowed: np.ndarray | None = None
) -> float:
    """Share of the ten nearest, by numpy, that searches of 40 items find."""
    found = 0.0
    allowed = np.arange(len(vectors)) if allowed is None else allowed
    for query in range(0, len(vectors), len(vectors) // 40):
        places = allowed[allowed != query]
        nearest = places[np.argsort(-(vectors[places] @ vectors[query]))[:10]]
        hits = {hit.id for hit in index.search_like(f"i{query:05d}", 10, where=where)}
        found += len(hits & {f"i{place:05d}" for place in nearest}) / 10
    return found / len(range(0, len(vectors), len(vectors) // 40))


def search_carelessly(table: Any) -> None:
    """Have searches look into one partition, and believe what the index says of it."""
    effort = {"st_modules": '{"nprobes": 1, "refine_factor": 1, "ef": 0}'}
    table.update_field_metadata({"path": "vector", "metadata": effort})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["hnsw", "ivf_pq"])
def test_index_finds_what_an_exact_search_finds(tmp_path: Path, kind: Kind, dtype: str) -> None:
    vectors = draw_clusters(ROWS, 64)
    report = build_vector_index(make_index(tmp_path / "my.index", vectors, dtype), kind, samples=40)
    assert report.kind == kind
    assert report.recall >= WANTED_RECALL
    assert exact_recall(Index.open(tmp_path / "my.index"), vectors) >= WANTED_RECALL


def test_graph_finds_vectors_in_random_directions_too(tmp_path: Path) -> None:
    vectors = draw_vectors(ROWS, 64)
    report = build_vector_index(make_index(tmp_path / "my.index", vectors), "hnsw", samples=40)
    assert report.recall >= WANTED_RECALL
    assert exact_recall(Index.open(tmp_path / "my.index"), vectors) >= WANTED_RECALL - 0.02


@pytest.mark.parametrize("kind", ["hnsw", "ivf_pq"])
@pytest.mark.parametrize("share", [2, 100])
def test_condition_costs_no_answers(tmp_path: Path, kind: Kind, share: int) -> None:
    vectors = draw_clusters(ROWS, 64)
    table = make_index(tmp_path / "my.index", vectors, part=[row % share for row in range(ROWS)])
    build_vector_index(table, kind, samples=20)
    index = Index.open(tmp_path / "my.index")
    assert exact_recall(index, vectors, "part = 0", np.arange(0, ROWS, share)) >= WANTED_RECALL


@pytest.mark.parametrize("kind", ["hnsw", "ivf_pq"])
def test_rows_that_came_later_are_found(tmp_path: Path, kind: Kind) -> None:
    vectors = draw_clusters(ROWS, 32)
    table = make_index(tmp_path / "my.index", vectors[:-100])
    build_vector_index(table, kind, samples=20)
    # Each of them has a new row beside it and is nearest to it.
    later = vectors[-100:] + 0.001
    table.add(make_rows(later, id=[f"new{row}" for row in range(100)]))
    table.add(make_rows(vectors[-100:], id=[f"old{row}" for row in range(100)]))
    index = Index.open(tmp_path / "my.index")
    assert [index.search_like(f"old{row}", 1)[0].id for row in range(0, 100, 10)] == [
        f"new{row}" for row in range(0, 100, 10)
    ]


def test_exact_search_does_without_the_index(tmp_path: Path) -> None:
    vectors = draw_vectors(ROWS, 64)
    table = make_index(tmp_path / "my.index", vectors)
    build_vector_index(table, "ivf_pq", samples=5)
    search_carelessly(table)
    query = draw_vectors(1, 64, seed=5)[0]
    hits = find_by_vector(table, query, 10, None, exact=True)
    assert [hit.id for hit in hits] == [f"i{place:05d}" for place in np.argsort(-(vectors @ query))[:10]]


def test_measured_recall_is_that_of_how_hard_is_searched(tmp_path: Path) -> None:
    table = make_index(tmp_path / "my.index", draw_vectors(ROWS, 64))
    report = build_vector_index(table, "ivf_pq", samples=40)
    assert read_effort(table) == report.effort
    assert measure_recall(table, samples=40) == pytest.approx(report.recall)
    search_carelessly(table)
    assert measure_recall(table, samples=40) < 0.5
    # An item would always find itself.
    assert measure_recall(table, k=1, samples=40) < 0.8


def test_recall_without_an_index_is_one(tmp_path: Path) -> None:
    vectors = draw_vectors(300)
    vectors[100:200] = vectors[0]  # equally near, so that any ten of them are right
    assert measure_recall(make_index(tmp_path / "my.index", vectors), samples=50) == 1.0


@pytest.mark.parametrize(
    ("rows", "dimension", "kind"),
    [(0, 128, None), (99_999, 128, None), (100_000, 128, "ivf_pq"), (10**8, 1000, "ivf_pq"), (10**6, 100, "hnsw")],
)
def test_large_tables_get_an_index(rows: int, dimension: int, kind: Kind | None) -> None:
    assert choose(rows, dimension) == kind


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda table: build_vector_index(table, "hnsw"), InputError),
        (lambda table: build_vector_index(table, cast(Any, "flat")), ArgumentError),
    ],
)
def test_what_cannot_be_built_is_told(tmp_path: Path, build: Callable[[object], None], error: type[Exception]) -> None:
    with pytest.raises(error):
        build(make_index(tmp_path / "my.index", draw_vectors(20)))
