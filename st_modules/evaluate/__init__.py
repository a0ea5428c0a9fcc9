"""Evaluation with mteb: the catalog's models as mteb models, and the benchmarks of the models' papers.

It needs ``pip install "st-modules[eval]"``. Names are imported at first use, because mteb takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from st_modules._imports import lazy_names
from st_modules.errors import MissingExtraError

if TYPE_CHECKING:
    from st_modules.evaluate.benchmarks import BENCHMARKS, Entry, Suite, UnknownBenchmarkError, open_benchmark
    from st_modules.evaluate.files import BenchmarkDataError
    from st_modules.evaluate.folder import FolderTask
    from st_modules.evaluate.models import MTEBModel, load_model, model_meta, wrap_model
    from st_modules.evaluate.report import Report, compare
    from st_modules.evaluate.run import Outcome, collect, evaluate
    from st_modules.evaluate.umrb import UMRB, umrb_benchmark

__all__ = [
    "BENCHMARKS",
    "UMRB",
    "BenchmarkDataError",
    "Entry",
    "FolderTask",
    "MTEBModel",
    "Outcome",
    "Report",
    "Suite",
    "UnknownBenchmarkError",
    "collect",
    "compare",
    "evaluate",
    "load_model",
    "model_meta",
    "open_benchmark",
    "umrb_benchmark",
    "wrap_model",
]


def _check(name: str) -> None:
    try:
        importlib.import_module("mteb")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f'Evaluation needs {error.name}, on Python 3.11 or newer: pip install "st-modules[eval]"'
        ) from error


__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "BENCHMARKS": "benchmarks",
        "BenchmarkDataError": "files",
        "Entry": "benchmarks",
        "FolderTask": "folder",
        "MTEBModel": "models",
        "Outcome": "run",
        "Report": "report",
        "Suite": "benchmarks",
        "UMRB": "umrb",
        "UnknownBenchmarkError": "benchmarks",
        "collect": "run",
        "compare": "report",
        "evaluate": "run",
        "load_model": "models",
        "model_meta": "models",
        "open_benchmark": "benchmarks",
        "umrb_benchmark": "umrb",
        "wrap_model": "models",
    },
    _check,
)
