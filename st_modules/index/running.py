"""One run over a collection: what has not changed is left alone, the rest is embedded, what is gone is dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol

from st_modules.index.engines import Engine
from st_modules.index.entries import Entry, Finished, Unreadable
from st_modules.index.rows import Rows
from st_modules.index.seen import SeenItem
from st_modules.index.table import IndexStorageError

_LOOKED_UP_AT_ONCE = 1000


class Collection(Protocol):
    """What a run reads."""

    def __iter__(self) -> Iterator[Entry | Unreadable | Finished]:
        """Yield all there is, in the same order each time."""
        ...

    def covers(self, source: str) -> bool:
        """Whether a source lies under those of this collection, also where it is not there any more."""
        ...

    def estimate(self) -> int | None:
        """Return how many entries there are, where that is cheap to say."""
        ...


class Run:
    """A run over a collection.

    Args:
        collection: What is read.
        rows: What is written of it, and the tables.
        bar: A bar of tqdm, which counts entries.
    """

    def __init__(self, collection: Collection, rows: Rows, bar: Any) -> None:
        self._collection = collection
        self._rows = rows
        self._items, self._errors, self._seen, self._report = rows.items, rows.errors, rows.seen, rows.report
        self._bar = bar

    def embed(self, engine: Engine) -> None:
        """Bring the tables up to what the collection has; rows of what is gone stay for now.

        Where it is stopped, by whatever it is, what is done is committed first.
        """
        try:
            for results in engine(self._changed()):
                self._rows.add(results)
                self._bar.update(len(results))
            self._rows.commit()
        except IndexStorageError:
            raise  # what cannot be written cannot be written now either
        except BaseException:
            with suppress(Exception):
                self._rows.commit()
            raise

    def drop(self, prune: bool) -> None:
        """Delete the rows of what has changed or is gone, once all that is there has been written.

        Args:
            prune: Whether rows are deleted of sources that are not there any more.
        """
        self._drop_items(prune)
        for keys in self._errors.scan():
            found = self._seen.find_sources(source for source, _ in keys)
            self._errors.delete(
                [
                    (source, place)
                    for source, place in keys
                    if not self._seen.has_error(source, place) and found.get(source, self._collection.covers(source))
                ]
            )

    def _drop_items(self, prune: bool) -> None:
        if len(self._items) == len(self._seen):
            return
        for rows in self._items.scan(["id", "source"]):
            seen = self._seen.find_ids([row["id"] for row in rows])
            left = [row for row in rows if row["id"] not in seen]
            found = self._seen.find_sources(row["source"] for row in left)
            stale = [row for row in left if found.get(row["source"], prune and self._collection.covers(row["source"]))]
            self._items.delete([row["id"] for row in stale])
            for row in stale:
                self._count_stale(row["source"])

    def _count_stale(self, source: str) -> None:
        """Count a row that is deleted: with a new one of its source in its place, it is an item that has changed."""
        if self._seen.take_new(source):
            self._report.added -= 1
            self._report.updated += 1
        else:
            self._report.removed += 1

    def _changed(self) -> Iterator[list[Entry]]:
        """Yield the entries that are to be read, some at a time."""
        parts = iter(self._collection)
        while some := list(islice(parts, _LOOKED_UP_AT_ONCE)):
            self._seen.meet(part.source for part in some)
            self._seen.finish(part.source for part in some if isinstance(part, Finished))
            failed = [part for part in some if isinstance(part, Unreadable)]
            self._rows.fail(failed)
            self._bar.update(len(failed))
            if changed := self._sift([part for part in some if isinstance(part, Entry)]):
                yield changed

    def _sift(self, entries: Sequence[Entry]) -> list[Entry]:
        """Leave out what is in the table as it is now, and what has come before."""
        marks = [self._rows.mark(entry) for entry in entries]
        rows = {row["state"]: row["id"] for row in self._rows.find_earlier("state", marks, ["id", "state"])}
        seen, taken = self._seen.find_marks(marks), self._seen.find_ids([*rows.values()])
        changed: list[Entry] = []
        same: list[SeenItem] = []
        for entry, mark in zip(entries, marks, strict=True):
            if mark in seen:
                self._report.repeated += 1
            elif mark in rows and rows[mark] not in taken:
                self._report.unchanged += 1
                seen[mark] = taken[rows[mark]] = SeenItem(mark, rows[mark], entry.place)
                same.append(seen[mark])
            else:
                changed.append(entry)
        self._seen.add(same)
        self._bar.update(len(entries) - len(changed))
        return changed
