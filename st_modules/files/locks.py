"""A folder that one run at a time works in."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from st_modules.errors import InputError


@contextmanager
def lock_folder(folder: Path, wait: bool = False) -> Generator[None, None, None]:
    """Keep other runs out of a folder.

    The lock is the operating system's, on an empty file: it ends with the process that holds it, also where that is
    killed. The file stays there, unless the folder is deleted before the lock ends.

    Args:
        folder: An existing folder.
        wait: Whether to wait for the end of another run.

    Raises:
        InputError: Another run is in it, and is not waited for.
    """
    lock: Any = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=wait)
    except filelock.Timeout as error:
        raise InputError(
            f"{folder}: another run is using this folder; wait for its end, or work in another."
        ) from error
    try:
        yield
    finally:
        lock.release()
