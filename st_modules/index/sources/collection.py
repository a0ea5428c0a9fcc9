"""What is read of all sources together, again and again in the same order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from st_modules.errors import InputError
from st_modules.index.entries import Entry, Finished, Unreadable
from st_modules.index.sources.counting import count_entries
from st_modules.index.sources.kinds import Kind
from st_modules.index.sources.notes import Notes
from st_modules.index.sources.options import SourceOptions
from st_modules.index.sources.parquet import check_dataset, check_parquet, read_dataset, read_parquet
from st_modules.index.sources.pdf import read_pdf
from st_modules.index.sources.rows import report
from st_modules.index.sources.stored import StoredFile, is_remote
from st_modules.index.sources.tables import check_csv, check_jsonl, read_csv, read_jsonl
from st_modules.index.sources.targets import Target, Tree, find_target, is_folder
from st_modules.index.sources.tars import check_tar, read_tar
from st_modules.index.sources.whole_files import read_picture, read_text

_Read: TypeAlias = Callable[[StoredFile, SourceOptions, Notes], Iterator[Entry | Unreadable]]
_READERS: dict[Kind, _Read] = {
    "picture": read_picture,
    "text": read_text,
    "pdf": read_pdf,
    "jsonl": read_jsonl,
    "csv": read_csv,
    "parquet": read_parquet,
    "dataset": read_dataset,
    "tar": read_tar,
}
_CHECKS: dict[Kind, Callable[[StoredFile, SourceOptions], None]] = {
    "jsonl": check_jsonl,
    "csv": check_csv,
    "parquet": check_parquet,
    "dataset": check_dataset,
    "tar": check_tar,
}


class Sources:
    """A collection, wherever it is: every iteration reads it anew, in the same order, a small part in memory at a time.

    Yields for each source its entries and what of them cannot be read; then that it is finished, where all of it was
    read. A file that several arguments name comes once.

    Args:
        sources: Paths and fsspec URLs of files (pictures, texts, PDFs, tables, archives) and folders, and patterns
            (``photos/**/*.jpg``); one or several. Of a folder pictures, texts and PDFs are read, those of the folders
            in it too; tables and archives are passed by name or by a pattern.
        options: How they are read.

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
        self._notes = Notes()
        self._targets = [find_target(each) for each in given]
        for target, name in zip(self._targets, given, strict=True):
            self._check(target, os.fsdecode(name))

    def __iter__(self) -> Iterator[Entry | Unreadable | Finished]:
        self._notes = Notes()
        for number, target in enumerate(self._targets):
            for selected in target.select(self._notes, self._names(target)):
                if isinstance(selected, Unreadable):
                    yield selected
                elif not any(each.yields(selected[0].source, selected[1]) for each in self._targets[:number]):
                    yield from self._read(*selected)

    @property
    def notes(self) -> list[str]:
        """What the last iteration left out and why, a line each."""
        return self._notes.lines()

    def covers(self, source: str) -> bool:
        """Whether a source, of which there may be nothing any more, lies under what was given."""
        return any(target.covers(source) for target in self._targets)

    def estimate(self) -> int | None:
        """Return about how many entries there are; ``None`` where that is known only when all is read."""
        count = 0
        for target in self._targets:
            # To list it takes as long as to read it.
            if isinstance(target, Tree) and is_remote(target.root):
                return None
            for selected in target.select(Notes(), lambda source: False):
                known = 1 if isinstance(selected, Unreadable) else count_entries(*selected)
                if known is None:
                    return None
                count += known
        return count

    def _names(self, target: Target) -> Callable[[str], bool]:
        """Whether another argument names a file, and not only the folder that it is in."""
        others = [each for each in self._targets if each is not target and not is_folder(each)]
        return lambda source: any(each.covers(source) for each in others)

    def _read(self, file: StoredFile, kind: Kind) -> Iterator[Entry | Unreadable | Finished]:
        try:
            yield from _READERS[kind](file, self.options, self._notes)
        except InputError as error:
            yield report(error, file.source, file.source)
        else:
            yield Finished(file.source)

    def _check(self, target: Target, name: str) -> None:
        """Make sure that a source has something, and its first table what is asked for."""
        notes = Notes()
        first = next(target.select(notes, lambda source: False), None)
        if first is None:
            raise InputError("\n".join([f"{name}: nothing to embed in it.", *notes.lines()]))
        if not isinstance(first, Unreadable) and (check := _CHECKS.get(first[1])):
            check(first[0], self.options)
