"""PNG and APNG: chunks, what they inflate to, and the rows of pixels."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from st_modules.inputs.structure.cost import Cost

# Pillow walks all chunks of a file three times: when it opens it, checks it, and decodes it.
_SECONDS_PER_CHUNK = 20e-6
_SECONDS_PER_BYTE_OF_ROWS = 6e-9
# What Pillow inflates a chunk of text to at most, how much deflate can, and how long a byte of it takes.
_MOST_TEXT, _MOST_DEFLATED = 2**20, 1032
_SECONDS_PER_BYTE_OF_TEXT, _MEMORY_PER_BYTE_OF_TEXT = 8e-9, 11
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def add_png(stream: BinaryIO, cost: Cost, *, whole: bool) -> None:
    """Add what a PNG takes.

    Args:
        stream: The file.
        cost: What it is added to.
        whole: Whether the chunks from the pixels on count too, which are read only where the pixels are decoded.

    Raises:
        ImageError: It is over a limit.
    """
    stream.seek(8)
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        cost.add_seconds(_SECONDS_PER_CHUNK, "PNG chunks")
        if kind == b"IEND" or (kind == b"IDAT" and not whole):
            return
        skipped = length + 4
        if kind == b"IHDR":
            header = stream.read(10)
            skipped -= len(header)
            _add_rows(header, cost)
        elif kind in (b"iCCP", b"zTXt", b"iTXt"):
            inflated = min(_MOST_TEXT, length * _MOST_DEFLATED)
            cost.add_seconds(inflated * _SECONDS_PER_BYTE_OF_TEXT, "compressed texts")
            # As UTF-8 it becomes a str of up to four bytes a character.
            cost.add_memory(inflated if kind == b"iCCP" else 5 * inflated, "compressed texts")
            if kind == b"iTXt":  # may be plain, and is then copied with what stands before it
                cost.add_memory(length * _MEMORY_PER_BYTE_OF_TEXT, "texts")
        stream.seek(max(skipped, 0), os.SEEK_CUR)


def _add_rows(header: bytes, cost: Cost) -> None:
    if len(header) < 10:
        return
    width, height, bits, colour = struct.unpack(">IIBB", header)
    cost.add_pixels(width, height)
    row = (width * bits * _CHANNELS.get(colour, 4) + 7) // 8
    cost.add_decoder_memory(2 * row, f"rows of {width} pixels")  # one, and the one before it
    cost.add_seconds(height * row * _SECONDS_PER_BYTE_OF_ROWS, f"{width}x{height} pixels of {bits} bits a channel")
