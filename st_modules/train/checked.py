"""From a YAML mapping to dataclasses: every unknown key and every wrong value is an error that names its place."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from dataclasses import MISSING, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from st_modules.errors import STModulesError

Section = TypeVar("Section")


class ConfigError(STModulesError, ValueError):
    """A configuration has an unknown key, lacks one, or has a wrong value."""


def build(section: type[Section], values: object, place: str = "") -> Section:
    """Make a dataclass of a mapping, and the dataclasses below it of the mappings below it.

    Args:
        section: The dataclass. Its fields' annotations say what is taken: numbers, strings, booleans, paths,
            ``Literal``, tuples (lists in YAML), dictionaries and other dataclasses. A ``least`` and a ``most`` in a
            field's metadata bound the numbers that it takes.
        values: The mapping.
        place: What errors call it: the keys that lead to it, joined by dots.

    Raises:
        ConfigError: A key is unknown or missing, or a value is wrong.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{place or 'the file'}: must be a mapping of keys to values, not {_shown(values)}.")
    known = {each.name: each for each in fields(section)}  # type: ignore[arg-type]
    kinds = get_type_hints(section)
    for key in values:
        if key not in known:
            raise ConfigError(f"{_joined(place, key)}: unknown key.{_suggestion(str(key), list(known))}")
    for name, each in known.items():
        if name not in values and each.default is MISSING and each.default_factory is MISSING:
            raise ConfigError(f"{_joined(place, name)}: missing; it has no default.")
    given = {name: convert(kinds[name], value, _joined(place, name)) for name, value in values.items()}
    for name, value in given.items():
        _check_bounds(value, known[name].metadata, _joined(place, name))
    try:
        return section(**given)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{place}: {error}" if place else str(error)) from error


def bounded(default: Any, least: float | None = None, most: float | None = None) -> Any:
    """Return a field of a dataclass that takes numbers from ``least`` to ``most``."""
    return field(default=default, metadata={"least": least, "most": most})


def _check_bounds(value: Any, bounds: Mapping[str, Any], place: str) -> None:
    least, most = bounds.get("least"), bounds.get("most")
    if least is not None and value is not None and value < least:
        raise ConfigError(f"{place}: {value} is too small; it must be at least {least}.")
    if most is not None and value is not None and value > most:
        raise ConfigError(f"{place}: {value} is too large; it must be at most {most}.")


def convert(kind: Any, value: Any, place: str) -> Any:
    """Make a value of the kind that a field's annotation says.

    Raises:
        ConfigError: It is of another kind.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        options = [each for each in arguments if each is not type(None)]
        if value is None and len(options) < len(arguments):
            return None
        return convert(options[0], value, place) if len(options) == 1 else _first(options, value, place)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{place}: {_shown(value)} is none of {', '.join(map(repr, arguments))}.")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{place}: must be a list, not {_shown(value)}.")
        return tuple(convert(arguments[0], each, f"{place}[{number}]") for number, each in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{place}: must be a mapping of keys to values, not {_shown(value)}.")
        return {
            convert(arguments[0], key, place): convert(arguments[1], each, _joined(place, key))
            for key, each in value.items()
        }
    return build(kind, value, place) if isinstance(kind, type) and is_dataclass(kind) else _scalar(kind, value, place)


def _scalar(kind: type, value: Any, place: str) -> Any:
    if kind is float and not isinstance(value, bool) and isinstance(value, (int, float, str)):
        # YAML 1.1 reads 1e-4, without a point, as a string.
        try:
            return float(value)
        except ValueError:
            pass
    if kind is Path and isinstance(value, str) and value:
        return Path(value).expanduser()
    if kind in (int, str, bool) and type(value) is kind:
        return value
    wanted = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", Path: "a path"}[kind]
    raise ConfigError(f"{place}: must be {wanted}, not {_shown(value)}.")


def _first(options: list[Any], value: Any, place: str) -> Any:
    """The first of several kinds that a value is of."""
    problems: list[str] = []
    for kind in options:
        try:
            return convert(kind, value, place)
        except ConfigError as error:
            problems.append(str(error).removeprefix(f"{place}: ").rstrip("."))
    raise ConfigError(f"{place}: {', or '.join(problems)}.")


def _joined(place: str, key: object) -> str:
    return f"{place}.{key}" if place else str(key)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _suggestion(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else f" Known are {', '.join(known)}."
