"""What a process leaves behind that is killed: a folder as it is before each step that changes it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_STEPS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"})
_watchers: list[Callable[[], None]] = []
_hooked: list[bool] = []


def _watch(event: str, _: object) -> None:
    if event in _STEPS and _watchers:
        watcher = _watchers.pop()  # what it does itself is no step
        watcher()
        _watchers.append(watcher)


@contextmanager
def take_snapshots(folder: Path, into: Path) -> Iterator[list[Path]]:
    """Copy a folder before each opening, renaming and deleting of a file by this process.

    Yields:
        The copies, in order; filled meanwhile.
    """
    copies: list[Path] = []

    def copy() -> None:
        copies.append(shutil.copytree(folder, into / str(len(copies))))

    if not _hooked:  # such a hook cannot be taken back
        sys.addaudithook(_watch)
        _hooked.append(True)
    _watchers.append(copy)
    try:
        yield copies
    finally:
        _watchers.clear()
