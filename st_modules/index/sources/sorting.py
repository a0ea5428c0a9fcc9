"""Names in order, however many there are: what does not fit into memory waits on the disk."""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import IO

NAMES_AT_ONCE = 200_000
"""Names in memory: some tens of MB."""


def sort_names(names: Iterable[str], at_once: int = NAMES_AT_ONCE) -> Iterator[str]:
    """Yield names in order.

    Args:
        names: The names, in any order.
        at_once: How many are in memory at a time.
    """
    rest = iter(names)
    part = sorted(islice(rest, at_once))
    if len(part) < at_once:
        yield from part
        return
    with ExitStack() as stack:
        files: list[IO[str]] = []
        while part:
            files.append(stack.enter_context(tempfile.TemporaryFile("w+", encoding="ascii")))
            # As JSON: a name may hold line breaks, and bytes that are no UTF-8.
            files[-1].writelines(json.dumps(name) + "\n" for name in part)
            files[-1].seek(0)
            part = sorted(islice(rest, at_once))
        yield from heapq.merge(*(map(_parse, file) for file in files))


def _parse(line: str) -> str:
    return str(json.loads(line))
