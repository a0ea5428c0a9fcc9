"""The JSON files of a checkpoint: read within bounds, before any library reads them in its own way."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from st_modules.errors import CheckpointError

_MOST_BYTES = 64 * 1024 * 1024
"""The largest published files, tokenizers of large vocabularies, are half of it."""
_MOST_LEVELS = 64
"""Libraries copy what they read by recursion, and published files have fewer than ten."""

_POINTER = b"version https://git-lfs.github.com/spec/"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a checkpoint.

    Raises:
        CheckpointError: The file is missing, or is not a JSON object that every library reads alike.
    """
    content = read_json_value(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: a JSON object is needed, and it holds a {type(content).__name__}.")
    return content


def read_json_value(path: Path, *, finite: bool = True) -> Any:
    """Read a JSON file of a checkpoint, whatever value it holds; see :func:`read_json`.

    Args:
        path: The file.
        finite: Whether numbers must be finite, as JSON has them.
    """
    check_file(path)
    refuse_pointer(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique_fields)
    except RecursionError as error:
        raise _too_deep(path) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error
    _check_values(path, content, finite)
    return content


def check_file(path: Path) -> None:
    """Check that a file of text in a checkpoint can be read as a whole.

    Raises:
        CheckpointError: It is no file, or is larger than such files are.
    """
    if check_regular(path) > _MOST_BYTES:
        raise CheckpointError(f"{path}: over {_MOST_BYTES} bytes, which no such file has. Download or save it again.")


def check_regular(path: Path) -> int:
    """Return how many bytes a file has.

    Raises:
        CheckpointError: It is no file: opening a pipe waits for its other end, and reading a device may never end.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path}: not a regular file. Download or save it again.")
    return found.st_size


def refuse_pointer(path: Path) -> None:
    """Refuse a file that git wrote in the place of a large one.

    Raises:
        CheckpointError: It is one.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
    except OSError:
        return  # whoever reads it says why
    if start == _POINTER:
        raise CheckpointError(
            f"{path}: a pointer of Git LFS, and not the file itself. Call 'git lfs pull' in its folder, or download it."
        )


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        for name, value in pairs:
            # Of the same values it does not matter which one a library takes.
            if fields[name] != value:
                raise ValueError(f"the field {name!r} is there twice, with different values")
    return fields


def _check_values(path: Path, content: Any, finite: bool) -> None:
    """Refuse numbers that are not finite, which JSON does not have, and nesting that libraries cannot follow."""
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    while waiting:
        place, value, level = waiting.pop()
        if level > _MOST_LEVELS:
            raise _too_deep(path, place)
        for key, each in _entries(value):
            if isinstance(each, dict | list):
                waiting.append((_join(place, key), each, level + 1))
            elif finite and isinstance(each, float) and not math.isfinite(each):
                raise CheckpointError(f"{path}: {_join(place, key)} is {each}, and a finite number is needed.")


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _join(place: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{place}[{key}]"
    return f"{place}.{key}" if place else key


def _too_deep(path: Path, place: str = "") -> CheckpointError:
    field = f"{place[:40]}… is " if place else ""
    return CheckpointError(
        f"{path}: {field}nested more than {_MOST_LEVELS} levels deep, which no such file is. Download or save it again."
    )
