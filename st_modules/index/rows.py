"""Rows on their way into the tables: which id each has, and when they are committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from st_modules.errors import InputError
from st_modules.index.engines import Embedded, Vector
from st_modules.index.entries import Entry, Unreadable, digest
from st_modules.index.report import Report
from st_modules.index.seen import Seen, SeenItem
from st_modules.index.table import Errors, Items

# What a kill loses at most, and few enough commits that their small files do not slow the table down.
_MOST_ROWS = 4096
_MOST_SECONDS = 10.0
_MOST_BYTES = 256 * 2**20
# A look-up in a large table takes about as long for one row as for a thousand.
_NAMED_AT_ONCE = 1000
# So many commits make as many small files, which are put together then.
_COMMITS_TO_TIDY = 64
_SUFFIX = 8


class Rows:
    """What a run writes.

    Args:
        items: The table of items.
        errors: The table of errors.
        seen: What the run has come across.
        report: What it counts in.
        covers: Whether a source lies under those of the run.
        thumbnails: How large thumbnails are; with another size an item is not the same as before.
        max_errors: How many entries may fail; ``None`` is any number.
    """

    def __init__(
        self,
        items: Items,
        errors: Errors,
        seen: Seen,
        report: Report,
        *,
        covers: Callable[[str], bool],
        thumbnails: int | None,
        max_errors: int | None,
    ) -> None:
        self.items = items
        self.errors = errors
        self.seen = seen
        self.report = report
        self._covers = covers
        self._thumbnails = thumbnails
        self._max_errors = max_errors
        self._arrived: list[Embedded] = []
        self._waiting: dict[str, tuple[dict[str, Any], Mapping[str, Any]]] = {}
        self._vectors: dict[str, Vector] = {}
        self._uncounted: set[str] = set()
        self._failed: dict[tuple[str, str], Unreadable] = {}
        self._bytes = 0
        # Where there was none before, what this run has seen is all there is.
        self._has_earlier = len(items) > 0
        self._since = time.monotonic()
        self.commits = 0

    def mark(self, entry: Entry) -> str:
        """Return a digest of all that tells that the row of an entry is as it would be written now."""
        return digest(entry.state, entry.id, dict(entry.metadata), self._thumbnails)

    def find_earlier(self, column: str, values: Iterable[str], returned: Sequence[str]) -> list[dict[str, Any]]:
        """Look up rows as :meth:`Items.find` does, where there are any that this run has not written."""
        return self.items.find(column, values, returned) if self._has_earlier else []

    def find_vectors(self, contents: Sequence[str]) -> dict[str, Vector]:
        """Return the vectors of what has been embedded already, by the digest of the content."""
        waiting = {content: self._vectors[content] for content in contents if content in self._vectors}
        return {**self.items.find_vectors(each for each in contents if each not in waiting), **waiting}

    def add(self, results: Sequence[Embedded | Unreadable]) -> None:
        """Take what became of some entries, and commit when there is enough of it."""
        embedded = [each for each in results if isinstance(each, Embedded)]
        for each in embedded:
            if not each.reused and each.content not in self._vectors:
                self._uncounted.add(each.content)
            self._vectors[each.content] = each.vector
            self._bytes += each.vector.nbytes + len(each.thumbnail or b"") + len(each.text or "")
        self._arrived += embedded
        if len(self._arrived) >= _NAMED_AT_ONCE:
            self._settle()
        self.fail([each for each in results if isinstance(each, Unreadable)])
        if self._is_due():
            self.commit()

    def fail(self, errors: Sequence[Unreadable]) -> None:
        """Take entries that cannot be read or embedded.

        Raises:
            InputError: These are more than may fail.
        """
        self._note(errors)
        self._check_failed()

    def _note(self, errors: Sequence[Unreadable]) -> None:
        for error in errors:
            self.report.fail(error)
            self._failed[error.source, error.place] = error
        self.seen.add_errors((error.source, error.place) for error in errors)

    def _check_failed(self) -> None:
        if self._max_errors is not None and self.report.failed > self._max_errors:
            first = self.report.errors[0]
            raise InputError(
                f"{self.report.failed} items could not be embedded, and max_errors is {self._max_errors}. The first "
                f"is {first.place}: {first.reason}"
            )

    def commit(self) -> None:
        """Write what waits: the items in one commit, then the errors.

        Raises:
            InputError: It is all written, and more errors are among it than may fail.
        """
        self._settle()
        if self._waiting:
            rows = [*self._waiting.values()]
            self.items.merge([own for own, _ in rows], [metadata for _, metadata in rows])
            self._waiting, self._vectors, self._uncounted, self._bytes = {}, {}, set(), 0
            self.commits += 1
        if self._failed:
            self.errors.put([asdict(each) for each in self._failed.values()])
            self._failed = {}
        if self.commits and self.commits % _COMMITS_TO_TIDY == 0:
            self.items.tidy()
        self._since = time.monotonic()
        self._check_failed()

    def _is_due(self) -> bool:
        waiting = len(self._arrived) + len(self._waiting)
        many = waiting >= _MOST_ROWS or len(self._failed) >= _MOST_ROWS or self._bytes >= _MOST_BYTES
        return many or time.monotonic() - self._since >= _MOST_SECONDS

    def _settle(self) -> None:
        """Decide what becomes of those that have arrived."""
        arrived, self._arrived = self._arrived, []
        named, failed = self._name(arrived)
        self._keep(named)
        self._note(failed)

    def _name(self, embedded: Sequence[Embedded]) -> tuple[dict[str, Embedded], list[Unreadable]]:
        """Decide on ids; what has been seen before is left out."""
        marks = [self.mark(each.entry) for each in embedded]
        wanted = [each.content if each.entry.id is None else each.entry.id for each in embedded]
        repeated = self.seen.find_marks(marks)
        taken = self.seen.find_ids(wanted)
        owners = {row["id"]: row["source"] for row in self.find_earlier("id", wanted, ["id", "source"])}
        named: dict[str, Embedded] = {}
        failed: list[Unreadable] = []
        new: list[SeenItem] = []
        for each, mark, id in zip(embedded, marks, wanted, strict=True):
            if mark in repeated:
                self.report.repeated += 1
                continue
            if each.entry.id is not None and id in taken:
                failed.append(_refuse_id(each.entry, taken[id]))
                continue
            if each.entry.id is None and (id in taken or self._is_elsewhere(owners.get(id), each.entry)):
                id = _tell_apart(each)
                if id in named or id in self.seen.find_ids([id]):
                    self.report.repeated += 1
                    continue
            found = SeenItem(mark, id, each.entry.place)
            repeated[mark] = taken[id] = found
            named[id] = each
            new.append(found)
        self.seen.add(new)
        return named, failed

    def _is_elsewhere(self, owner: str | None, entry: Entry) -> bool:
        """Whether equal content of a source that this run does not read has the id.

        One that this run reads gives it up: it is renamed, or comes later and is told apart then.
        """
        return owner is not None and owner != entry.source and not self._covers(owner)

    def _keep(self, named: Mapping[str, Embedded]) -> None:
        there = {row["id"] for row in self.find_earlier("id", named, ["id"])}
        self.report.updated += len(there)
        self.report.added += len(named) - len(there)
        self.seen.count_new(each.entry.source for id, each in named.items() if id not in there)
        for id, each in named.items():
            self.report.embedded += each.content in self._uncounted
            self._uncounted.discard(each.content)
            self._waiting[id] = self._row(id, each), each.entry.metadata

    def _row(self, id: str, each: Embedded) -> dict[str, Any]:
        entry = each.entry
        return {
            "id": id,
            "vector": each.vector,
            "text": each.text,
            "image": entry.image,
            "thumbnail": each.thumbnail,
            "source": entry.source,
            "page": entry.page,
            "content": each.content,
            "state": self.mark(entry),
        }


def _tell_apart(each: Embedded) -> str:
    """The id of an item whose content has been seen elsewhere: the same wherever in its source it stands."""
    entry = each.entry
    apart = digest(entry.source, entry.page, entry.text, entry.image, dict(entry.metadata))
    return f"{each.content}-{apart[:_SUFFIX]}"


def _refuse_id(entry: Entry, other: SeenItem) -> Unreadable:
    reason = f"its id is that of {other.place} too; give each item an id of its own"
    return Unreadable(entry.source, entry.place, reason, entry.id, entry.page)
