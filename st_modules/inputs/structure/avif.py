"""AVIF: its boxes, which libavif searches for each other, and the pictures in them, of which one may hide its size."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from typing import BinaryIO

from st_modules.inputs.structure.av1 import read_sizes
from st_modules.inputs.structure.cost import Cost

_SECONDS_PER_PIXEL, _SECONDS_PER_BYTE = 25e-9, 46e-9
# The planes of the decoder, with film grain; the frame as an image of libavif; the same as bytes.
_MEMORY_PER_PIXEL = 10
_SECONDS_PER_PART = 1e-6
_MEMORY_PER_PROPERTY, _MEMORY_PER_EXTENT, _COPIES_OF_PROPERTIES = 256, 64, 4
# An item is looked for among all others; the shortest mention of one has three bytes.
_SECONDS_PER_COMPARISON, _BYTES_PER_ITEM = 1.5e-9, 3
_SECONDS_PER_JOINED_BYTE = 5e-9
# Of a track; its first header is not further from its beginning.
_LONGEST_BEGINNING = 65536

# Boxes that hold others, after so many bytes of their own.
_HOLDERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0}
_OF_ITEMS = (b"iinf", b"iloc", b"iref", b"ipma", b"grpl")
_KEPT = frozenset({*_OF_ITEMS, b"ispe", b"idat", b"infe", b"stco", b"co64", b"stsc"})
_Box = tuple[bytes, int, int]
"""Its kind, and where what is in it begins and ends."""


def add_avif(stream: BinaryIO, cost: Cost) -> None:
    """Add what the first image of an AVIF takes, by the largest size that its properties or its data name.

    Raises:
        ImageError: It is over a limit.
    """
    stream.seek(0)
    data = stream.read()
    boxes = list(_read_boxes(data, 0, len(data), cost))
    _add_tables(boxes, cost)
    sizes = [_read_size(data, start) for kind, start, _ in boxes if kind == b"ispe"]
    coded: list[tuple[int, int]] = []
    for picture in _read_pictures(data, boxes, cost):
        for size in read_sizes(picture):
            cost.add_seconds(_SECONDS_PER_PART, "AVIF parts")
            coded.append(size)
    width, height = max([(0, 0), *sizes, *coded], key=lambda size: size[0] * size[1])
    cost.add_pixels(width, height)
    cost.add_memory(width * height * _MEMORY_PER_PIXEL, f"{width}x{height} pixels of AVIF")
    pixels = max(width * height, sum(across * down for across, down in coded))
    cost.add_seconds(pixels * _SECONDS_PER_PIXEL + len(data) * _SECONDS_PER_BYTE, "AVIF pixels")


def _read_boxes(data: bytes, start: int, end: int, cost: Cost) -> Iterator[_Box]:
    """Return the boxes that count, at any depth, once all of them are within the limits."""
    waiting = [(start, end, b"")]
    while waiting:
        place, end, holder = waiting.pop()
        while place + 8 <= end:
            cost.add_seconds(_SECONDS_PER_PART, "AVIF boxes")
            length, kind = struct.unpack_from(">I4s", data, place)
            body = place + 8
            if length == 1 and body + 8 <= end:
                (length,) = struct.unpack_from(">Q", data, body)
                body += 8
            last = end if length == 0 else min(place + length, end)
            if last < body:
                break
            if holder == b"ipco":
                size = _MEMORY_PER_PROPERTY + (last - body) * _COPIES_OF_PROPERTIES
                cost.add_memory(size, "AVIF properties")
            if kind in _KEPT:
                yield kind, body, last
            if kind in _HOLDERS:
                waiting.append((body + _HOLDERS[kind], last, kind))
            place = last


def _add_tables(boxes: list[_Box], cost: Cost) -> None:
    """Add what is taken by tables of which each entry is looked for in another, or among themselves."""
    lengths: dict[bytes, int] = defaultdict(int)
    for kind, start, end in boxes:
        lengths[kind] += end - start
    items = sum(lengths[kind] for kind in _OF_ITEMS) / _BYTES_PER_ITEM
    chunks, runs = (lengths[b"stco"] + lengths[b"co64"]) / 4, lengths[b"stsc"] / 12
    cost.add_seconds((items**2 + chunks * runs) * _SECONDS_PER_COMPARISON, "AVIF items")


def _read_size(data: bytes, start: int) -> tuple[int, int]:
    """The size in a property, after its version."""
    size = data[start + 4 : start + 12].ljust(8, b"\0")
    return int.from_bytes(size[:4], "big"), int.from_bytes(size[4:], "big")


def _read_pictures(data: bytes, boxes: list[_Box], cost: Cost) -> Iterator[bytes]:
    """Return the data of each item that is a picture, and those from the beginning of each track on."""
    pictures = {
        _read_item(data, start, end) for kind, start, end in _read_entries(data, boxes, cost) if kind == b"infe"
    }
    stored = next((start for kind, start, _ in boxes if kind == b"idat"), 0)
    for kind, start, end in boxes:
        if kind in (b"stco", b"co64"):
            width = 4 if kind == b"stco" else 8
            first = int.from_bytes(data[start + 8 : start + 8 + width], "big")
            yield data[first : first + _LONGEST_BEGINNING]
        elif kind == b"iloc":
            for number, in_store, extents in _read_places(data[start:end], cost):
                if number in pictures:
                    base = stored if in_store else 0
                    size = sum(min(length or len(data), len(data)) for _, length in extents)
                    cost.add_seconds(size * _SECONDS_PER_JOINED_BYTE, "AVIF parts")
                    cost.add_memory(size, "AVIF parts")
                    yield b"".join(data[base + at : base + at + length if length else None] for at, length in extents)


def _read_entries(data: bytes, boxes: list[_Box], cost: Cost) -> Iterator[_Box]:
    for kind, start, end in boxes:
        if kind == b"iinf" and start < end:
            yield from _read_boxes(data, start + (8 if data[start] else 6), end, cost)


def _read_item(data: bytes, start: int, end: int) -> int | None:
    """The number of an item that is a picture of AV1."""
    width = 2 if data[start : min(start + 1, end)] == b"\2" else 4
    number, kind = data[start + 4 : start + 4 + width], data[start + 6 + width : start + 10 + width]
    return int.from_bytes(number, "big") if kind == b"av01" else None


def _read_places(table: bytes, cost: Cost) -> Iterator[tuple[int, bool, list[tuple[int, int]]]]:
    """Return the number of each item, whether it is stored among the properties, and where its parts are."""
    place = 0

    def read(width: int) -> int:
        nonlocal place
        place += width
        return int.from_bytes(table[place - width : place], "big")

    version = read(1)
    read(3)
    widths, more = read(1), read(1)
    for _ in range(read(2 if version < 2 else 4)):
        if place >= len(table):
            return
        number = read(2 if version < 2 else 4)
        in_store = bool(version and read(2) & 15)
        read(2)
        base = read(more >> 4)
        extents: list[tuple[int, int]] = []
        count = read(2)  # of parts, which may have no bytes here
        cost.add_seconds(count * _SECONDS_PER_PART, "AVIF parts")
        cost.add_memory(count * _MEMORY_PER_EXTENT, "AVIF parts")
        for _ in range(count):
            read(more & 15 if version else 0)
            at = base + read(widths >> 4)
            extents.append((at, read(widths & 15)))
        yield number, in_store, extents
