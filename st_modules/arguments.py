"""Arguments of few possible values, each checked by its name before anything is loaded or computed."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from numbers import Integral

from st_modules.errors import ArgumentError, shorten


def check_integer(name: str, value: object, least: int = 1) -> int:
    """Return a number that must be whole, which ``True`` and 2.0 are not, as an int.

    Raises:
        ArgumentError: It is something else, or less than ``least``.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ArgumentError(f"{name}={shorten(value)}: pass an integer of at least {least}.")
    return int(value)


def check_optional_integer(name: str, value: object) -> int | None:
    """Return a whole number of at least 1, or ``None``; see :func:`check_integer`."""
    return None if value is None else check_integer(name, value)


def check_seconds(name: str, value: object) -> None:
    """Raise ``ArgumentError`` where a value is no time that can be waited for."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= threading.TIMEOUT_MAX:
        raise ArgumentError(
            f"{name}={shorten(value)}: pass a number of seconds over 0, and at most {threading.TIMEOUT_MAX:.0f}."
        )


def check_flag(name: str, value: object) -> None:
    """Raise ``ArgumentError`` where a value is not a bool: every string but the empty one would count as true."""
    if not isinstance(value, bool):
        raise ArgumentError(f"{name}={shorten(value)}: pass True or False.")


def check_choice(name: str, value: object, known: Iterable[str | None]) -> None:
    """Raise ``ArgumentError`` where a value is none of the known ones, which the message lists."""
    choices = list(known)
    # Not all that can be passed can be compared: an array gives an array.
    if not isinstance(value, str | None) or value not in choices:
        raise ArgumentError(f"{name}={shorten(value)}: pass one of {', '.join(map(repr, choices))}.")


def check_truncation(truncate_dim: object, dimension: int) -> None:
    """Raise ``ArgumentError`` where embeddings of a dimension cannot be cut to another; ``None`` leaves them whole."""
    kept = check_optional_integer("truncate_dim", truncate_dim)
    if kept is not None and kept > dimension:
        raise ArgumentError(
            f"truncate_dim={kept}: the model's embeddings have {dimension} dimensions; pass at most as many."
        )
