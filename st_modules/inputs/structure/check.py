"""Adds up what decoding a file costs, by its format."""

from __future__ import annotations

from typing import BinaryIO

from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.structure.avif import add_avif
from st_modules.inputs.structure.bmp import add_bmp
from st_modules.inputs.structure.cost import Cost
from st_modules.inputs.structure.gif import add_gif
from st_modules.inputs.structure.jpeg import add_jpeg
from st_modules.inputs.structure.png import add_png
from st_modules.inputs.structure.ppm import add_ppm
from st_modules.inputs.structure.tiff import add_tiff
from st_modules.inputs.structure.webp import add_webp

_LENGTH_OF_BMP_HEADER = 14


def estimate_cost(stream: BinaryIO, name: str, limits: ImageLimits, *, whole: bool) -> Cost:
    """Return what decoding an image takes, as the structure of its file says; nothing is decoded.

    A damaged file is Pillow's to refuse: what can be read of it counts.

    Args:
        stream: The file, which is left at any position.
        name: Pillow's name of its format.
        limits: What the image may cost.
        whole: Whether all of it is going to be read, and not only its header.

    Raises:
        ImageError: It is over a limit.
    """
    cost = Cost(limits)
    match name:
        case "PNG":
            add_png(stream, cost, whole=whole)
        case "JPEG" | "MPO":
            add_jpeg(stream, cost, whole=whole)
        case "GIF":
            add_gif(stream, cost)
        case "WEBP":
            add_webp(stream, cost)
        case "BMP":
            add_bmp(stream, cost, header=_LENGTH_OF_BMP_HEADER)
        case "DIB":
            add_bmp(stream, cost, header=0)
        case "TIFF":
            add_tiff(stream, cost)
        case "PPM":
            add_ppm(stream, cost)
        case "AVIF":
            add_avif(stream, cost)
        case _:
            pass  # opened by the caller, with a reader of the caller's choice
    return cost
