"""Which values the fields of a checkpoint's JSON files can have, each said once."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st_modules.errors import CheckpointError


@dataclass(frozen=True)
class Kind:
    """What a field can hold.

    Attributes:
        needed: What it is, as error messages say it: ``a whole number from 1 to 8``.
        fits: Whether a value is that.
    """

    needed: str
    fits: Callable[[Any], bool]


def check_fields(path: Path, fields: Mapping[str, Any], kinds: Mapping[str, Kind], place: str = "") -> None:
    """Check the fields that are there, and leave others alone.

    Args:
        path: The file that they are from.
        fields: They and their values.
        kinds: What each can hold.
        place: What stands before their names in messages: ``text_config.``.

    Raises:
        CheckpointError: One holds something else.
    """
    for name, kind in kinds.items():
        if name in fields and not kind.fits(fields[name]):
            raise CheckpointError(
                f"{path}: {place}{name} is {reprlib.repr(fields[name])}, and {kind.needed} is needed."
            )


def whole(least: int, most: int) -> Kind:
    """Return the kind of whole numbers within bounds, both included."""
    return Kind(
        f"a whole number from {least} to {most}",
        # A default of transformers may be a member of an enumeration.
        lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
    )


def number(over: float, most: float) -> Kind:
    """Return the kind of numbers over the first bound and at most the second."""
    return Kind(f"a number over {over:g} and at most {most:g}", lambda value: is_number(value) and over < value <= most)


def exactly(value: Any, why: str = "") -> Kind:
    """Return the kind that is a single value; ``why`` says where it is from."""
    return Kind(f"{value!r}{why}", lambda found: found == value and isinstance(found, bool) == isinstance(value, bool))


def one_of(values: Collection[Any]) -> Kind:
    """Return the kind of some strings, and of ``None`` where it is among them."""
    return Kind(
        f"one of {', '.join(map(repr, sorted(values, key=str)))}",
        lambda value: isinstance(value, str | None) and value in values,
    )


def optional(kind: Kind) -> Kind:
    """Return a kind that ``null`` is of too."""
    return Kind(f"{kind.needed} or null", lambda value: value is None or kind.fits(value))


def each(kind: Kind, least: int = 0, most: int = 10_000) -> Kind:
    """Return the kind of lists of so many values of a kind."""
    return Kind(
        f"a list of {least} to {most} entries, each {kind.needed},",
        lambda value: isinstance(value, list | tuple) and least <= len(value) <= most and all(map(kind.fits, value)),
    )


def either(*kinds: Kind) -> Kind:
    """Return the kind of values that are of one of several."""
    return Kind(" or ".join(kind.needed for kind in kinds), lambda value: any(kind.fits(value) for kind in kinds))


def is_number(value: object) -> bool:
    """Whether a value is a number, which ``True`` is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _has_characters(value: str) -> bool:
    """Whether a string has no lone surrogate, which a JSON file can name and no tokenizer can read."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


FLAG = Kind("true or false", lambda value: isinstance(value, bool))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
TEXT = Kind("a string of whole characters", lambda value: isinstance(value, str) and _has_characters(value))
NAME = Kind("a string that is not empty", lambda value: TEXT.fits(value) and value != "")
NUMBER = Kind("a number", is_number)
