"""Decoding the file of an image: its format, what that costs, its header and its pixels."""

from __future__ import annotations

import codecs
from typing import BinaryIO

from PIL import Image, ImageFile

from st_modules.errors import ImageError
from st_modules.inputs.formats import FORMATS, is_base64_of_image
from st_modules.inputs.image_conversion import MODES_CUT_AT_255, MODES_TO_RGB
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.pixel_budget import PIXELS
from st_modules.inputs.structure.check import estimate_cost
from st_modules.inputs.structure.cost import Cost, check_pixels

# Formats whose reader lets go of the file once a still picture is decoded.
_LET_GO = frozenset({"JPEG", "PNG"})


def decode(stream: BinaryIO, limits: ImageLimits) -> Image.Image:
    """Return the image of a file, in its own mode, once the process's budget has room for it.

    Raises:
        ImageError: It is no image that can be read, or over a limit.
        Exception: Its data is damaged; Pillow's decoders raise nearly every built-in exception on that.
    """
    name, cost = examine(stream, limits, whole=True)
    if name == "PNG":
        open_header(name, stream, limits).verify()  # every checksum; decoding skips the pixels' and shows damaged ones
    image = open_header(name, stream, limits)
    with PIXELS.hold(cost.pixel_bytes + cost.memory):
        if name not in _LET_GO:
            return image.copy()
        image.load()
    return image.copy() if image.fp else image


def examine(stream: BinaryIO, limits: ImageLimits, *, whole: bool = False) -> tuple[str, Cost]:
    """Find a file's format, and what decoding it costs; ``whole`` is whether it is going to be decoded.

    Raises:
        ImageError: It is no image that can be read, or over a limit.
    """
    name = find_format(stream)
    return name, estimate_cost(stream, name, limits, whole=whole)


def find_format(stream: BinaryIO) -> str:
    """Return Pillow's name of a file's format; raises ``ImageError`` where it is none of those that are read."""
    Image.init()
    stream.seek(0)
    prefix = stream.read(64)
    for name in FORMATS:
        _, accept = Image.OPEN.get(name, (None, None))
        if accept and accept(prefix.ljust(4, b"\0")) is True:  # DIB's reads four bytes that must be there
            return name
    if is_base64_of_image(prefix.decode("latin-1")):
        raise ImageError("base64 text, and not the image itself; decode it, or write it as data:image/png;base64,...")
    if prefix.lstrip().startswith(b"<"):
        raise ImageError("HTML, XML or SVG text, not a raster image; check that the address is the image's own")
    hint = ". It begins as a text does: pass a text, or a data URI, as str" if _is_text(prefix) else ""
    raise ImageError(
        f"not an image that can be read, whatever its name says; convert it to one of {', '.join(FORMATS)}{hint}"
    )


def open_header(name: str, stream: BinaryIO, limits: ImageLimits) -> ImageFile.ImageFile:
    """Read a header as Image.open does, but without Pillow's own limit, which warns where ours decides.

    Args:
        name: Pillow's name of the format.
        stream: The file.
        limits: What the image may cost.

    Raises:
        ImageError: As :func:`check_header`.
    """
    factory, _ = Image.OPEN[name]
    stream.seek(0)
    image = factory(stream, "")
    check_header(image, limits)
    return image


def check_header(image: Image.Image, limits: ImageLimits) -> None:
    """Raise ``ImageError`` where an image has no pixels, too many, or a mode that does not convert to RGB."""
    width, height = image.size
    if not width or not height:
        raise ImageError(f"{width}x{height} pixels; leave the image out")
    check_pixels(width, height, limits)
    if image.mode not in MODES_TO_RGB | MODES_CUT_AT_255:
        raise ImageError(
            f"mode {image.mode!r} does not convert to RGB faithfully; scale its values to 0..255 as 8-bit RGB first"
        )


def _is_text(beginning: bytes) -> bool:
    """Whether bytes are text; the last character may be cut off."""
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(beginning)
    return "\ufffd" not in text and all(character.isprintable() or character.isspace() for character in text)
