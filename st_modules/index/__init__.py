"""Collections as tables of vectors: built from files, searched by words and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_modules._imports import lazy_names

if TYPE_CHECKING:
    from st_modules.index.building import build
    from st_modules.index.hits import Hit
    from st_modules.index.index import Index
    from st_modules.index.model_facts import IndexMismatchError
    from st_modules.index.ray_engine import RayOptions
    from st_modules.index.report import Report
    from st_modules.index.sources import SourceOptions, Sources
    from st_modules.index.table import IndexStorageError
    from st_modules.index.vector_index import VectorIndexReport

__all__ = [
    "Hit",
    "Index",
    "IndexMismatchError",
    "IndexStorageError",
    "RayOptions",
    "Report",
    "SourceOptions",
    "Sources",
    "VectorIndexReport",
    "build",
]

# LanceDB, and torch above all, take seconds to import.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Hit": "hits",
        "Index": "index",
        "IndexMismatchError": "model_facts",
        "IndexStorageError": "table",
        "RayOptions": "ray_engine",
        "Report": "report",
        "SourceOptions": "sources.options",
        "Sources": "sources.collection",
        "VectorIndexReport": "vector_index",
        "build": "building",
    },
)
