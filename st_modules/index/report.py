"""What a run of building did."""

from __future__ import annotations

from dataclasses import dataclass, field

from st_modules.index.entries import Unreadable

_SHOWN = 10


@dataclass
class Report:
    """What a run of :func:`st_modules.index.build` did.

    Attributes:
        added: Items that are new.
        updated: Items that were there and have changed.
        unchanged: Items that were there and are the same; they were not read.
        removed: Rows that were deleted: their sources have changed, or are gone.
        repeated: Entries that are equal to another in everything, which are one item.
        failed: Entries that could not be read or embedded. They are in the table of errors.
        embedded: How many of those that are new or have changed were embedded; the others have the content of one that
            is there.
        errors: The first of those that failed.
        notes: What was left out of the sources and why, a line each.
        recall: What the vector index finds of the true neighbours; ``None`` where there is no vector index.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    repeated: int = 0
    failed: int = 0
    embedded: int = 0
    errors: list[Unreadable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    recall: float | None = None

    def fail(self, error: Unreadable) -> None:
        """Count an entry that failed."""
        self.failed += 1
        if len(self.errors) < _SHOWN:
            self.errors.append(error)
