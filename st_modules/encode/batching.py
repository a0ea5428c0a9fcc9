"""The plan of a call: which rows are embedded, what they share, and which of them make a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

# Below this many tokens, a batch of its own costs more than a shared beginning saves.
_SHORTEST_PREFIX = 8
# Each is compared with every other beginning, of which a call may have as many as items.
_CANDIDATES = 8


def first_places(keys: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Find out which items of a call are repeated.

    Args:
        keys: One for each item; equal items have equal keys.

    Returns:
        The numbers of the items that are met first, and for every item the place of its equal among those.
    """
    places: dict[Hashable, int] = {}
    numbers = [places.setdefault(key, len(places)) for key in keys]
    first: list[int] = []
    for number, place in enumerate(numbers):
        if place == len(first):
            first.append(number)
    return first, numbers


def shared_prefix(rows: Sequence[Sequence[int]], constants: Sequence[int]) -> tuple[int, ...]:
    """Return the beginning that saves the most tokens when it is run once for all rows that have it.

    Args:
        rows: Token ids of each row.
        constants: How many of the first ids of each row may be shared.

    Returns:
        The ids; empty where nothing is worth it.
    """
    beginnings = Counter(tuple(ids[:constant]) for ids, constant in zip(rows, constants, strict=True))
    candidates = [ids for ids, _ in beginnings.most_common(_CANDIDATES) if len(ids) >= _SHORTEST_PREFIX]

    def count_saved(prefix: tuple[int, ...]) -> int:
        return len(prefix) * sum(count for ids, count in beginnings.items() if ids[: len(prefix)] == prefix)

    return max(candidates, key=count_saved, default=())


def plan_batches(
    lengths: Sequence[int], max_rows: int, max_tokens: int, *, padded: bool = True, sort: bool = True
) -> list[list[int]]:
    """Group rows so that little is padded and no batch is larger than it must be.

    Rows are taken longest first, so that a machine without enough memory fails at once and not at the end. Where rows
    are padded, none is in a batch with one of more than twice its length.

    Args:
        lengths: Tokens of each row.
        max_rows: Most rows in a batch.
        max_tokens: Most tokens in a batch; a single longer row still gets a batch of its own.
        padded: Whether every row of a batch costs as many tokens as the longest.
        sort: Whether rows are taken longest first; otherwise in the given order.

    Returns:
        Batches of row numbers; every row is in exactly one.
    """
    batches: list[list[int]] = []
    longest = tokens = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]) if sort else range(len(lengths)):
        longest, tokens = max(longest, lengths[row]), tokens + lengths[row]
        rows = len(batches[-1]) + 1 if batches else 1
        fits = rows * longest <= max_tokens and 2 * lengths[row] >= longest if padded else tokens <= max_tokens
        if not batches or rows > max_rows or not fits:
            batches.append([])
            longest = tokens = lengths[row]
        batches[-1].append(row)
    return batches
