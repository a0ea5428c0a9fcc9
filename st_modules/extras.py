"""Packages that only a part of st_modules needs, which an extra of the distribution brings."""

from __future__ import annotations

import importlib.util

from st_modules.errors import MissingExtraError


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
