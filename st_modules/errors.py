"""The exceptions that st_modules raises; each message names the input, what was wrong and what to do."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

_LONGEST_LIST = 20_000
_LONGEST_NUMBER = 1024


class STModulesError(Exception):
    """Base class of every exception that this package defines."""


@dataclass(frozen=True)
class Place:
    """Where an input stands among those of a call.

    Args:
        index: Position in the caller's list, counted from 0.
        part: Which part of the input, such as ``image 1``; the whole where it is empty.
        name: What the input is called in messages, such as ``data.jsonl:3``; ``item INDEX`` where it is empty.
    """

    index: int
    part: str = ""
    name: str = ""

    def __str__(self) -> str:
        whole = self.name or f"item {self.index}"
        return f"{whole}, {self.part}" if self.part else whole

    def within(self, part: str) -> Place:
        """Return the place of a part of this place."""
        return dataclasses.replace(self, part=f"{self.part}, {part}" if self.part else part)


class InputError(STModulesError, ValueError):
    """An item passed to ``encode`` (or to training) cannot be embedded.

    Args:
        problem: What is wrong, and what to do about it.
        place: Where it is wrong; a string is a name without a position. ``None`` where no single input is to blame, or
            ``problem`` says it.

    Attributes:
        problem: As above.
        place: As above.
    """

    def __init__(self, problem: str, place: Place | str | None = None) -> None:
        super().__init__(problem, place)
        self.problem = problem
        self.place = place

    def __str__(self) -> str:
        # A file that is an input by itself is its place, and is named by its problem too.
        named = self.place is None or self.problem.startswith(f"{self.place}: ")
        return self.problem if named else f"{self.place}: {self.problem}"

    @property
    def index(self) -> int | None:
        """Position of the input in the caller's list, counted from 0; ``None`` where the error has no position."""
        return self.place.index if isinstance(self.place, Place) else None

    def shift(self, offset: int) -> Self:
        """Return a copy of the error about the input ``offset`` places further on.

        A name that it was given stays. An error without a position is copied as it is.
        """
        return self._at(lambda place: dataclasses.replace(place, index=place.index + offset))

    def rename(self, name: str) -> Self:
        """Return a copy of the error with another name for the input, such as the line that it was read from.

        An error without a position is copied as it is.
        """
        return self._at(lambda place: dataclasses.replace(place, name=name))

    def _at(self, change: Callable[[Place], Place]) -> Self:
        moved = type(self)(self.problem, change(self.place) if isinstance(self.place, Place) else self.place)
        moved.__cause__ = self.__cause__
        return moved


class _Shortener(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write numbers of thousands of digits.
        return f"a number of {x.bit_length()} bits" if x.bit_length() > _LONGEST_NUMBER else super().repr_int(x, level)


shorten = _Shortener().repr
"""``repr`` for messages: short whatever a value holds, itself included."""


@contextmanager
def name_inputs(name: Callable[[int], str], offset: int = 0) -> Generator[None, None, None]:
    """Name the inputs in errors as their caller knows them.

    Args:
        name: From an input's position to its name.
        offset: Added to positions first, where what is called has only a part of the caller's list.

    Raises:
        InputError: One is raised within; it comes out with its position shifted and its input renamed, or as it is
            where it has no position.
    """
    try:
        yield
    except InputError as error:
        if error.index is None:
            raise
        raise error.shift(offset).rename(name(error.index + offset)) from error


def list_errors(errors: Sequence[InputError], separator: str) -> str:
    """Return errors as one text, complete in their number and bounded in length.

    Args:
        errors: The errors, in order.
        separator: What stands between them.
    """
    lines = [str(error) for error in errors]
    shown = lines
    while len(shown) > 1 and sum(map(len, shown)) > _LONGEST_LIST:
        shown = shown[: len(shown) // 2]
    more = [f"and {len(lines) - len(shown)} more"] if len(shown) < len(lines) else []
    return separator.join([*shown, *more])


def printable(line: str) -> str:
    """Write out control characters, which names may have and which would reach a terminal or a log."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def in_one_line(error: BaseException, most: int = 300) -> str:
    """Return the text of another library's error in one line of bounded length; its type where it has no text."""
    line = " ".join(str(error)[: 10 * most].split()) or type(error).__name__
    return line if len(line) <= most else f"{line[: most - 1]}…"


class ImageError(InputError):
    """An image is missing, unreadable, over a limit, or not allowed to be fetched."""


class VideoError(InputError):
    """A video is missing, unreadable, over a limit, or not allowed to be fetched."""


class ArgumentError(STModulesError, ValueError):
    """An argument, or an option that was saved with a model, has a value that it cannot have."""


class UnknownNameError(STModulesError, ValueError):
    """A name that nothing has."""


class UnknownModelError(UnknownNameError):
    """A model name that the catalog does not have."""


class CheckpointError(STModulesError, ValueError):
    """Model files are missing, damaged, or do not fit the architecture that they name."""


class ServerError(STModulesError):
    """A server is not there, does not let the caller in, or answers with something else than embeddings."""


class MissingExtraError(STModulesError, ImportError):
    """A package of an optional extra is not installed."""
