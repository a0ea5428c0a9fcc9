"""Collections as tables of vectors: built from files, searched by words and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_modules._imports import lazy_names

if TYPE_CHECKING:
    from st_modules.index.building import build
    from st_modules.index.model_facts import IndexMismatchError
    from st_modules.index.report import Report
    from st_modules.index.table import IndexStorageError

__all__ = ["IndexMismatchError", "IndexStorageError", "Report", "build"]

# torch and LanceDB take seconds to import, so what needs them is imported at first use.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "IndexMismatchError": "model_facts",
        "IndexStorageError": "table",
        "Report": "report",
        "build": "building",
    },
)
