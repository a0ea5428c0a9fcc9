"""Settings as pydantic's dataclasses, and what is wrong with a file of them, said by places."""

from __future__ import annotations

import difflib
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from st_modules.errors import STModulesError

Section = TypeVar("Section")

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Configuration of every section. Whole numbers and booleans are strict by their annotations."""
_WORDING = {
    "tuple_type": "must be a list",
    "dataclass_type": "must be a mapping of keys to values",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "is_instance_of": "must be a path",
}
"""Where pydantic's own message speaks of Python or of its classes."""


class ConfigError(STModulesError, ValueError):
    """A configuration has an unknown key, lacks one, or has a wrong value."""


def _as_number(value: object) -> object:
    return float(value) if isinstance(value, str) else value


def _as_path(value: object) -> object:
    if not isinstance(value, str) or not value:
        return value
    if "\0" in value:
        raise ValueError("must be a path, and no path has the character 0.")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{value}: there is no such user.") from error


Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
# YAML 1.1 reads 1e-4, without a point, as a string.
NonNegative = Annotated[float, Field(strict=True, ge=0), BeforeValidator(_as_number)]
UserPath = Annotated[Path, Field(strict=True), BeforeValidator(_as_path)]


def build(section: type[Section], values: object) -> Section:
    """Make a dataclass of a mapping, and the dataclasses below it of the mappings below it.

    Args:
        section: A dataclass of pydantic.
        values: The mapping.

    Raises:
        ConfigError: A key is unknown or missing, or a value is wrong: one line for each of them.
    """
    try:
        return TypeAdapter(section).validate_python(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_say(section, each) for each in error.errors())) from error


def _say(section: type, problem: Any) -> str:
    """One problem that pydantic found, in one line that begins with its place."""
    kind, place = problem["type"], problem["loc"]
    if kind == "unexpected_keyword_argument":
        said = f"unknown key.{_suggestion(place[-1], _known(section, place[:-1]))}"
    elif kind == "missing":
        said = "missing; it has no default."
    elif kind == "value_error":
        said = str(problem["ctx"]["error"])
    else:
        said = f"{_WORDING.get(kind, problem['msg'])}, not {problem['input']!r:.60}."
    return f"{_join(place)}: {said}" if place else said


def _join(place: tuple[str | int, ...]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).removeprefix(".")


def _known(section: Any, place: tuple[str | int, ...]) -> list[str]:
    """The keys of the section that is at a place below another."""
    for key in place:
        if isinstance(key, str):
            kind = section.__pydantic_fields__[key].annotation
            section = next(filter(is_dataclass, (kind, *get_args(kind))))
    return list(section.__pydantic_fields__)


def _suggestion(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else f" Known are {', '.join(known)}."
