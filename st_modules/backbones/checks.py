"""Arguments that a backbone and a call of ``encode`` have in common, checked by their names."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch

from st_modules.arguments import check_choice
from st_modules.catalog import list_models
from st_modules.errors import ArgumentError, InputError
from st_modules.inputs.items import Item, check_text
from st_modules.prompts.templates import TEMPLATES, Side


def check_side(side: object) -> None:
    """Raise ``ArgumentError`` where something is no side of a search, which sentence-transformers calls a task."""
    check_choice("task", side, (*get_args(Side), None))


def check_prompt(prompt: object) -> None:
    """Raise where something cannot be an instruction.

    Raises:
        ArgumentError: It is neither a string nor ``None``.
        InputError: It has a character that no tokenizer can read.
    """
    if prompt is None:
        return
    if not isinstance(prompt, str):
        raise ArgumentError(f"prompt={reprlib.repr(prompt)}: pass a string.")
    check_text(prompt, "the prompt")


def refuse_videos(items: Sequence[Item]) -> None:
    """Raise ``InputError`` where an item has a video; the error names it, and the models that take videos."""
    for item in items:
        if item.video is not None:
            names = [spec.name for spec in list_models() if TEMPLATES[spec.options["template"]].takes_video]
            raise InputError(f"this model takes no video; {', '.join(names[:-1])} and {names[-1]} do", item.place)


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
