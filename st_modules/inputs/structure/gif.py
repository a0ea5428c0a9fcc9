"""GIF: the blocks before the first frame, and its size; the other frames are not read."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from st_modules.inputs.structure.cost import Cost

_SECONDS_PER_BLOCK = 1e-6
_SECONDS_PER_BYTE, _SECONDS_PER_PIXEL = 5e-9, 6e-9
_COMMENT, _APPLICATION = 0xFE, 0xFF


def add_gif(stream: BinaryIO, cost: Cost) -> None:
    """Add what the first frame of a GIF takes.

    Raises:
        ImageError: It is over a limit.
    """
    stream.seek(6)
    screen = stream.read(7)
    if len(screen) < 7:
        return
    width, height, flags = struct.unpack("<HHB", screen[:5])
    if flags & 128:
        stream.seek(3 << (flags & 7) + 1, os.SEEK_CUR)
    while (kind := stream.read(1)) not in (b"", b";"):
        cost.add_seconds(_SECONDS_PER_BLOCK, "GIF blocks")
        if kind == b"!":
            _skip_extension(stream, cost)
        elif kind == b"," and len(place := stream.read(8)) == 8:
            left, top, across, down = struct.unpack("<HHHH", place)
            width, height = max(width, left + across), max(height, top + down)  # as Pillow makes room for it
            break
    cost.add_pixels(width, height)
    cost.add_seconds(width * height * _SECONDS_PER_PIXEL, f"{width}x{height} pixels")
    start = stream.tell()
    cost.add_seconds((stream.seek(0, os.SEEK_END) - start) * _SECONDS_PER_BYTE, "bytes")


def _skip_extension(stream: BinaryIO, cost: Cost) -> None:
    """Skip an extension by Pillow's own rules, under which an empty block does not end every one."""
    label = stream.read(1)
    block = _read_block(stream, cost)
    if label == bytes([_COMMENT]):
        while block:
            block = _read_block(stream, cost)
        return
    if label == bytes([_APPLICATION]) and block.startswith(b"NETSCAPE2.0"):
        _read_block(stream, cost)
    while _read_block(stream, cost):
        pass


def _read_block(stream: BinaryIO, cost: Cost) -> bytes:
    cost.add_seconds(_SECONDS_PER_BLOCK, "GIF blocks")
    length = stream.read(1)
    return stream.read(length[0]) if length and length[0] else b""
