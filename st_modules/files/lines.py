"""Files of lines that grow, and that a stopped run leaves so that another one can go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


class LineFile:
    """A UTF-8 file that lines are appended to.

    A last line without an end, which a stopped run may leave, is cut off when the file is opened.

    Args:
        path: The file; made where there is none.

    Attributes:
        path: The file.
        count: How many lines it has.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self.count = 0
        end = 0
        with path.open("rb+") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    self.count += 1
                    end += len(line)
            stream.truncate(end)

    def append(self, line: str) -> None:
        """Write one line; it is in the file when this returns."""
        with self.path.open("ab") as stream:
            stream.write(line.encode() + b"\n")
        self.count += 1

    def lines(self) -> Iterator[str]:
        """The lines, without their ends."""
        with self.path.open("rb") as stream:
            for line in stream:
                yield line.decode().removesuffix("\n")
