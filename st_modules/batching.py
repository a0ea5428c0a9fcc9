"""Row lengths to batches: rows of like length together, under a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], max_rows: int, max_tokens: int) -> list[list[int]]:
    """Group rows so that little is padded and no batch is larger than it must be.

    Rows are taken longest first, so that a machine without enough memory fails at once and not at the end.

    Args:
        lengths: Tokens of each row.
        max_rows: Most rows in a batch.
        max_tokens: Most tokens in a batch, padding included; a single longer row still gets a batch of its own.

    Returns:
        Batches of row numbers; every row is in exactly one.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        batch = batches[-1] if batches else None
        if batch is None or len(batch) == max_rows or (len(batch) + 1) * lengths[batch[0]] > max_tokens:
            batches.append([row])
        else:
            batch.append(row)
    return batches
