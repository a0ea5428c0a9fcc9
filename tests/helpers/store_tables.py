"""Tables of stores and operations: what is expected of each pair, checked by a run and written as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

WORKS, ABSENT = "yes", "–"

Operation = Callable[[Any], None]
Failures = Mapping[str, tuple[type[Exception], str]]
"""How an operation fails that neither works nor is absent, by what the table says of it."""

# LangChain's base class says of what a store does not have that it is not implemented, or nothing.
_ABSENCE = (AttributeError, NotImplementedError), "has no attribute|must be implemented|does not yet support|^$"


def markdown(
    stores: Iterable[str], operations: Mapping[str, Operation], exceptions: Mapping[tuple[str, Operation], str]
) -> str:
    """Return the table: a store a column, an operation a row; what is no exception works."""
    rows = [["", *stores]]
    rows.append(["---"] * len(rows[0]))
    for name, operation in operations.items():
        rows.append([name, *(exceptions.get((store, operation), WORKS) for store in stores)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def check(operation: Operation, setting: Any, outcome: str, failures: Failures) -> None:
    """Run an operation and check that it comes out as the table says."""
    if outcome == WORKS:
        operation(setting)
        return
    error, message = _ABSENCE if outcome == ABSENT else failures[outcome]
    with pytest.raises(error, match=message):
        operation(setting)
