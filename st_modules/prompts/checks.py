"""What a layout cannot take, told before anything is laid out."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

from st_modules.catalog import list_models
from st_modules.errors import ArgumentError, InputError
from st_modules.inputs.items import Item, check_text
from st_modules.prompts.templates import TEMPLATES


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
