"""WebP: Pillow decodes every one as an animation, with canvases of its own."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from st_modules.inputs.structure.cost import Cost

_SECONDS_PER_CHUNK = 1e-6
_SECONDS_PER_PIXEL, _SECONDS_PER_BYTE = 10e-9, 45e-9
_SECONDS_PER_LOSSLESS_PIXEL, _SECONDS_PER_LOSSLESS_BYTE = 25e-9, 8e-9
# Two canvases and the frame as bytes.
_MEMORY_PER_PIXEL = 12


def add_webp(stream: BinaryIO, cost: Cost) -> None:
    """Add what the first frame of a WebP takes.

    Raises:
        ImageError: It is over a limit.
    """
    stream.seek(12)
    size: tuple[int, int] | None = None
    while len(head := stream.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        cost.add_seconds(_SECONDS_PER_CHUNK, "WebP chunks")
        start = stream.tell()
        if kind == b"ANMF":
            stream.seek(16, os.SEEK_CUR)
            kind, length = struct.unpack("<4sI", stream.read(8).ljust(8, b"\0"))
        data = stream.read(10)
        if size is None and (size := _read_size(kind, data)):
            width, height = size
            cost.add_pixels(width, height)
            cost.add_memory(width * height * _MEMORY_PER_PIXEL, f"{width}x{height} pixels of WebP")
        if kind in (b"VP8 ", b"VP8L", b"ALPH") and size:
            _add_frame(kind, size[0] * size[1], length, cost)
            return
        stream.seek(start + struct.unpack("<I", head[4:])[0] + (head[4] & 1))


def _read_size(kind: bytes, data: bytes) -> tuple[int, int] | None:
    if len(data) < 10:
        return None
    if kind == b"VP8X":
        return int.from_bytes(data[4:7], "little") + 1, int.from_bytes(data[7:10], "little") + 1
    if kind == b"VP8 ":
        return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _add_frame(kind: bytes, pixels: int, length: int, cost: Cost) -> None:
    if kind == b"VP8L":
        seconds = pixels * _SECONDS_PER_LOSSLESS_PIXEL + length * _SECONDS_PER_LOSSLESS_BYTE
    elif kind == b"ALPH":  # lossless alpha, and lossy colours
        seconds = pixels * (_SECONDS_PER_PIXEL + _SECONDS_PER_LOSSLESS_PIXEL) + length * _SECONDS_PER_LOSSLESS_BYTE
    else:
        seconds = pixels * _SECONDS_PER_PIXEL + length * _SECONDS_PER_BYTE
    cost.add_seconds(seconds, "WebP pixels")
