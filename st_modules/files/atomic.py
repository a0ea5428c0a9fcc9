"""Files that are there whole or not at all, and files that are never beside those of another run."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

_LONG = 200


@contextmanager
def write_atomically(targets: Sequence[Path]) -> Generator[list[Path], None, None]:
    """Have files written beside their places, and put there when all of them are complete.

    Args:
        targets: Where the files go; what is there already is replaced.

    Yields:
        A path for each target, in the same folder, to write to. Where something is raised meanwhile, these files are
        deleted and the targets are as they were. Targets that are there together are of one run, at any moment.
    """
    parts = [target.with_name(f".{_shorten(target.name)}.{os.getpid()}.part") for target in targets]
    try:
        yield parts
        # Without the other old files, the new first one is never beside one of them, wherever the process is killed.
        for target in targets[1:]:
            target.unlink(missing_ok=True)
        for part, target in zip(parts, targets, strict=True):
            part.replace(target)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _shorten(name: str) -> str:
    """A name that something can be added to: file systems take 255 bytes."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONG else hashlib.blake2b(encoded, digest_size=16).hexdigest()


def put_in_place(folder: Path, targets: Sequence[Path]) -> None:
    """Move files that belong together to their places, in the place of those of another run.

    At any moment the targets that are there belong together, and at least the old or the new files are whole, in their
    places or in the folder. Where the process is killed meanwhile, another call with the same arguments goes on.

    Args:
        folder: A folder of the same file system, with files of the targets' names, the first one's at least. It is
            deleted in the end.
        targets: Where they go. A target for which there is no file is deleted.
    """
    first, *rest = targets
    if (folder / first.name).exists():
        for target in rest:
            target.unlink(missing_ok=True)
    for target in targets:
        if (folder / target.name).exists():
            (folder / target.name).replace(target)
    shutil.rmtree(folder)


@contextmanager
def name_file(path: Path) -> Generator[None, None, None]:
    """Have an ``OSError`` say which file it is about; one of writing to an open file does not."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno or 0, error.strerror or str(error), str(path)) from error
