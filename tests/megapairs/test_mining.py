"""Neighbours, pairs and hard negatives are those that a search by brute force in float64 finds."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from st_modules import STModulesError
from st_modules.files.arrays import ArrayFile
from st_modules.megapairs import neighbours
from st_modules.megapairs.mining import Duplicates, Miner
from st_modules.megapairs.neighbours import NONE, block_rows, neighbours_in_band

Floats = npt.NDArray[np.floating[Any]]


def unit(seed: int, n: int, dimension: int = 8) -> Floats:
    vectors = np.random.default_rng(seed).normal(size=(n, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute_force(vectors: Floats, depth: int, lower: float, upper: float, usable: set[int]) -> list[list[int]]:
    """Neighbours in a band of every vector, the nearest first, from all cosines."""
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    found = []
    for query, row in enumerate(cosines):
        others = [other for other in np.argsort(-row, kind="stable").tolist() if other != query and other in usable]
        inside = [other for other in others if lower <= row[other] <= upper]
        found.append(inside[:depth] if query in usable else [])
    return found


def listed(found: npt.NDArray[np.integer[Any]]) -> list[list[int]]:
    return [[number for number in row.tolist() if number != NONE] for row in found]


# ----------------------------------------------------------------------------------------------------- neighbours


@pytest.mark.parametrize("rows", [None, 7, 64, 300])
def test_neighbours_are_those_of_brute_force_whatever_the_blocks(rows: int | None) -> None:
    vectors = unit(1, 300)
    found = neighbours_in_band(vectors, range(300), np.ones(300, bool), 10, 0.2, 0.8, rows)
    assert listed(found) == brute_force(vectors, 10, 0.2, 0.8, set(range(300)))


def test_some_queries_have_the_neighbours_that_they_have_among_all() -> None:
    vectors = unit(2, 120)
    usable = np.ones(120, bool)
    everything = neighbours_in_band(vectors, range(120), usable, 5, 0.0, 0.9, 50)
    parts = [neighbours_in_band(vectors, range(a, b), usable, 5, 0.0, 0.9, 50) for a, b in ((0, 33), (33, 120))]
    assert np.concatenate(parts).tolist() == everything.tolist()


def test_near_duplicates_take_no_place_however_many_there_are() -> None:
    copies = unit(3, 1) + 1e-4 * unit(4, 150)
    vectors = np.concatenate([copies / np.linalg.norm(copies, axis=1, keepdims=True), unit(5, 150)])
    found = neighbours_in_band(vectors, range(300), np.ones(300, bool), 4, 0.1, 0.9)
    assert listed(found) == brute_force(vectors, 4, 0.1, 0.9, set(range(300)))
    assert [len(row) for row in listed(found)[:150]] == [4] * 150


def test_results_that_are_over_the_memory_limit_are_searched_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", 12 * 21 * 17)  # seventeen queries of a width of 21
    vectors = unit(6, 200)
    found = neighbours_in_band(vectors, range(200), np.ones(200, bool), 10, 0.2, 0.8)
    assert listed(found) == brute_force(vectors, 10, 0.2, 0.8, set(range(200)))


def test_vectors_that_are_not_usable_have_no_neighbours_and_are_none() -> None:
    vectors = unit(7, 90)
    usable = np.arange(90) % 3 > 0
    vectors[~usable] = 0
    found = neighbours_in_band(vectors, range(90), usable, 30, -0.5, 0.9)
    assert listed(found) == brute_force(vectors, 30, -0.5, 0.9, set(np.flatnonzero(usable).tolist()))


def test_a_vector_is_no_neighbour_of_itself_where_the_band_ends_at_one() -> None:
    vectors = unit(8, 40)
    found = listed(neighbours_in_band(vectors, range(40), np.ones(40, bool), 39, -1, 1))
    assert [sorted([number, *row]) for number, row in enumerate(found)] == [list(range(40))] * 40


def test_float16_vectors_on_disk_are_searched_as_they_are(tmp_path: Path) -> None:
    file = ArrayFile.create(tmp_path / "v.npy", (150, 8), np.float16)
    file.append(unit(9, 150))
    found = neighbours_in_band(file.rows, range(150), np.ones(150, bool), 6, 0.2, 0.8, 40)
    assert listed(found) == brute_force(np.array(file.rows), 6, 0.2, 0.8, set(range(150)))


@pytest.mark.parametrize("dimension", [1, 128, 3584, 10**9])
def test_a_block_has_no_more_bytes_than_the_limit(dimension: int) -> None:
    rows = block_rows(dimension)
    assert rows == 1 or 4 * dimension * rows <= neighbours.BLOCK_BYTES < 4 * dimension * (rows + 1)


# ----------------------------------------------------------------------------------------------------- arrays on disk


def test_an_array_is_filled_from_the_front_and_opened_again(tmp_path: Path) -> None:
    rows = unit(10, 5)
    file = ArrayFile.create(tmp_path / "v.npy", (5, 8), np.float32)
    file.append(rows[:3])
    again = ArrayFile(tmp_path / "v.npy")
    assert (again.filled, again.complete) == (3, False)
    again.append(rows[3:])
    assert again.complete
    assert np.array_equal(np.load(tmp_path / "v.npy"), rows)


def test_more_rows_than_there_is_room_for_are_an_error_and_change_nothing(tmp_path: Path) -> None:
    file = ArrayFile.create(tmp_path / "v.npy", (5, 8), np.float32)
    file.append(unit(10, 4))
    with pytest.raises(STModulesError, match=r"v.npy: 6 rows for a file of 5"):
        file.append(unit(11, 2))
    assert ArrayFile(tmp_path / "v.npy").filled == 4


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system does not tell")
def test_a_disk_without_room_is_told_at_once_and_the_file_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int, start: int, size: int) -> None:
        assert (start, size) == (0, (tmp_path / "v.npy").stat().st_size)
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="no space"):
            ArrayFile.create(tmp_path / "v.npy", (5, 8), np.float32)
    assert not ArrayFile.exists(tmp_path / "v.npy")


# -------------------------------------------------------------------------------------------------- pairs, negatives

N, UPPER = 80, 0.9
VISUAL, OTHER = unit(11, N, 4), unit(12, N, 4)
CONTENTS = np.arange(N)
CONTENTS[1::8] = CONTENTS[0::8]
"""Every eighth picture has the contents of the one before it."""
BANDS = ((VISUAL, 0.3, UPPER), (OTHER, 0.4, 0.95))


def miner(pairs: int = 2, negatives: int = 4, seed: int = 0) -> Miner:
    found = [neighbours_in_band(vectors, range(N), np.ones(N, bool), 12, a, b) for vectors, a, b in BANDS]
    names = [f"{number}.png" for number in range(N)]
    return Miner(names, found, Duplicates(CONTENTS, [(VISUAL, UPPER)]), pairs, negatives, seed)


def same(one: int, other: int) -> bool:
    return CONTENTS[one] == CONTENTS[other] or float(VISUAL[one].astype(float) @ VISUAL[other].astype(float)) > UPPER


RETRIEVED = [
    [{other for other in row if not same(query, other)} for query, row in enumerate(lists)]
    for lists in (brute_force(vectors, 12, a, b, set(range(N))) for vectors, a, b in BANDS)
]
"""For each encoder and query, what brute force finds, without duplicates of the query."""


def test_there_is_something_to_remove() -> None:
    lists = [brute_force(vectors, 12, a, b, set(range(N))) for vectors, a, b in BANDS]
    found = [(query, other) for rows in lists for query, row in enumerate(rows) for other in row]
    assert any(CONTENTS[query] == CONTENTS[other] for query, other in found)
    assert any(CONTENTS[query] != CONTENTS[other] and same(query, other) for query, other in found)


def test_every_query_has_targets_from_each_encoder_that_brute_force_finds_too() -> None:
    mined = list(miner())
    targets = [[pair.target for pair in mined if pair.query == query] for query in range(N)]
    first = [found[: min(2, len(visual))] for found, visual in zip(targets, RETRIEVED[0], strict=True)]
    second = [found[len(one) :] for found, one in zip(targets, first, strict=True)]
    assert [query for query in range(N) if not set(first[query]) <= RETRIEVED[0][query]] == []
    assert [query for query in range(N) if not set(second[query]) <= RETRIEVED[1][query]] == []
    left = [other - set(one) for other, one in zip(RETRIEVED[1], first, strict=True)]
    assert [len(found) for found in second] == [min(2, len(others)) for others in left]
    assert [len(set(found)) for found in targets] == [len(found) for found in targets]


def test_the_querys_picture_is_the_first_negative() -> None:
    mined = list(miner())
    assert [pair.negatives[0] for pair in mined] == [pair.query for pair in mined]


def test_the_other_negatives_are_retrieved_for_the_query_and_no_duplicates_of_the_target() -> None:
    mined = list(miner())
    retrieved = [RETRIEVED[0][pair.query] | RETRIEVED[1][pair.query] for pair in mined]
    allowed = [
        {other for other in others if other != pair.target and not same(pair.target, other)}
        for pair, others in zip(mined, retrieved, strict=True)
    ]
    pairs = list(zip(mined, allowed, strict=True))
    assert [pair for pair, others in pairs if not set(pair.negatives[1:]) <= others] == []
    counts = [1 + min(3, len(others)) for others in allowed]
    assert [len(pair.negatives) for pair in mined] == counts
    assert [len(set(pair.negatives)) for pair in mined] == counts


def test_the_same_seed_draws_the_same_pairs_and_another_one_others() -> None:
    assert list(miner(seed=4)) == list(miner(seed=4))
    assert list(miner(seed=4)) != list(miner(seed=5))


def test_a_query_has_its_pairs_whatever_was_mined_before() -> None:
    mined = list(miner())
    assert [pair for pair in mined if pair.query == 50] == list(miner().pairs_of(50))


def test_one_negative_is_the_querys_picture() -> None:
    assert {len(pair.negatives) for pair in miner(negatives=1)} == {1}


def test_all_related_pictures_become_targets_where_so_many_are_asked_for() -> None:
    mined = list(miner(pairs=N))
    targets = [{pair.target for pair in mined if pair.query == query} for query in range(N)]
    assert targets == [visual | other for visual, other in zip(*RETRIEVED, strict=True)]
