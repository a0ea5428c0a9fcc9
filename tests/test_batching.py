from __future__ import annotations

import random

import pytest

from st_modules.batching import plan_batches


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("max_rows", "max_tokens"), [(1, 100), (4, 100), (32, 100), (32, 10_000), (3, 1)])
def test_every_row_is_in_one_batch_and_no_batch_exceeds_its_bounds(seed: int, max_rows: int, max_tokens: int) -> None:
    random_state = random.Random(seed)
    lengths = [random_state.randint(1, 150) for _ in range(random_state.randint(0, 200))]
    batches = plan_batches(lengths, max_rows, max_tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[row] for row in batch)
        assert len(batch) == 1 or (len(batch) <= max_rows and padded <= max_tokens)


def test_rows_of_like_length_share_a_batch_longest_first() -> None:
    assert plan_batches([5, 50, 6, 49], 2, 1000) == [[1, 3], [2, 0]]
