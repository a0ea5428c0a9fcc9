"""What errors say of an image: which one it is, and what went wrong with it."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from st_modules.errors import printable
from st_modules.inputs.image_forms import is_no_path, is_url
from st_modules.inputs.limits import ImageLimits


def describe(source: object, limits: ImageLimits) -> str:
    """Return a source in few words, without its data and without a password."""
    if isinstance(source, (bytes, bytearray)):
        return f"{len(source)} bytes"
    if isinstance(source, str) and source[:5].lower() == "data:":
        return f"data URI {printable(_shorten(source, 40))}"
    if isinstance(source, (str, Path)) and not is_url(str(source)) and is_no_path(str(source), limits):
        return f"string of {len(str(source))} characters"
    if isinstance(source, (str, Path)):
        return printable(_shorten(re.sub(r"(?<=//)[^/]*@", "***@", str(source)), 200))
    return f"object of type {type(source).__name__}"


def explain(error: Exception) -> str:
    """Return what a built-in exception means for the user."""
    if isinstance(error, FileNotFoundError):
        return "no such file; check the path (~ is not expanded)"
    if isinstance(error, PermissionError):
        return "no permission to read it; change the file's permissions"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it; shrink the image"
    if isinstance(error, Image.DecompressionBombError):
        return "over Pillow's own limit of pixels; shrink the image"
    detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"damaged or not readable ({_shorten(detail, 200)}); save or download it again"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"
