"""Names that are imported at first use, and packages that an extra of the distribution brings."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from st_modules.errors import MissingExtraError


def lazy_names(
    package: str, homes: Mapping[str, str], check: Callable[[str], object] = lambda name: None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and the ``__dir__`` of a package (PEP 562).

    Args:
        package: Its ``__name__``.
        homes: Each name and the package's module that defines it. They are in the package's ``__all__``, which is what
            ``dir()`` shows of it.
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
        return sorted(sys.modules[package].__all__)

    return get, names


def require(package: str, extra: str) -> None:
    """Make sure that a package can be imported.

    Args:
        package: Its import name.
        extra: The extra of st-modules that brings it.

    Raises:
        MissingExtraError: It is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(f'This needs {package}: pip install "st-modules[{extra}]"')


def import_extra(module: str, extra: str) -> ModuleType:
    """Import a module of a package that an extra brings.

    Args:
        module: Its name, the package's first.
        extra: The extra of st-modules that brings the package.

    Raises:
        MissingExtraError: The package is not installed.
    """
    require(module.partition(".")[0], extra)
    return importlib.import_module(module)
