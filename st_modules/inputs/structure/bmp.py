"""BMP and DIB: Pillow decodes run lengths in Python."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from st_modules.inputs.structure.cost import Cost

_RUN_LENGTHS = (1, 2)
_SECONDS_PER_PIXEL_OF_RUNS, _SECONDS_PER_BYTE_OF_RUNS = 150e-9, 600e-9
_MEMORY_PER_PIXEL_OF_RUNS = 3


def add_bmp(stream: BinaryIO, cost: Cost, *, header: int) -> None:
    """Add what a bitmap takes.

    Args:
        stream: The file.
        cost: What it is added to.
        header: Where its header begins.

    Raises:
        ImageError: It is over a limit.
    """
    stream.seek(header)
    data = stream.read(20)
    if len(data) == 20 and data[:4] != b"\x0c\0\0\0":
        width, height = struct.unpack("<II", data[4:12])
        if data[11] == 0xFF:  # from the top downwards
            height = 2**32 - height
        compression = int.from_bytes(data[16:20], "little")
    elif len(data) >= 8:
        width, height = struct.unpack("<HH", data[4:8])
        compression = 0
    else:
        return
    cost.add_pixels(width, height)
    if compression in _RUN_LENGTHS:
        length = stream.seek(0, os.SEEK_END)
        cost.add_decoder_memory(width * height * _MEMORY_PER_PIXEL_OF_RUNS, "runs of pixels")
        seconds = width * height * _SECONDS_PER_PIXEL_OF_RUNS + length * _SECONDS_PER_BYTE_OF_RUNS
        cost.add_seconds(seconds, "runs of pixels")
