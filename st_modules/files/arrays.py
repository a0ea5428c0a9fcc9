"""Arrays on disk that are filled from the front, so that a stopped run goes on where it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from st_modules.errors import STModulesError
from st_modules.files.atomic import write_atomically

Array: TypeAlias = npt.NDArray[np.generic]


class ArrayFile:
    """A ``.npy`` file that is mapped into memory, and the number of its rows that are filled.

    Args:
        path: An existing file that :meth:`create` made.

    Attributes:
        rows: Shape (n, columns): the whole array; what is not filled yet is zero.
        filled: How many rows are.

    Raises:
        STModulesError: It is damaged, or the file beside it that says how much is filled.
    """

    def __init__(self, path: Path) -> None:
        self._progress = _progress_file(path)
        try:
            # Opened for writing, a file that was cut off would be filled up with zeros.
            np.lib.format.open_memmap(path, mode="r")
            self.rows: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="r+")
            self.filled: int = json.loads(self._progress.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise self._damaged(path) from error
        if self.rows.ndim != 2 or type(self.filled) is not int or not 0 <= self.filled <= len(self.rows):
            raise self._damaged(path)

    def _damaged(self, path: Path) -> STModulesError:
        return STModulesError(
            f"{path}: it or {self._progress.name} beside it is damaged. Delete both, and they are made anew."
        )

    @classmethod
    def create(cls, path: Path, shape: tuple[int, int], dtype: npt.DTypeLike) -> ArrayFile:
        """Make a file of which nothing is filled.

        Raises:
            OSError: The disk has no room for all of it (told here where the system can, so that no later write fails).
        """
        np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape).flush()
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
        _record(_progress_file(path), 0)
        return cls(path)

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether :meth:`create` has made the file."""
        return _progress_file(path).is_file()

    @property
    def complete(self) -> bool:
        """Whether every row is filled."""
        return self.filled == len(self.rows)

    def append(self, rows: Array) -> None:
        """Fill the next rows; they are on disk before they count as filled."""
        end = self.filled + len(rows)
        if end > len(self.rows):
            raise STModulesError(f"{self.rows.filename}: {end} rows for a file of {len(self.rows)}.")
        self.rows[self.filled : end] = rows
        self.rows.flush()
        self.filled = end
        _record(self._progress, end)


def _progress_file(path: Path) -> Path:
    return path.with_suffix(".filled")


def _record(progress: Path, filled: int) -> None:
    with write_atomically([progress]) as (part,):
        part.write_text(json.dumps(filled))
