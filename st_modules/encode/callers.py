"""A caller that is known to leave images out before it calls ``encode``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence

_MTEB_WRAPPER = "mteb.models.sentence_transformer_wrapper"


def refuse_left_out_images(inputs: Sequence[object]) -> None:
    """Raise ``ValueError`` where mteb has left the images out of what it passes on.

    ``mteb.evaluate`` puts a ``SentenceTransformer`` in memory behind a wrapper of its own, which describes it as a
    model of texts and keeps the texts of each row alone. It passes rows as dictionaries only where the task has
    something besides text, so that a row of nothing but a text there is what is left of one with an image.
    """
    # The frames are looked at because nothing else tells such a row from one that a caller means.
    if _MTEB_WRAPPER in sys.modules and _is_called_by_mteb() and all(_has_text_alone(value) for value in inputs):
        raise ValueError(
            "mteb takes a SentenceTransformer for a model of texts, and has left out the images of this task. Pass it "
            "st_modules.evaluate.wrap_model(model, name) in the place of the model; see docs/evaluation.md."
        )


def _has_text_alone(value: object) -> bool:
    return isinstance(value, dict) and value.keys() <= {"text"}


def _is_called_by_mteb() -> bool:
    frame = inspect.currentframe()
    while frame:
        if frame.f_globals.get("__name__") == _MTEB_WRAPPER:
            return True
        frame = frame.f_back
    return False
