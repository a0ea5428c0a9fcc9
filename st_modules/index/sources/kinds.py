"""What a file is read as: by its name, and a picture under any name that is no other kind's."""

from __future__ import annotations

import posixpath
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

from st_modules.files.kinds import kind_by_name

Kind: TypeAlias = Literal["picture", "text", "pdf", "jsonl", "csv", "parquet", "tar", "dataset"]

ITEMS: frozenset[Kind] = frozenset({"picture", "text", "pdf"})
"""What is read of a folder: tables and archives are collections of their own, and are passed by name."""

TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown"})
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
HEAD_BYTES = 4096
"""As much as tells what a file holds."""


def find_kind(source: str) -> Kind | None:
    """What a file is by its name; ``None`` where that does not tell."""
    # The separator is that of URLs too, and of every system that tests run on.
    name = posixpath.basename(source).lower()
    if name.endswith(TAR_SUFFIXES):
        return "tar"
    return _kind_by_suffix(posixpath.splitext(name)[1])


# Of a million files the suffixes are few.
@lru_cache
def _kind_by_suffix(suffix: str) -> Kind | None:
    if suffix in TEXT_SUFFIXES:
        return "text"
    kind = kind_by_name(Path(f"name{suffix}"))
    return None if kind == "text" else "picture" if kind == "image" else kind


def is_hidden(source: str) -> bool:
    """Whether a file is one that systems and tools keep for themselves, such as ``.DS_Store``."""
    return posixpath.basename(source).startswith(".")
