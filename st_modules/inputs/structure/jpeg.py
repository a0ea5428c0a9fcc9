"""JPEG: segments, the bytes between them, EXIF, and scans."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from st_modules.inputs.structure.cost import Cost

_SOI, _EOI, _SOS, _APP1, _TEM = 0xD8, 0xD9, 0xDA, 0xE1, 0x01
_RESTARTS = range(0xD0, 0xD8)
# All of 0xC0 to 0xCF but those that define tables (0xC4, 0xCC) and one that is reserved (0xC8).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_FIRST_ARITHMETIC = 0xC9
# Neither what decoding a scan may stop at: 0xFF in the data (before 0), padding, restarts.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

_SECONDS_PER_SEGMENT = 10e-6
# Pillow reads what stands between segments byte by byte.
_SECONDS_PER_STRAY_BYTE = 2e-6
# Pillow joins the segments of EXIF one by one, and reads the directory in it, in Python.
_SECONDS_PER_JOINED_BYTE = 0.5e-9
_SECONDS_PER_BYTE_OF_EXIF, _MEMORY_PER_BYTE_OF_EXIF = 250e-9, 40
_SECONDS_PER_BYTE = 5e-9
# Where a JPEG has several scans, its coefficients (two bytes each) are kept until the last one has been read.
_SECONDS_PER_BYTE_OF_SCANS, _SECONDS_PER_COEFFICIENT = 20e-9, 3e-9
_SECONDS_PER_SCANNED_PIXEL = 0.7e-9
# Arithmetic coding: a coefficient takes several decisions, and those that are foreseen take no byte.
_SECONDS_PER_DECIDED_PIXEL = 60e-9


@dataclass(frozen=True)
class _Frame:
    kind: int
    pixels: int
    components: int
    coefficients: int


def add_jpeg(stream: BinaryIO, cost: Cost, *, whole: bool) -> None:
    """Add what a JPEG takes.

    Args:
        stream: The file.
        cost: What it is added to.
        whole: Whether the scans count too, which are read only where the pixels are decoded.

    Raises:
        ImageError: It is over a limit.
    """
    stream.seek(2)
    frame, exif = None, 0
    while (marker := _next_marker(stream, cost)) is not None:
        cost.add_seconds(_SECONDS_PER_SEGMENT, "JPEG segments")
        if marker in _RESTARTS or marker in (_SOI, _EOI, _TEM) or marker == 0xC8 or 0xF0 <= marker <= 0xFD:
            continue
        length = stream.read(2)
        if len(length) < 2:
            return
        size = max(int.from_bytes(length, "big") - 2, 0)
        if marker == _SOS:
            if frame:
                _add_scans(stream, frame, cost, whole=whole)
            return
        head = stream.read(min(size, 64))
        if marker in _FRAMES:
            frame = _read_frame(marker, head) or frame
            if frame:
                cost.add_pixels(*struct.unpack(">HH", head[3:5] + head[1:3]))
        elif marker == _APP1 and head.startswith(b"Exif\0\0"):
            exif += size
            cost.add_seconds(exif * _SECONDS_PER_JOINED_BYTE + size * _SECONDS_PER_BYTE_OF_EXIF, "bytes of EXIF")
            cost.add_memory(size * _MEMORY_PER_BYTE_OF_EXIF, "bytes of EXIF")
        stream.seek(size - len(head), os.SEEK_CUR)


def _next_marker(stream: BinaryIO, cost: Cost) -> int | None:
    """The marker of the next segment, after whatever stands before it; ``None`` at the end of the file."""
    read, stray = stream.read, 0
    before = read(1)
    while before:
        byte = read(1)
        if before == b"\xff" and byte not in (b"", b"\0", b"\xff"):
            if stray:
                cost.add_seconds(stray * _SECONDS_PER_STRAY_BYTE, "bytes between JPEG segments")
            return byte[0]
        stray += 1
        if stray == 4096:
            cost.add_seconds(stray * _SECONDS_PER_STRAY_BYTE, "bytes between JPEG segments")
            stray = 0
        before = byte
    return None


def _read_frame(marker: int, head: bytes) -> _Frame | None:
    if len(head) < 6:
        return None
    height, width, components = struct.unpack(">HHB", head[1:6])
    sampling = [(byte >> 4, byte & 15) for byte in head[7 : 6 + 3 * components : 3]]
    widest = max((across for across, _ in sampling), default=1) or 1
    highest = max((down for _, down in sampling), default=1) or 1
    share = sum(across * down for across, down in sampling) / (widest * highest)
    # Blocks of 8x8, of which a component has whole ones only.
    padded = (width + 8 * widest) * (height + 8 * highest)
    return _Frame(marker, width * height, components, int(padded * share))


def _add_scans(stream: BinaryIO, frame: _Frame, cost: Cost, *, whole: bool) -> None:
    """Add what the scans of a frame take, from the first one's header on."""
    components = stream.read(1)
    arithmetic = frame.kind >= _FIRST_ARITHMETIC
    several = frame.kind in _PROGRESSIVE or components != bytes([frame.components])
    if several:
        cost.add_decoder_memory(2 * frame.coefficients, "scans")
        cost.add_seconds(frame.coefficients * _SECONDS_PER_COEFFICIENT, "scans")
    per_scan = frame.pixels * (_SECONDS_PER_DECIDED_PIXEL if arithmetic else _SECONDS_PER_SCANNED_PIXEL)
    cost.add_seconds(per_scan, "scans")
    if not whole:
        return
    data = stream.read()
    if not several:
        cost.add_seconds(len(data) * _SECONDS_PER_BYTE, "bytes")
        return
    place = 0
    while match := _MARKER.search(data, place):
        cost.add_seconds((match.end() - place) * _SECONDS_PER_BYTE_OF_SCANS + _SECONDS_PER_SEGMENT, "scans")
        place = match.end()
        marker = data[place - 1]
        if marker == _EOI:
            return
        if marker == _TEM:  # has no length
            continue
        if marker == _SOS:
            cost.add_seconds(per_scan, "scans")
        place += int.from_bytes(data[place : place + 2], "big")
    cost.add_seconds(max(len(data) - place, 0) * _SECONDS_PER_BYTE_OF_SCANS, "scans")
