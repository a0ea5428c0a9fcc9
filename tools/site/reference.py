"""The pages of the API reference: the names that the packages export, and docstrings as Markdown.

mkdocs' hook writes the pages with it, and mkdocstrings loads it as an extension of griffe.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[2]
# What docs/architecture.md calls public.
PACKAGES = (
    "st_modules",
    "st_modules.integrations",
    "st_modules.index",
    "st_modules.serve",
    "st_modules.train",
    "st_modules.megapairs",
    "st_modules.evaluate",
    "langchain_gme",
    "llamaindex_gme",
)
_ROLE = re.compile(r":(?:class|func|meth):`([^`]+)`")


def write_page(package: str) -> str:
    """Write a package's page for mkdocstrings: what it is for, then what it exports, name by name."""
    options = ("members: false", "show_root_heading: false", "show_root_toc_entry: false")
    about = "\n      ".join([f"::: {package}\n    options:", *options])
    return "\n\n".join([f"# {package}", about, *(f"::: {package}.{name}" for name in EXPORTS[package])])


def read_exports(package: str) -> list[str]:
    """Read the names in a package's `__all__`, without importing it."""
    source = (ROOT.joinpath(*package.split(".")) / "__init__.py").read_text(encoding="utf-8")
    (names,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return names


EXPORTS = {package: read_exports(package) for package in PACKAGES}


def to_markdown(docstring: str, package: str) -> str:
    """Turn what Sphinx would read in a docstring into Markdown, and what mkdocstrings would not see into what it does.

    Args:
        docstring: Its text.
        package: The package that it is in, whose exported names need no package before them.
    """

    def link(role: re.Match[str]) -> str:
        home, _, name = role[1].rpartition(".")
        home = home or package
        return f"[`{role[1]}`][{home}.{name}]" if name in EXPORTS.get(home, ()) else f"`{role[1]}`"

    return re.sub(r"^Example:$", "Examples:", _ROLE.sub(link, docstring), flags=re.MULTILINE)


class Docstrings(griffe.Extension):
    """Lets griffe read every docstring as Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of what was loaded."""
        if obj.docstring:
            home = max((each for each in PACKAGES if f"{obj.path}.".startswith(f"{each}.")), key=len)
            obj.docstring.value = to_markdown(obj.docstring.value, home)
