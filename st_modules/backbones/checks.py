"""Arguments that a backbone and a call of ``encode`` have in common, checked by their names."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, get_args

import torch

from st_modules.arguments import check_choice
from st_modules.errors import ArgumentError
from st_modules.prompts.templates import Side


def check_side(side: object) -> None:
    """Raise ``ArgumentError`` where something is no side of a search, which sentence-transformers calls a task."""
    check_choice("task", side, (*get_args(Side), None))


def refuse_backend(backend: object) -> None:
    """Raise ``ArgumentError`` for any backend of sentence-transformers but torch."""
    if backend != "torch":
        raise ArgumentError(
            f"backend={reprlib.repr(backend)}: these models run on the backend 'torch' alone. Leave it out."
        )


def refuse_options(options: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where an option of sentence-transformers is set that these models do not have."""
    if given := [name for name, value in options.items() if value]:
        raise ValueError(
            f"{', '.join(given)}: these models do not have this option. How images and long texts are prepared is "
            "decided by min_image_tokens, max_image_tokens, num_crops and max_length of SentenceTransformer."
        )


def check_device(device: Any) -> None:
    """Raise ``ArgumentError`` where something is no device that torch knows; ``None`` is sentence-transformers' choice.

    Whether there is such a device is not asked, which could set one up.
    """
    try:
        # A meta device has no memory: weights that are moved there are lost.
        known = device is None or torch.device(device).type != "meta"
    except (RuntimeError, TypeError):
        known = False
    if not known:
        raise ArgumentError(
            f"device={reprlib.repr(device)}: torch knows no such device here. Pass one like 'cpu', 'cuda' or 'cuda:1'."
        )
