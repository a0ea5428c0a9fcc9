"""Which files may be opened: any, none, or those in one folder; and opening them so that no other is read.

A path is outside the folder where its parts say so, and then nothing is asked of the disk: an error tells nobody what
files there are. Links in the folder may lead on within it. A link or a folder that is swapped for another between the
check and the opening leads nowhere either, because what was opened is checked once more, by the descriptor.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import BinaryIO

from st_modules.errors import ImageError

LONGEST_PATH = 4096
"""Most characters that a path has."""

_NONE = 'opening files is turned off (local_files=False); pass the image itself, or {"text": ...} if this is text'
_OUTSIDE = (
    "not within the folder that files may be opened in (local_files); pass the path of one in it, or "
    '{"text": ...} if this is text'
)
# No link at the end: there was none when the path was resolved. A FIFO is opened without waiting for its writer.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"))


def may_open(path: str, local_files: bool | str | os.PathLike[str]) -> bool:
    """Whether a path, which may be of nothing, is one that may be opened; one that is not is not looked for.

    Args:
        path: The path; a relative one is in the process's current folder.
        local_files: ``True`` for every file, ``False`` for none, or the absolute path of the folder of those that may
            be opened.
    """
    return local_files if isinstance(local_files, bool) else _resolve(path, local_files) is not None


def open_file(
    path: Path, local_files: bool | str | os.PathLike[str], check: Callable[[os.stat_result], None]
) -> BinaryIO:
    """Open a file that may be opened.

    Args:
        path: As of :func:`may_open`.
        local_files: As of :func:`may_open`.
        check: Is given the file's status before anything is read of it, and raises where the file will not do.

    Raises:
        ImageError: The file may not be opened. Whether there is one makes no difference.
        OSError: It cannot be opened.
    """
    if local_files is True:
        check(path.stat())
        return path.open("rb")
    if local_files is False:
        raise ImageError(_NONE)
    resolved = _resolve(str(path), local_files)
    if resolved is None:
        raise ImageError(_OUTSIDE)
    descriptor = os.open(resolved, _FLAGS)
    try:
        if not _is_within(_find_opened(descriptor, resolved), os.path.realpath(local_files)):
            raise ImageError(_OUTSIDE)
        check(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _resolve(path: str, folder: str | os.PathLike[str]) -> str | None:
    """Return a path without links, or ``None`` where it leads out of the folder, by its parts or by a link."""
    real = os.path.realpath(folder)
    try:
        for name in (os.fspath(folder), real):
            if len(path) <= LONGEST_PATH and (parts := _parts_below(path, name)) is not None:
                resolved = os.path.realpath(os.path.join(real, *parts))
                return resolved if _is_within(resolved, real) else None
    except (OSError, ValueError):  # the current folder is gone, or there are characters that no path has
        return None
    return None


def _parts_below(path: str, folder: str) -> list[str] | None:
    """Return the parts of a path below a folder, or ``None`` where it is not below, as far as its parts tell.

    Up to the folder, ``..`` is the parent by name. Below, it stays for the disk to say what it leads to.
    """
    ends = list(PurePath(os.path.normcase(folder)).parts)
    here: list[str] = []
    parts: list[str] | None = None
    for part in PurePath(os.path.join(os.getcwd(), path)).parts:
        if part == "..":
            del here[max(1, len(here) - 1) :]  # the root is its own parent
        else:
            here.append(os.path.normcase(part))
        if here[: len(ends)] != ends:
            parts = None
        elif parts is None:
            parts = []
        else:
            parts.append(part)
    return parts


def _is_within(path: str, folder: str) -> bool:
    return PurePath(path).is_relative_to(folder)


def _find_opened(descriptor: int, path: str) -> str:
    """Return the path of the file that was opened, which may be another than the one that was meant."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:  # no /proc here
        found = os.path.realpath(path)
        if not os.path.samestat(os.fstat(descriptor), os.stat(found)):
            raise ImageError(_OUTSIDE) from None
        return found
