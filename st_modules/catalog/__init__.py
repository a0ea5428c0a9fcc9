"""The catalog: every model that the package knows, looked up by any of its names."""

from __future__ import annotations

import difflib
from pathlib import Path

from st_modules.catalog.rows import MODELS
from st_modules.catalog.spec import ModelSpec, Task
from st_modules.errors import UnknownModelError

__all__ = [
    "ModelSpec",
    "find_model",
    "find_published",
    "get_model",
    "list_models",
    "names_folder",
    "near_miss",
]


def list_models(task: Task | None = "embed") -> list[ModelSpec]:
    """Return the models of the catalog, in its order.

    Args:
        task: What they do: ``"embed"``, ``"rerank"``, or ``None`` for all of them.
    """
    return [spec for spec in MODELS if task in (spec.task, None)]


def find_model(name: str) -> ModelSpec | None:
    """Look a model up by short name, repository id or ModelScope id, with or without the owner, in any letter case.

    Args:
        name: What the user calls the model.

    Returns:
        Its row, or ``None`` where ``name`` is nobody's (a path, another library's model).

    Raises:
        UnknownModelError: ``name`` is a repository that holds several models.
    """
    wanted = name.casefold()
    hits = [spec for spec in MODELS if wanted in map(str.casefold, (spec.name, *spec.repositories))]
    if len(hits) > 1:
        names = " or ".join(repr(spec.name) for spec in hits)
        raise UnknownModelError(f"{name!r} holds several models: pass {names}.")
    return hits[0] if hits else None


def find_published(name: str) -> ModelSpec | None:
    """Look a model up as :func:`find_model` does, but for a name that is that of a folder here."""
    return None if names_folder(name) else find_model(name)


def names_folder(name: str) -> bool:
    """Whether a name is that of a folder or a file that is here, and no short name, which always means the model."""
    # In its own letter case: "BGE-VL-base" is the name of a repository, and may be a folder's.
    return name not in {spec.name for spec in MODELS} and Path(name).exists()


def get_model(name: str) -> ModelSpec:
    """Look a model up as :func:`find_model` does.

    Args:
        name: What the user calls the model.

    Returns:
        The model's row.

    Raises:
        UnknownModelError: The catalog has no such model (near names are suggested).
    """
    spec = find_model(name)
    if spec is None:
        raise UnknownModelError(f"Unknown model {name!r}.{_suggestion(name)} `st-modules list` shows every model.")
    return spec


def near_miss(name: str) -> str:
    """Return a suggestion for a name that is no path and has no owner, else the empty string."""
    return "" if "/" in name or Path(name).exists() else _suggestion(name)


def _suggestion(name: str) -> str:
    """Return `` Did you mean 'x'?`` for a name that is near one of the catalog's, else the empty string."""
    names = {alias.casefold(): spec.name for spec in MODELS for alias in (*spec.repositories, spec.name)}
    near = difflib.get_close_matches(name.casefold(), list(names), cutoff=0.75)
    # One that only lacks its end is meant rather than one that is as long.
    near.sort(key=lambda each: not each.startswith(name.casefold()))
    return f" Did you mean {names[near[0]]!r}?" if near else ""
