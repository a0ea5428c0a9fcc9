"""What a user names: a file, a folder, a pattern; and which files these are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from st_modules._imports import import_extra
from st_modules.errors import InputError
from st_modules.files.kinds import describe_unread, kind_by_content
from st_modules.files.records import check_name
from st_modules.index.entries import Unreadable
from st_modules.index.sources.kinds import HEAD_BYTES, ITEMS, Kind, find_kind, is_hidden
from st_modules.index.sources.listing import Found, LeftOut, walk
from st_modules.index.sources.notes import Notes
from st_modules.index.sources.parquet import list_splits
from st_modules.index.sources.rows import report
from st_modules.index.sources.stored import (
    StoredFile,
    find_file,
    find_protocol,
    find_system,
    is_remote,
    make_source,
    name_errors,
)

_MAGIC = re.compile(r"[*?[]")
_WEB = ("http", "https")
_OTHERS = (
    ("file of no kind that is read", "files of no kind that is read"),
    ("file that is no picture, text or PDF", "files that are no pictures, texts or PDFs"),
)

Selected: TypeAlias = "tuple[StoredFile, Kind] | Unreadable"
"""A file with what it is read as, or one that should be read and cannot be."""


class Target(Protocol):
    """What one argument names."""

    def select(self, notes: Notes, named: Callable[[str], bool]) -> Iterator[Selected]:
        """Yield its files, in order.

        Args:
            notes: Is told in the end what was left out.
            named: Whether another argument names a file, so that it is not left out.

        Raises:
            InputError: A folder cannot be listed.
        """
        ...

    def covers(self, source: str) -> bool:
        """Whether a source, of which there may be nothing any more, lies under it."""
        ...

    def yields(self, source: str, kind: Kind) -> bool:
        """Whether a file that is there is one of those that ``select`` yields."""
        ...


@dataclass(frozen=True)
class NamedFile:
    """One file."""

    source: str
    kind: Kind

    def select(self, notes: Notes, named: Callable[[str], bool]) -> Iterator[Selected]:
        """Yield it."""
        try:
            yield find_file(self.source), self.kind
        except InputError as error:
            yield report(error, self.source, self.source)

    def covers(self, source: str) -> bool:
        """Whether it is this file."""
        return source == self.source

    def yields(self, source: str, kind: Kind) -> bool:
        """Whether it is this file."""
        return source == self.source


@dataclass(frozen=True)
class Dataset:
    """What ``datasets`` has saved in a folder.

    Attributes:
        root: The folder.
        splits: The folders of its splits, or the folder itself.
    """

    root: str
    splits: tuple[str, ...]

    def select(self, notes: Notes, named: Callable[[str], bool]) -> Iterator[Selected]:
        """Yield the splits."""
        for split in self.splits:
            yield StoredFile(split, None, ""), "dataset"

    def covers(self, source: str) -> bool:
        """Whether a path is the folder or below it."""
        return source == self.root or source.startswith(_with_slash(self.root))

    def yields(self, source: str, kind: Kind) -> bool:
        """Whether it is one of the splits."""
        return source in self.splits


@dataclass(frozen=True)
class Tree:
    """The files in a folder and in the folders in it.

    Attributes:
        root: The folder.
        pattern: What the paths of the files match; ``None`` for all.
        depth: How many folders below the root they may be; ``None`` for any.
    """

    root: str
    pattern: re.Pattern[str] | None = None
    depth: int | None = None

    def select(self, notes: Notes, named: Callable[[str], bool]) -> Iterator[Selected]:
        """Yield pictures, texts and PDFs; of a pattern, which names them, tables and archives too."""
        left_out = LeftOut(self.root)
        for found in walk(self.root, left_out, self.depth):
            if self._matches(found.source) and (selected := self._sort(found, left_out, named)):
                yield selected
        notes.add_lines(left_out.describe())

    def covers(self, source: str) -> bool:
        """Whether a path is one that would be among its own, if there were a file.

        Tables in a folder, data sets and what is behind links are none of its own: they have been read by their names.
        """
        kind = find_kind(source)
        if not self._contains(source) or not (kind is None or self._wants(kind)):
            return False
        return kind is not None or _find_form(source) != "folder"

    def yields(self, source: str, kind: Kind) -> bool:
        """Whether a file of a kind is among its own."""
        return self._wants(kind) and self._contains(source)

    def _contains(self, source: str) -> bool:
        """Whether a path is below the root and matches, and no folder on the way to it is behind a link."""
        if not source.startswith(_with_slash(self.root)) or not self._matches(source):
            return False
        return is_remote(source) or not any(map(os.path.islink, _folders_between(self.root, source)))

    def _matches(self, source: str) -> bool:
        return self.pattern is None or self.pattern.match(source) is not None

    def _wants(self, kind: Kind | None) -> bool:
        # A pattern names its files. Those of a folder are only what is one item each, or one a page.
        return kind is not None and (self.pattern is not None or kind in ITEMS)

    def _sort(self, found: Found, left_out: LeftOut, named: Callable[[str], bool]) -> Selected | None:
        kind, hidden = find_kind(found.source), is_hidden(found.source)
        try:
            if found.file is None:
                raise InputError("a link that leads to nothing, or not a regular file; delete it.", found.source)
            if kind is None or hidden:
                # A picture may have any name, and what is hidden may be one by its name alone.
                kind = _kind_by_content(found.file)
        except InputError as error:
            if self._wants(kind):
                return report(error, _write_name(found.source), _write_name(found.source))
            if not hidden:
                left_out.add(found.source, "file that cannot be read", "files that cannot be read")
            return None
        if kind is not None and self._wants(kind):
            return _check_name(found.file, kind)
        if not hidden and not named(found.source):
            # Tables and archives are read, where they are named.
            unread = describe_unread(Path(found.source)) if kind is None else None
            left_out.add(found.source, *(unread or _OTHERS[self.pattern is None]))
        return None


def is_folder(target: Target) -> bool:
    """Whether a target is all of a folder."""
    return isinstance(target, Tree) and target.pattern is None


def _kind_by_content(file: StoredFile) -> Kind | None:
    """What a file is whose name does not say, or may be wrong."""
    with file.open() as stream:
        found = kind_by_content(stream.read(HEAD_BYTES))
    return "picture" if found == "image" else "pdf" if found == "pdf" else None


def _check_name(file: StoredFile, kind: Kind) -> Selected:
    try:
        check_name(file.source)
    except InputError as error:
        return Unreadable(_write_name(file.source), _write_name(file.source), error.problem)
    return file, kind


def _write_name(source: str) -> str:
    """A path as it can be kept in a table: bytes that are no UTF-8 are written out."""
    return source.encode("utf-8", "backslashreplace").decode("utf-8")


def _with_slash(folder: str) -> str:
    return folder if folder.endswith(("/", os.sep)) else folder + ("/" if is_remote(folder) else os.sep)


def _folders_between(root: str, path: str) -> Iterator[str]:
    folder = os.path.dirname(path)
    while len(folder) > len(root):
        yield folder
        folder = os.path.dirname(folder)


def find_target(given: str | os.PathLike[str]) -> Target:
    """Return what an argument names.

    Raises:
        InputError: There is no such file or folder, or it is nothing that is read.
    """
    source = make_source(given)
    form = _find_form(source)
    if form == "folder":
        splits = list_splits(source)
        return Tree(source) if splits is None else Dataset(source, tuple(splits))
    if form is None and _MAGIC.search(source):
        return _make_pattern(source)
    return _name_file(source)


def _find_form(source: str) -> str | None:
    """Whether something is a folder or a file; ``None`` where there is nothing of the name."""
    if not is_remote(source):
        return "folder" if os.path.isdir(source) else "file" if os.path.lexists(source) else None
    if find_protocol(source) in _WEB:
        # What a page links to is no listing.
        return None if _MAGIC.search(source) else "file"
    with name_errors(source):
        files, path = find_system(source)
        return "folder" if files.isdir(path) else "file" if files.exists(path) else None


def _name_file(source: str) -> NamedFile:
    check_name(source)
    kind = find_kind(source)
    file = find_file(source)
    if kind is None:
        kind = _kind_by_content(file)
    if kind is None:
        if unread := describe_unread(Path(source)):
            raise InputError(f"a {unread[0]}.", source)
        raise InputError(
            "of no kind that is read: pictures, texts (.txt, .md), PDFs, .jsonl, .csv, .tsv, .parquet, .tar, .tar.gz.",
            source,
        )
    return NamedFile(source, kind)


def _make_pattern(source: str) -> Tree:
    if find_protocol(source) in _WEB:
        raise InputError("a pattern on the web, where nothing is listed; pass each address.", source)
    start = _MAGIC.search(source)
    root = source[: source.rindex("/", 0, start.start() if start else None)] or "/"
    rest = source[len(root) :]
    utils: Any = import_extra("fsspec.utils", extra="index")
    try:
        pattern = re.compile(utils.glob_translate(source))
    except ValueError as error:
        raise InputError(f"no pattern of paths: {error}", source) from error
    if _find_form(root) != "folder":
        raise InputError(f"nothing matches it: {root} is no folder.", source)
    return Tree(root, pattern, None if "**" in rest else rest.strip("/").count("/"))
