"""TIFF: the directories of tags that Pillow reads, and the strips or tiles of the first page."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

from st_modules.errors import ImageError
from st_modules.inputs.structure.cost import Cost

_KIND, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _ROWS_PER_STRIP = 254, 256, 257, 258, 259, 277, 278
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
# A bit of the kind: a smaller copy of another image of the file.
_REDUCED = 1
_OFFSETS, _COUNTS = (273, 324), (279, 325)
# EXIF, GPS and interoperability: directories of their own, of which Pillow reads each tag.
_DIRECTORIES = (34665, 34853, 40965)

# Bytes of a value by its type, and those types whose values become Python objects, one each.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_BYTES, _FRACTIONS = frozenset({1, 2, 7}), frozenset({5, 10})
_FORMATS = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q"}
_SECONDS_PER_TAG = 30e-6
_SECONDS_PER_VALUE, _MEMORY_PER_VALUE = 1e-6, 120
_SECONDS_PER_FRACTION, _MEMORY_PER_FRACTION = 4e-6, 400
_SECONDS_PER_BYTE, _COPIES_OF_BYTES = 5e-9, 4

_RAW, _OLD_JPEG, _JPEG, _LZMA = 1, 6, 7, 34925
_SECONDS_PER_RAW_STRIP, _SECONDS_PER_STRIP = 25e-6, 2e-6
_SECONDS_PER_BYTE_OF_ROWS, _SECONDS_PER_BYTE_OF_LZMA = 5e-9, 20e-9
# libtiff allows a JPEG a hundred scans.
_SECONDS_PER_PIXEL_OF_JPEG = 25e-9


@dataclass(frozen=True)
class _Layout:
    """How numbers are written in a file."""

    order: str
    count: str
    entry: str
    offset: str


_CLASSIC = ("H", "HHL4s", "L")
_BIG = ("Q", "HHQ8s", "Q")
_Tag = tuple[int, int, bytes, int]
"""Type, count, the value or its offset, and where values that do not fit begin."""


def add_tiff(stream: BinaryIO, cost: Cost) -> None:
    """Add what the first page of a TIFF takes.

    Raises:
        ImageError: It is over a limit, or a thumbnail.
    """
    length = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(16).ljust(16, b"\0")
    order = "<" if head[:2] == b"II" else ">"
    big = head[2] == 43
    layout = _Layout(order, *(_BIG if big else _CLASSIC))
    (first,) = struct.unpack(f"{order}{layout.offset}", head[8:16] if big else head[4:8])
    tags = _read_directories(stream, first, layout, length, cost)

    def values(tag: int) -> tuple[int, ...]:
        return _read_values(stream, tags[tag], layout, length) if tag in tags else ()

    def value(tag: int, default: int) -> int:
        return next(iter(values(tag)), default)

    width, height = value(_WIDTH, 0), value(_HEIGHT, 0)
    if value(_KIND, 0) & _REDUCED:
        raise ImageError(
            f"its first image is a thumbnail of {width}x{height} pixels, as in raw photographs (DNG, NEF, ARW); the "
            "image itself is not read. Convert it to JPEG, PNG or a plain TIFF."
        )
    cost.add_pixels(width, height)
    across = max(value(_TILE_WIDTH, width), 1)
    down = max(value(_TILE_HEIGHT, min(value(_ROWS_PER_STRIP, height), height)), 1)
    pixel = max(value(_SAMPLES, 1), 1) * max(values(_BITS), default=1) / 8
    compression = value(_COMPRESSION, _RAW)
    if compression != _RAW:  # one that is whole in memory, as Pillow and libtiff read them
        cost.add_decoder_memory(int(across * down * pixel), f"strips or tiles of {across}x{down} pixels")
    padded = -(-width // across) * across * -(-height // down) * down
    _add_pixels(compression, padded, padded * pixel, cost)
    strips = sum(tags[tag][1] for tag in _OFFSETS if tag in tags)
    cost.add_seconds(
        strips * (_SECONDS_PER_RAW_STRIP if compression == _RAW else _SECONDS_PER_STRIP), "strips or tiles"
    )
    if compression != _RAW:  # strips may share their bytes, which are then read for each
        cost.add_seconds(sum(sum(values(tag)) for tag in _COUNTS) * _SECONDS_PER_BYTE, "bytes of strips or tiles")


def _add_pixels(compression: int, pixels: int, size: float, cost: Cost) -> None:
    if compression in (_OLD_JPEG, _JPEG):
        cost.add_seconds(pixels * _SECONDS_PER_PIXEL_OF_JPEG, "pixels as JPEG in a TIFF")
    rate = _SECONDS_PER_BYTE_OF_LZMA if compression == _LZMA else _SECONDS_PER_BYTE_OF_ROWS
    cost.add_seconds(size * rate, "pixels")


def _read_directories(stream: BinaryIO, first: int, layout: _Layout, length: int, cost: Cost) -> dict[int, _Tag]:
    """The tags of the first directory; what the directories that it leads to take is added too."""
    tags: dict[int, _Tag] = {}
    waiting, seen = [first], set[int]()
    while waiting:
        offset = waiting.pop()
        if offset in seen or offset >= length:
            continue
        found = _read_directory(stream, offset, layout, length, cost)
        tags = tags if seen else found
        seen.add(offset)
        for tag in _DIRECTORIES:
            if tag in found:
                waiting += _read_values(stream, found[tag], layout, length)[:1]
    return tags


def _read_directory(stream: BinaryIO, offset: int, layout: _Layout, length: int, cost: Cost) -> dict[int, _Tag]:
    stream.seek(offset)
    size = struct.calcsize(f"{layout.order}{layout.count}")
    head = stream.read(size)
    count = struct.unpack(f"{layout.order}{layout.count}", head)[0] if len(head) == size else 0
    entry = struct.Struct(layout.order + layout.entry)
    tags: dict[int, _Tag] = {}
    for _ in range(count):
        data = stream.read(entry.size)
        if len(data) < entry.size:
            break
        cost.add_seconds(_SECONDS_PER_TAG, "TIFF tags")
        tag, kind, values, content = entry.unpack(data)
        if kind not in _SIZES or tag in tags:  # Pillow keeps the first
            continue
        tags[tag] = kind, values, content, len(content)
        _add_values(kind, min(values, length // _SIZES[kind]), cost)
    return tags


def _add_values(kind: int, count: int, cost: Cost) -> None:
    if kind in _BYTES:
        cost.add_seconds(count * _SECONDS_PER_BYTE, "bytes of TIFF tags")
        cost.add_memory(count * _COPIES_OF_BYTES, "bytes of TIFF tags")
    elif kind in _FRACTIONS:
        cost.add_seconds(count * _SECONDS_PER_FRACTION, "values of TIFF tags")
        cost.add_memory(count * _MEMORY_PER_FRACTION, "values of TIFF tags")
    else:
        cost.add_seconds(count * _SECONDS_PER_VALUE, "values of TIFF tags")
        cost.add_memory(count * _MEMORY_PER_VALUE, "values of TIFF tags")


def _read_values(stream: BinaryIO, tag: _Tag, layout: _Layout, length: int) -> tuple[int, ...]:
    """The whole numbers of a tag; none where it has others."""
    kind, count, content, fits = tag
    if kind not in _FORMATS:
        return ()
    size = _SIZES[kind] * count
    if size > fits:
        (offset,) = struct.unpack(f"{layout.order}{layout.offset}", content)
        if size > length or offset > length:
            return ()
        stream.seek(offset)
        content = stream.read(size)
    if len(content) < size:
        return ()
    return struct.unpack(f"{layout.order}{count}{_FORMATS[kind]}", content[:size])
