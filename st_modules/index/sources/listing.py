"""What is in a folder, here or behind a URL, in order, and what of it is left out."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from st_modules.errors import InputError, printable
from st_modules.index.sources.sorting import sort_names
from st_modules.index.sources.stored import StoredFile, find_system, from_info, is_remote, name_errors

_NAMED = 5  # of what is left out

Form: TypeAlias = Literal["file", "folder", "link", "other"]


@dataclass(frozen=True)
class Found:
    """One name in a folder.

    Attributes:
        source: Its absolute path, or its URL.
        form: ``link`` is a folder behind a symbolic link, ``other`` a link that leads to nothing, a pipe and the like.
        file: The file, where it is one.
    """

    source: str
    form: Form
    file: StoredFile | None = None


@dataclass
class LeftOut:
    """What was left out of a folder, and why: how often, and the first names.

    Args:
        root: The folder.
    """

    root: str
    _found: dict[tuple[str, str], tuple[int, list[str]]] = field(default_factory=dict)

    def add(self, source: str, one: str, several: str) -> None:
        """Take note of a file or folder.

        Args:
            source: What was left out.
            one: What one such thing is called.
            several: What several are.
        """
        count, names = self._found.get((one, several), (0, []))
        if len(names) < _NAMED:
            names.append(printable(source[len(self.root) :].lstrip("/" + os.sep)))
        self._found[one, several] = (count + 1, names)

    def describe(self) -> list[str]:
        """Return a line for each reason."""
        return [
            f"{printable(self.root)}: left out {count} {one if count == 1 else several}: {', '.join(names)}"
            + (f" and {count - len(names)} more" if count > len(names) else "")
            for (one, several), (count, names) in self._found.items()
        ]


def walk(root: str, left_out: LeftOut, depth: int | None = None) -> Iterator[Found]:
    """Yield the files in a folder and in the folders in it, by their paths in order.

    Args:
        root: The folder's absolute path, or its URL.
        left_out: Takes note of folders behind symbolic links, which are not gone into: a link may lead in a circle.
        depth: How many folders deep to go; ``None`` for all.

    Raises:
        InputError: A folder cannot be listed: what is in it would be missing.
    """
    folders = [list_folder(root)]
    while folders:
        found = next(folders[-1], None)
        if found is None:
            folders.pop()
        elif found.form == "folder":
            if depth is None or len(folders) <= depth:
                folders.append(list_folder(found.source))
        elif found.form == "link":
            left_out.add(found.source, "folder behind a symbolic link", "folders behind symbolic links")
        else:
            yield found


def list_folder(folder: str) -> Iterator[Found]:
    """Yield what is in a folder, by its names in order.

    Raises:
        InputError: It cannot be listed.
    """
    return _list_remote(folder) if is_remote(folder) else _list_local(folder)


def _list_local(folder: str) -> Iterator[Found]:
    for name in sort_names(_scan(folder)):
        path = os.path.join(folder, name)
        try:
            status = os.stat(path)
        except OSError:
            yield Found(path, "other")
            continue
        if stat.S_ISDIR(status.st_mode):
            yield Found(path, "link" if os.path.islink(path) else "folder")
        elif stat.S_ISREG(status.st_mode):
            yield Found(path, "file", StoredFile(path, status.st_size, str(status.st_mtime_ns)))
        else:
            yield Found(path, "other")


def _scan(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry.name
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror}); what is in it would be missing.", printable(folder)
        ) from error


def _list_remote(folder: str) -> Iterator[Found]:
    with name_errors(folder):
        files, path = find_system(folder)
        infos: list[dict[str, Any]] = files.ls(path, detail=True)
    here = str(files.unstrip_protocol(path)).rstrip("/")
    by_url = {str(files.unstrip_protocol(info["name"])): info for info in infos}
    for url, info in sorted(by_url.items(), key=lambda pair: pair[0]):
        # Object stores have an empty object in the place of the folder itself.
        if url.rstrip("/") == here:
            continue
        if info.get("type") == "directory":
            yield Found(url.rstrip("/"), "folder")
        elif posixpath.basename(url):
            yield Found(url, "file", from_info(url, info))
