"""What is left to embed of items of which some cannot be: pieces that get smaller around what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from st_modules.errors import InputError, Place

_Embedding = TypeVar("_Embedding")


class Remaining(Generic[_Embedding]):
    """Items of which each is embedded, or has an error.

    A piece that fails is taken again in two halves, without the item to blame where that is known. So an item is taken
    a few times, however many are bad: at most about the logarithm of their number.

    Args:
        items: The items.
        errors: Those that are known to be bad already, by place.
        exact: Whether the position that an error has is the place of the item to blame.
    """

    def __init__(self, items: Sequence[Any], errors: Mapping[int, InputError], *, exact: bool) -> None:
        self.embeddings: list[_Embedding | None] = [None] * len(items)
        self._items = items
        self._errors = dict(errors)
        self._exact = exact
        self._waiting = [[place for place in range(len(items)) if place not in errors]]

    @property
    def errors(self) -> list[InputError]:
        """The errors, in the order of the items."""
        return [self._errors[place] for place in sorted(self._errors)]

    def take(self) -> dict[int, Any]:
        """Return items to embed together, by place; none when all is done."""
        return {place: self._items[place] for place in self._waiting.pop()} if self._waiting else {}

    def keep(self, piece: Mapping[int, Any], embeddings: Sequence[_Embedding]) -> None:
        """Keep the embeddings of a piece."""
        for place, embedding in zip(piece, embeddings, strict=True):
            self.embeddings[place] = embedding

    def split(self, piece: Mapping[int, Any], error: InputError) -> None:
        """Put off the items of a piece that raised an error."""
        known = error.index if self._exact else None
        blamed = known if known in piece else next(iter(piece)) if len(piece) == 1 else None
        if blamed is not None:
            self._errors[blamed] = put_at(error, blamed)
        rest = [place for place in piece if place != blamed]
        middle = len(rest) // 2
        self._waiting += [half for half in (rest[middle:], rest[:middle]) if half]


def put_at(error: InputError, place: int) -> InputError:
    """Return a copy of an error about the input at a place."""
    if error.index is not None:
        return error.shift(place - error.index)
    moved = type(error)(error.problem, Place(place, name=str(error.place or "")))
    moved.__cause__ = error.__cause__
    return moved
