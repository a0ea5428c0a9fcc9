"""What is told of a reading, each thing once, however many files it holds for."""

from __future__ import annotations

from collections.abc import Iterable

from st_modules.errors import printable

_MOST = 1000


class Notes:
    """Lines for the user."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._lines: list[str] = []

    def add_lines(self, lines: Iterable[str]) -> None:
        """Take note of what is written out already."""
        self._lines += lines

    def add(self, what: str, source: str) -> None:
        """Take note of something about a source; of what holds for several, the first is named."""
        if what in self._first or len(self._first) < _MOST:
            self._first.setdefault(what, source)
            self._counts[what] = self._counts.get(what, 0) + 1

    def lines(self) -> list[str]:
        """Return a line for each thing."""
        return self._lines + [
            f"{printable(source)}: {what}" + (f" (so in {more} more)" if (more := self._counts[what] - 1) else "")
            for what, source in self._first.items()
        ]
