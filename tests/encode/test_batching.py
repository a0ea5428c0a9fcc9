from __future__ import annotations

import random

import pytest

from st_modules.backbones.rows import Row
from st_modules.encode.batching import find_unique, plan_batches, share_prefix


def make_row(ids: list[int], constant: int = 0) -> Row:
    return Row(ids=ids, visuals=(), trimmed=False, length=len(ids), constant=constant)


def tokens(lengths: list[int], padded: bool) -> int:
    return len(lengths) * max(lengths) if padded else sum(lengths)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize(("max_rows", "max_tokens"), [(1, 100), (4, 100), (32, 100), (32, 10_000), (3, 1)])
def test_every_row_is_in_one_batch_and_no_batch_exceeds_its_bounds(
    seed: int, padded: bool, sort: bool, max_rows: int, max_tokens: int
) -> None:
    random_state = random.Random(seed)
    lengths = [random_state.randint(1, 150) for _ in range(random_state.randint(0, 200))]
    batches = plan_batches(lengths, max_rows, max_tokens, padded=padded, sort=sort)
    rows = [row for batch in batches for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert [] not in batches
    several = [[lengths[row] for row in batch] for batch in batches if len(batch) > 1]
    assert [found for found in several if len(found) > max_rows or tokens(found, padded) > max_tokens] == []
    assert [found for found in several if padded and sort and 2 * min(found) < max(found)] == []
    assert sort or rows == sorted(rows)


@pytest.mark.parametrize("padded", [True, False])
def test_a_batch_ends_only_where_the_next_row_would_not_fit(padded: bool) -> None:
    lengths = [random.Random(1).randint(1, 60) for _ in range(100)]
    batches = plan_batches(lengths, 8, 200, padded=padded)
    grown = [
        [lengths[row] for row in [*batch, following[0]]] for batch, following in zip(batches, batches[1:], strict=False)
    ]
    fitting = [each for each in grown if len(each) <= 8 and tokens(each, padded) <= 200]
    assert [each for each in fitting if not (padded and 2 * min(each) < max(each))] == []


def test_rows_of_like_length_share_a_batch_longest_first() -> None:
    assert plan_batches([5, 50, 6, 49], 2, 1000) == [[1, 3], [2, 0]]


def test_pictures_do_not_pad_short_texts() -> None:
    assert plan_batches([200, 12, 205, 14], 32, 2048) == [[2, 0], [3, 1]]


def test_one_very_long_row_has_a_batch_of_its_own() -> None:
    assert plan_batches([30, 20_000, 30, 30], 32, 2048)[0] == [1]


@pytest.mark.parametrize("seed", range(20))
def test_every_item_has_the_place_of_its_first_equal(seed: int) -> None:
    random_state = random.Random(seed)
    keys = [random_state.randint(1, 7) for _ in range(random_state.randint(0, 30))]
    unique, places = find_unique([make_row([key]) for key in keys])
    assert [row.ids[0] for row in unique] == list(dict.fromkeys(keys))
    assert [unique[place].ids[0] for place in places] == keys


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_the_shared_beginning_saves_the_most_tokens(seed: int, kept: bool) -> None:
    random_state = random.Random(seed)
    openings = [[random_state.randint(0, 1) for _ in range(random_state.randint(1, 14))] for _ in range(4)]
    openings.append([*openings[0], 7, 8])
    rows = [[*random_state.choice(openings), 9, 9] for _ in range(20)]
    constants = [len(row) - 2 for row in rows]

    def saved(prefix: tuple[int, ...]) -> int:
        having = sum(
            tuple(row[: len(prefix)]) == prefix and constant >= len(prefix)
            for row, constant in zip(rows, constants, strict=True)
        )
        return len(prefix) * (having if kept else having - 1)

    shared = share_prefix([make_row(ids, constant) for ids, constant in zip(rows, constants, strict=True)], kept=kept)
    found = max((row.prefix for row in shared), key=len)
    assert [[*row.prefix, *row.ids] for row in shared] == rows
    assert [row.length for row in shared] == [len(row.ids) for row in shared]
    possible = {tuple(row[:constant]) for row, constant in zip(rows, constants, strict=True)}
    most = max([saved(prefix) for prefix in possible if len(prefix) >= 8], default=0)
    assert saved(found) == (most if kept or most >= 16 else 0)


@pytest.mark.parametrize(("count", "kept", "shared"), [(1, False, 0), (2, False, 20), (1, True, 20), (3, False, 20)])
def test_a_beginning_is_run_by_itself_where_that_saves_more_than_a_pass_costs(
    count: int, kept: bool, shared: int
) -> None:
    rows = share_prefix([make_row([*range(20), 99], constant=20)] * count, kept=kept)
    assert [len(row.prefix) for row in rows] == [shared] * count


def test_rows_without_a_beginning_share_nothing() -> None:
    rows = [make_row([1, 2, 3]), make_row([1, 2, 3])]
    assert share_prefix(rows) == rows
    assert share_prefix([]) == []


def test_a_row_that_is_all_beginning_keeps_its_last_token() -> None:
    rows = [make_row([5] * 20, constant=20), make_row([5] * 30, constant=30)]
    assert min(len(row.ids) for row in share_prefix(rows)) >= 1
