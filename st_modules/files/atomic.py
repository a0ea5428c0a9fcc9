"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_atomically(targets: Sequence[Path]) -> Generator[list[Path], None, None]:
    """Have files written beside their places, and put there when all of them are complete.

    Args:
        targets: Where the files go; what is there already is replaced.

    Yields:
        A path for each target, in the same folder, to write to. Where something is raised meanwhile, these files are
        deleted and the targets are as they were.
    """
    parts = [target.with_name(f".{target.name}.{os.getpid()}.part") for target in targets]
    try:
        yield parts
        for part, target in zip(parts, targets, strict=True):
            part.replace(target)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
