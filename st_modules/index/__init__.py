"""Collections as tables of vectors: built from files, searched by words and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_modules._imports import lazy_names

if TYPE_CHECKING:
    from st_modules.index.hits import Hit
    from st_modules.index.index import Index
    from st_modules.index.model_facts import IndexMismatchError
    from st_modules.index.vector_index import VectorIndexReport

__all__ = ["Hit", "Index", "IndexMismatchError", "VectorIndexReport"]

# LanceDB, and torch above all, take seconds to import.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Hit": "hits",
        "Index": "index",
        "IndexMismatchError": "model_facts",
        "VectorIndexReport": "vector_index",
    },
)
