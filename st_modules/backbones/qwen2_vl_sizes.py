"""Which size the authors of models on Qwen2-VL and Qwen3-VL give a picture, in pixels.

A rule is called with height, width, what both sides become multiples of, and the fewest and the most pixels, and
returns height and width. It raises ``ValueError`` where a picture is too elongated for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

Resize: TypeAlias = Callable[[int, int, int, int, int], tuple[int, int]]

MAX_ASPECT_RATIO = 200
MOST_TOKENS = 16384
"""The most tokens of an image in the published models, which the smallest image cannot be asked to exceed."""
_SIDE = 28
_QWEN2_BOUNDS = (_SIDE, 4 * _SIDE**2, MOST_TOKENS * _SIDE**2)
"""Side of a token, fewest and most pixels of an image, as qwen-vl-utils has them for Qwen2-VL."""


def qwen_vl_utils_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: float) -> tuple[int, int]:
    """Return the size that the package qwen-vl-utils gives an image or a frame.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        factor: What both sides become multiples of.
        min_pixels: Fewest pixels.
        max_pixels: Most pixels.

    Returns:
        Height and width in pixels.

    Raises:
        ValueError: The aspect ratio is above 200, or too large for a side to be left.
    """
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ValueError(f"the aspect ratio is above {MAX_ASPECT_RATIO}")
    return round_to_factor(height, width, factor, min_pixels, max_pixels)


def round_to_factor(height: int, width: int, factor: int, min_pixels: int, max_pixels: float) -> tuple[int, int]:
    """Return both sides as the nearest multiples of a factor, at least one each, the area within some bounds.

    The rule of qwen-vl-utils for pictures of any aspect ratio, as the author of vdr has it.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        factor: What both sides become multiples of.
        min_pixels: Fewest pixels.
        max_pixels: Most pixels.

    Returns:
        Height and width in pixels.

    Raises:
        ValueError: The aspect ratio is too large for a side to be left.
    """
    new_height, new_width = (max(factor, round(length / factor) * factor) for length in (height, width))
    if new_height * new_width > max_pixels:
        scale = math.sqrt(height * width / max_pixels)
        new_height, new_width = (math.floor(length / scale / factor) * factor for length in (height, width))
    elif new_height * new_width < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        new_height, new_width = (math.ceil(length * scale / factor) * factor for length in (height, width))
    if not new_height or not new_width:
        raise ValueError(f"too elongated for {int(max_pixels // factor**2)} tokens")
    return new_height, new_width


def round_and_clamp(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return what :func:`round_to_factor` does, the longer side cut to 200 times the other.

    The rule of the scripts of GME, Ops-MM-embedding and RzenEmbed, which differ in the bounds.
    """
    height, width = round_to_factor(height, width, factor, min_pixels, max_pixels)
    return min(height, width * MAX_ASPECT_RATIO), min(width, height * MAX_ASPECT_RATIO)


def vlm2vec_v2_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the size that VLM2Vec-V2's image processor gives an image or a frame.

    The rule of Qwen2-VL's, but what is too small or too elongated for that becomes a square of its longer side.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        factor: What both sides become multiples of.
        min_pixels: Fewest pixels.
        max_pixels: Most pixels.

    Returns:
        Height and width in pixels.
    """
    short, long = sorted((height, width))
    if short < factor or long / short > MAX_ASPECT_RATIO:
        height = width = max(factor, long)
    return smart_resize(height, width, factor, min_pixels, max_pixels)


def _with_qwen2_bounds(rule: Resize) -> Resize:
    """A rule with the bounds that Qwen2-VL's own script has, whatever those of the model are."""
    return lambda height, width, *_: rule(height, width, *_QWEN2_BOUNDS)


def _enlarge_specks(height: int, width: int, *_: int) -> tuple[int, int]:
    """What VLM2Vec's evaluation makes 56x56, where a side is under 28 pixels; else its own size."""
    return (56, 56) if min(height, width) < _SIDE else (height, width)


FIRST_RESIZES: dict[str, Resize] = {
    "gme": _with_qwen2_bounds(round_and_clamp),
    "ops_mm": round_and_clamp,
    "qwen_vl_utils": _with_qwen2_bounds(qwen_vl_utils_resize),
    "vdr": round_to_factor,
    "vlm2vec": _enlarge_specks,
}
"""Those that come before the image processor's own, by the names that models are saved with."""
RESIZES: dict[str, Resize] = {
    "qwen_vl_utils": qwen_vl_utils_resize,
    "vlm2vec_v2": vlm2vec_v2_resize,
}
"""Those that take its place."""
