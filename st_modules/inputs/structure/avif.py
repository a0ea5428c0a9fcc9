"""AVIF: its boxes are read by libavif; what counts are the pixels and the bytes."""

from __future__ import annotations

from typing import BinaryIO

from st_modules.inputs.structure.cost import Cost

_SECONDS_PER_PIXEL, _SECONDS_PER_BYTE = 25e-9, 46e-9
# The planes of the decoder, with film grain; the frame as an image of libavif; the same as bytes.
_MEMORY_PER_PIXEL = 10


def add_avif(stream: BinaryIO, cost: Cost) -> None:
    """Add what the first image of an AVIF takes, by the largest size that its properties name.

    Raises:
        ImageError: It is over a limit.
    """
    stream.seek(0)
    data = stream.read()
    width = height = 0
    place = data.find(b"ispe")
    while place >= 0:
        size = data[place + 8 : place + 16].ljust(8, b"\0")
        across, down = int.from_bytes(size[:4], "big"), int.from_bytes(size[4:], "big")
        # In the pixels' own bytes the same letters may stand by chance, where no size of an image follows.
        if across * down > width * height and max(across, down) <= 65536:
            width, height = across, down
        place = data.find(b"ispe", place + 4)
    cost.add_pixels(width, height)
    cost.add_memory(width * height * _MEMORY_PER_PIXEL, f"{width}x{height} pixels of AVIF")
    cost.add_seconds(width * height * _SECONDS_PER_PIXEL + len(data) * _SECONDS_PER_BYTE, "AVIF pixels")
