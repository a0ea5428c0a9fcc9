"""What installed distributions ask for, and a folder that shows some of them alone."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needs_of(name: str, extras: Collection[str] = (), not_through: str | None = None) -> set[str]:
    """The names of all distributions that a distribution needs here, by what is installed.

    Args:
        name: The distribution.
        extras: Extras of it that are asked for too.
        not_through: A distribution whose own needs are left out.
    """
    open_ends = [(canonicalize_name(name), frozenset(extras))]
    seen = set(open_ends)
    while open_ends:
        name, extras = open_ends.pop()
        for requirement in _requirements(name, extras) if name != not_through else ():
            need = canonicalize_name(requirement.name), frozenset(requirement.extras)
            if need not in seen:
                seen.add(need)
                open_ends.append(need)
    return {name for name, _ in seen}


def _requirements(name: str, extras: Collection[str]) -> list[Requirement]:
    requirements = map(Requirement, distribution(name).requires or [])
    return [
        each
        for each in requirements
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def show_alone(names: Collection[str], folder: Path) -> None:
    """Link what distributions have installed into a folder, in which nothing else can be imported from."""
    folder.mkdir()
    for name in names:
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(found.locate_file(top))).resolve())
