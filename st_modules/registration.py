"""The catalog's names in sentence-transformers' own class, for code that constructs it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentence_transformers

from st_modules.catalog import find_model, names_folder
from st_modules.checkpoints.recognise import recognise
from st_modules.model import SentenceTransformer


def register() -> None:
    """Teach the catalog's names to ``sentence_transformers.SentenceTransformer`` itself.

    For code that constructs its own, such as other libraries' integrations. Afterwards the plain class, called
    with one of the catalog's names, builds a :class:`SentenceTransformer` of this package; any other name, and
    every other class, is untouched. Calling it again changes nothing; :func:`unregister` takes it back.
    """
    plain = sentence_transformers.SentenceTransformer
    original = plain.__init__
    if hasattr(original, "_st_modules_original"):
        return

    @functools.wraps(original)
    def construct(self: Any, model_name_or_path: str | None = None, *args: Any, **kwargs: Any) -> None:
        build: Callable[..., None] = original
        if type(self) is plain and model_name_or_path and _is_of_catalog(str(model_name_or_path)):
            self.__class__ = SentenceTransformer
            build = SentenceTransformer.__init__
        build(self, model_name_or_path, *args, **kwargs)

    construct._st_modules_original = original  # type: ignore[attr-defined]
    plain.__init__ = construct


def unregister() -> None:
    """Take :func:`register` back; calling it without that changes nothing."""
    plain = sentence_transformers.SentenceTransformer
    plain.__init__ = getattr(plain.__init__, "_st_modules_original", plain.__init__)


def _is_of_catalog(name: str) -> bool:
    return bool(recognise(Path(name)) if names_folder(name) else find_model(name))
