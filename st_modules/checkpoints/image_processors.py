"""``preprocessor_config.json``: how pictures become pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from PIL.Image import Resampling
from transformers import BaseImageProcessor

from st_modules.checkpoints.configuration import CONFIG
from st_modules.checkpoints.fields import (
    FLAG,
    OBJECT,
    Kind,
    check_fields,
    each,
    either,
    exactly,
    is_number,
    number,
    optional,
    whole,
)
from st_modules.checkpoints.json_files import read_json
from st_modules.errors import CheckpointError, in_one_line

PREPROCESSOR_CONFIG = "preprocessor_config.json"
_PROCESSOR_CONFIG = "processor_config.json"
"""Where transformers looks first."""
_SIZES = {"size": ("shortest_edge", "longest_edge"), "crop_size": ("height", "width")}

Processor = TypeVar("Processor", bound=BaseImageProcessor)

_SIDE = whole(1, 10**12)
_SIZE = either(OBJECT, _SIDE, each(_SIDE, 1, 2))
_MEAN, _DEVIATION = number(-1e6, 1e6), number(0, 1e6)
_FIELDS: dict[str, Kind] = {
    **dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), FLAG),
    **dict.fromkeys(("do_center_crop", "do_convert_rgb", "do_pad"), optional(FLAG)),
    "image_mean": optional(either(_MEAN, each(_MEAN, 1, 3))),
    "image_std": optional(either(_DEVIATION, each(_DEVIATION, 1, 3))),
    "resample": whole(min(Resampling), max(Resampling)),
    "rescale_factor": number(0, 1e6),
    "data_format": optional(exactly("channels_first")),
    "input_data_format": exactly(None),
}


def load_image_processor(
    processor_class: type[Processor], folder: Path, needed: Mapping[str, Kind] | None = None
) -> Processor:
    """Read an image processor's settings from a checkpoint.

    Args:
        processor_class: The PIL-based class of the processor, named so that no other installed backend is picked.
        folder: Folder with ``preprocessor_config.json``.
        needed: What the model needs of settings; a size is named ``crop_size.height``.

    Raises:
        CheckpointError: The file is missing or cannot be read, pixels cannot be normalised by what it says, or a
            setting has a value that it cannot have, at all or with the model.
    """
    path, content = _read_settings(folder)
    # A setting that has the name of a method would take its place.
    if methods := sorted(name for name in content if callable(getattr(processor_class, name, None))):
        raise CheckpointError(f"{path}: {methods[0]} is no setting of an image processor.")
    check_fields(path, content, dict.fromkeys(_SIZES, optional(_SIZE)))
    try:
        processor = processor_class.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise _unreadable(folder, in_one_line(error)) from error
    if problem := describe_statistics(processor):
        raise CheckpointError(f"{path}: {problem}")
    check_fields(path, _list_settings(processor), {**_FIELDS, **(needed or {})})
    return processor


def square_settings(config: Any) -> dict[str, Kind]:
    """Return what a vision tower that sees squares needs: pictures that are scaled by little more than to its side."""
    side = config.vision_config.image_size
    cropped = exactly(side, f", as image_size in {CONFIG},")
    return {
        "do_resize": exactly(True),
        "size.shortest_edge": whole(1, 4 * side),
        "crop_size.height": cropped,
        "crop_size.width": cropped,
    }


def describe_statistics(processor: Any) -> str | None:
    """Say what is wrong with the numbers by which an image processor normalises pixels; ``None`` where nothing is."""
    if not processor.do_normalize:
        return None
    channels = {"image_mean": processor.image_mean, "image_std": processor.image_std}
    for name, values in channels.items():
        numbers = values if isinstance(values, list | tuple) else [values]
        if len(numbers) not in (1, 3) or not all(_is_finite(number) for number in numbers):
            return f"{name}={values}, and three finite numbers are needed, one a channel."
    if not np.all(processor.image_std):
        return f"image_std={processor.image_std}, by which pixels are divided."
    if not _is_finite(processor.rescale_factor):
        return f"rescale_factor={processor.rescale_factor}, and a finite number is needed."
    return None


def _is_finite(number: object) -> bool:
    return is_number(number) and math.isfinite(cast(float, number))


def _read_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the settings as transformers will find them, and the file that they are in."""
    nested, own = folder / _PROCESSOR_CONFIG, folder / PREPROCESSOR_CONFIG
    if nested.exists():
        content = read_json(nested)
        check_fields(nested, content, {"image_processor": OBJECT})
        if "image_processor" in content:
            return nested, content["image_processor"]
    if not own.exists():
        raise _unreadable(folder, "no such file")
    return own, read_json(own)


def _unreadable(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{folder}: {PREPROCESSOR_CONFIG} is missing or cannot be read: {reason}")


def _list_settings(processor: Any) -> dict[str, Any]:
    """Return a processor's settings, and those of its sizes by names of their own."""
    # Those of the class itself are members of an enumeration.
    settings = {name: int(value) if isinstance(value, Resampling) else value for name, value in vars(processor).items()}
    for name, keys in _SIZES.items():
        size = settings.get(name)
        settings |= {f"{name}.{key}": getattr(size, key, None) for key in keys}
    return settings
