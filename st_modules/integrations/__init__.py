"""Models behind the interfaces of other libraries, and embedding functions for stores.

``LanceDBEmbeddings`` is imported where LanceDB is installed (``pip install "st-modules[index]"``), ``ChromaEmbeddings``
where Chroma is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_modules._imports import lazy_names, require

if TYPE_CHECKING:
    from st_modules.integrations.chroma import ChromaEmbeddings
    from st_modules.integrations.lancedb_registry import LanceDBEmbeddings

__all__ = ["ChromaEmbeddings", "LanceDBEmbeddings"]


def _check(name: str) -> None:
    if name == "LanceDBEmbeddings":
        require("lancedb", extra="index")


__getattr__, __dir__ = lazy_names(
    __name__, {"ChromaEmbeddings": "chroma", "LanceDBEmbeddings": "lancedb_registry"}, _check
)
