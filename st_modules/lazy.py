"""Names of a package that are imported at first use, because what they need takes seconds or is an extra."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str], check: Callable[[str], object] = lambda name: None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and the ``__dir__`` of a package (PEP 562).

    Args:
        package: Its ``__name__``.
        homes: Each name and the package's module that defines it.
        check: Called with a name before it is imported; raises where something that it needs is missing.

    Returns:
        The two functions, to be assigned in the package's ``__init__.py``.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        check(name)
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names
