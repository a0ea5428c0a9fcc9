"""How long video files say that they are, which FFmpeg does not hold them to."""

from __future__ import annotations

import os
from typing import BinaryIO

from st_modules.errors import VideoError

_SEGMENT = b"\x18\x53\x80\x67"
_HEAD = 4096


def check_length(stream: BinaryIO, name: str) -> None:
    """Make sure that a file does not end before it says so: what is left of it would pass for the whole.

    Args:
        stream: The file.
        name: FFmpeg's name of its format. Those that have no length in their header are left alone.

    Raises:
        VideoError: It ends early.
    """
    found = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(_HEAD)
    stated = {"avi": _riff_length, "matroska": _segment_end}.get(name, lambda head: 0)(head)
    if stated > found:
        raise VideoError(f"it ends after {found} of {stated} bytes; it was not written or downloaded completely")


def _riff_length(head: bytes) -> int:
    # A stream that was not closed has none.
    return 8 + int.from_bytes(head[4:8], "little") if head[4:8] != b"\xff" * 4 else 0


def _segment_end(head: bytes) -> int:
    place = head.find(_SEGMENT) + len(_SEGMENT)
    if place < len(_SEGMENT) or place >= len(head) or not head[place]:
        return 0
    width = 9 - head[place].bit_length()
    number = int.from_bytes(head[place : place + width], "big") & ((1 << (7 * width)) - 1)
    # All ones: of unknown length, as a live stream has it.
    return 0 if number == (1 << (7 * width)) - 1 else place + width + number
