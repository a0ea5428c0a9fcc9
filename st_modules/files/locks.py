"""A folder that one run at a time works in."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from st_modules._imports import import_extra
from st_modules.errors import InputError


@contextmanager
def lock_folder(folder: Path) -> Generator[None, None, None]:
    """Keep other runs out of a folder.

    The lock is the operating system's, on an empty file that stays there: it ends with the process that holds it, also
    where that is killed.

    Args:
        folder: An existing folder.

    Raises:
        InputError: Another run is in it.
        MissingExtraError: filelock is not installed.
    """
    filelock = import_extra("filelock", extra="megapairs")
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise InputError(
            f"{folder}: another run is using this folder; wait for its end, or work in another."
        ) from error
    try:
        yield
    finally:
        lock.release()
