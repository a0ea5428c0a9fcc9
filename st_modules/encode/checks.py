"""What a call of ``encode`` asks for, checked before anything is read or computed."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, cast

from st_modules.arguments import check_choice, check_flag, check_integer, check_optional_integer, check_truncation
from st_modules.backbones.base import Backbone
from st_modules.backbones.checks import check_device, check_side
from st_modules.errors import ArgumentError
from st_modules.prompts.checks import check_prompt


def check_call(backbone: Backbone, dimension: int, arguments: Mapping[str, Any]) -> None:
    """Check the arguments of a call.

    Args:
        backbone: The model's.
        dimension: Length of the model's embeddings before they are truncated.
        arguments: The arguments of ``encode`` by their names, with its defaults.

    Raises:
        ArgumentError: One has a value that it cannot have.
        InputError: The prompt has a character that no tokenizer can read.
    """
    check_integer("batch_size", arguments["batch_size"])
    check_optional_integer("chunk_size", arguments["chunk_size"])
    for name in ("normalize_embeddings", "convert_to_numpy", "convert_to_tensor"):
        check_flag(name, arguments[name])
    if arguments["show_progress_bar"] is not None:
        check_flag("show_progress_bar", arguments["show_progress_bar"])
    check_choice("output_value", arguments["output_value"], ("sentence_embedding", "token_embeddings", None))
    if arguments["output_value"] == "token_embeddings" and not backbone.has_token_embeddings:
        raise ArgumentError("output_value='token_embeddings': this model embeds text and images apart and has none.")
    if arguments["output_value"] is None and arguments["precision"] not in ("float32", None):
        raise ArgumentError(
            f"precision={reprlib.repr(arguments['precision'])}: with output_value=None an embedding comes in a "
            "dictionary, in float32. Leave one of the two out."
        )
    check_truncation(arguments["truncate_dim"], dimension)
    check_side(arguments["kwargs"].get("task"))
    check_prompt(arguments["prompt"])
    device = arguments["device"]
    for each in cast("list[Any]", device) if device and isinstance(device, list) else [device]:
        check_device(each)
