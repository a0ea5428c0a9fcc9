"""What is read of all sources together, again and again in the same order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from st_modules.errors import InputError
from st_modules.index.entries import Entry, Finished, Unreadable
from st_modules.index.sources.kinds import Kind
from st_modules.index.sources.options import SourceOptions
from st_modules.index.sources.rows import report
from st_modules.index.sources.stored import StoredFile
from st_modules.index.sources.tables import check_csv, check_jsonl, read_csv, read_jsonl
from st_modules.index.sources.targets import Selected, Target, find_target
from st_modules.index.sources.whole_files import read_picture, read_text

_READERS: dict[Kind, Callable[[StoredFile, SourceOptions], Iterator[Entry | Unreadable]]] = {
    "picture": read_picture,
    "text": read_text,
    "jsonl": read_jsonl,
    "csv": read_csv,
}
_CHECKS: dict[Kind, Callable[[StoredFile, SourceOptions], None]] = {"jsonl": check_jsonl, "csv": check_csv}


class Sources:
    """A collection, wherever it is: every iteration reads it anew, in the same order, a small part in memory at a time.

    Yields for each source its entries and what of them cannot be read; then that it is finished, where all of it was
    read. A file that several arguments name comes once.

    Args:
        sources: Paths and fsspec URLs of files (pictures, texts, PDFs, tables, archives) and folders, and patterns
            (``photos/**/*.jpg``); one or several. Of a folder pictures, texts and PDFs are read, those of the folders
            in it too; tables and archives are passed by name or by a pattern.
        options: How they are read.

    Attributes:
        notes: What the last iteration left out and why, a line each.

    Raises:
        InputError: A source is not there, holds nothing, or is nothing that is read; a table has not the columns that
            are asked for. While it is iterated: a folder cannot be listed.
    """

    def __init__(
        self,
        sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        options: SourceOptions | None = None,
    ) -> None:
        given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
        if not given:
            raise InputError("no sources; name files, folders or patterns.")
        self.options = options or SourceOptions()
        self.notes: list[str] = []
        self._targets = [find_target(each) for each in given]
        for target, name in zip(self._targets, given, strict=True):
            self._check(target, os.fsdecode(name))

    def __iter__(self) -> Iterator[Entry | Unreadable | Finished]:
        self.notes = []
        for number, target in enumerate(self._targets):
            for selected in target.select(self.notes):
                if isinstance(selected, Unreadable):
                    yield selected
                elif not any(each.yields(selected[0].source, selected[1]) for each in self._targets[:number]):
                    yield from self._read(*selected)

    def covers(self, source: str) -> bool:
        """Whether a source, of which there may be nothing any more, lies under what was given."""
        return any(target.covers(source) for target in self._targets)

    def _read(self, file: StoredFile, kind: Kind) -> Iterator[Entry | Unreadable | Finished]:
        try:
            yield from _READERS[kind](file, self.options)
        except InputError as error:
            yield report(error, file.source, file.source)
        else:
            yield Finished(file.source)

    def _check(self, target: Target, name: str) -> None:
        """Make sure that a source has something, and its first table what is asked for."""
        notes: list[str] = []
        first: Selected | None = next(islice(target.select(notes), 1), None)
        if first is None:
            raise InputError("\n".join([f"{name}: nothing to embed in it.", *notes]))
        if not isinstance(first, Unreadable) and (check := _CHECKS.get(first[1])):
            check(first[0], self.options)
