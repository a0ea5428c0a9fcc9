"""The plan of a call: which rows are embedded, what they share, and which of them make a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import NamedTuple

from st_modules.backbones.rows import Row, Visual

# Below this many tokens, a batch of its own costs more than a shared beginning saves.
_SHORTEST_PREFIX = 8
# Below this many in all, the pass that it is run in costs more than it saves.
_FEWEST_SAVED = 16
# Each is compared with every other beginning, of which a call may have as many as items.
_CANDIDATES = 8
# Below this many tokens more, batches of their own cost rows more than they save.
_FEWEST_APART = 512


def find_unique(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """Find out which rows of a call are repeated: those with the same tokens and the same images or video.

    These are read only where two rows have the same tokens, and images of the same size and length.

    Args:
        rows: The rows, one for each item.

    Returns:
        The rows without repetitions, in the order in which they are met, and for every item the place of its row among
        those.
    """
    places: dict[Hashable, int] = {}
    numbers = [places.setdefault(key, len(places)) for key in _key_rows(rows)]
    unique: list[Row] = []
    for row, place in zip(rows, numbers, strict=True):
        if place == len(unique):
            unique.append(row)
    return unique, numbers


def _key_rows(rows: Sequence[Row]) -> list[Hashable]:
    outlines = [(tuple(row.ids), tuple(visual.outline for visual in row.visuals)) for row in rows]
    counts = Counter(outlines)
    return [
        (outline, tuple(visual.digest() for visual in row.visuals) if counts[outline] > 1 else None)
        for row, outline in zip(rows, outlines, strict=True)
    ]


class _Beginning(NamedTuple):
    """What rows may begin with in common.

    Attributes:
        ids: Its token ids.
        visuals: The images and videos among them, which are the same where they are one object.
    """

    ids: tuple[int, ...]
    visuals: tuple[Visual, ...]

    def begins_with(self, other: _Beginning) -> bool:
        """Whether all of another is the first of it."""
        return self.ids[: len(other.ids)] == other.ids and self.visuals[: len(other.visuals)] == other.visuals


_NOTHING = _Beginning((), ())


def share_prefix(rows: Sequence[Row], *, kept: bool = False) -> list[Row]:
    """Take away from rows the beginning that saves the most tokens when it is run once for all rows that have it.

    Rows that begin alike for much longer, as those of one query do, share all of that instead.

    Args:
        rows: The rows of a call.
        kept: Whether it serves the next calls too, so that even a single row is worth it.

    Returns:
        The rows in the same order; those with the beginning have it as their ``prefix``. All are as they were where
        nothing is worth it.
    """
    # One token at least is left to each row, the one that is pooled.
    beginnings = [
        _Beginning(tuple(row.ids[: min(row.constant, len(row.ids) - 1)]), row.visuals[: row.common]) for row in rows
    ]
    counts = Counter(beginnings)
    common = _find_common(counts, kept)

    def choose(beginning: _Beginning) -> _Beginning:
        shared = common if beginning.begins_with(common) else _NOTHING
        saved = (len(beginning.ids) - len(shared.ids)) * (counts[beginning] - 1)
        return beginning if saved >= _FEWEST_APART else shared

    chosen = {beginning: choose(beginning) for beginning in counts}
    return [_take_away(row, chosen[beginning]) for row, beginning in zip(rows, beginnings, strict=True)]


def _find_common(counts: Counter[_Beginning], kept: bool) -> _Beginning:
    """Return the beginning that saves the most tokens in all rows that have it, or none."""

    def count_saved(prefix: _Beginning) -> int:
        having = sum(count for beginning, count in counts.items() if beginning.begins_with(prefix))
        return len(prefix.ids) * (having if kept else having - 1)

    long_enough = [beginning for beginning, _ in counts.most_common() if len(beginning.ids) >= _SHORTEST_PREFIX]
    common = max(long_enough[:_CANDIDATES], key=count_saved, default=_NOTHING)
    return common if kept or count_saved(common) >= _FEWEST_SAVED else _NOTHING


def _take_away(row: Row, prefix: _Beginning) -> Row:
    length, seen = len(prefix.ids), len(prefix.visuals)
    if not length:
        return row
    return replace(
        row,
        ids=row.ids[length:],
        visuals=row.visuals[seen:],
        length=row.length - length,
        prefix=prefix.ids,
        prefix_visuals=prefix.visuals,
    )


def plan_batches(
    lengths: Sequence[int], max_rows: int, max_tokens: int, *, padded: bool = True, sort: bool = True
) -> list[list[int]]:
    """Group rows so that little is padded and no batch is larger than it must be.

    Sorted rows are taken longest first, so that a machine without enough memory fails at once and not at the end. Where
    they are padded, none is then in a batch with one of more than twice its length.

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
