"""PPM, PGM and PBM: a header of text, and pixels that Pillow reads in Python where they are text or scaled."""

from __future__ import annotations

import os
import re
from typing import BinaryIO

from st_modules.errors import ImageError
from st_modules.inputs.structure.cost import Cost

_LONGEST_HEADER = 65536
_SPACE = rb"(?:[ \t\n\v\f\r]|#[^\r\n]*[\r\n])"
_TOKEN = re.compile(_SPACE + rb"*+([^ \t\n\v\f\r#]{1,10})" + _SPACE)
_MAGIC = re.compile(rb"P[0-6fy][A-Z]{0,4}")
_PLAIN, _BITS = (b"P1", b"P2", b"P3"), (b"P1", b"P4")
_SECONDS_PER_PLAIN_BYTE, _SECONDS_PER_COMMENT = 150e-9, 100e-6
_SECONDS_PER_SCALED_VALUE, _MEMORY_PER_VALUE = 400e-9, 3


def add_ppm(stream: BinaryIO, cost: Cost) -> None:
    """Add what a portable pixmap takes.

    Raises:
        ImageError: It is over a limit, or its header is of no length that Pillow reads in time.
    """
    stream.seek(0)
    head = stream.read(_LONGEST_HEADER)
    magic = _MAGIC.match(head)
    if not magic:
        return
    kind, end = magic[0], magic.end()
    values: list[int] = []
    while len(values) < (2 if kind in _BITS else 3):
        token = _TOKEN.match(head, end)
        if not token and len(head) == _LONGEST_HEADER:
            raise ImageError(f"no size within the first {_LONGEST_HEADER} bytes; save it again, without comments")
        if not token or not token[1].isdigit():
            return  # Pillow says what is wrong
        values.append(int(token[1]))
        end = token.end() - 1
    width, height, *rest = values
    cost.add_pixels(width, height)
    channels = {b"P3": 3, b"P6": 3}.get(kind, 1 if len(kind) == 2 else 4)
    count = width * height * channels
    if kind in _PLAIN:
        cost.add_decoder_memory(count * _MEMORY_PER_VALUE, "values")
        cost.add_seconds((stream.seek(0, os.SEEK_END) - end) * _SECONDS_PER_PLAIN_BYTE, "values written as text")
        stream.seek(end)
        # Each comment makes Pillow copy the block that it is in.
        cost.add_seconds(stream.read().count(b"#") * _SECONDS_PER_COMMENT, "comments")
    elif rest and rest[0] != 255:
        cost.add_decoder_memory(count * _MEMORY_PER_VALUE, "values")
        cost.add_seconds(count * _SECONDS_PER_SCALED_VALUE, f"values of 0 to {rest[0]}, and not 255,")
