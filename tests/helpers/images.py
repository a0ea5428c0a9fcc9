"""Pictures for tests of how images are read: a small one of known pixels, in every form in which it may be passed."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from PIL import Image

PIXELS = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)  # 9 wide, 6 high


def encoded(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def picture(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    width, height = size
    ramp = np.add.outer(np.arange(height) * 5, np.arange(width) * 3)
    return Image.fromarray(np.stack([ramp, ramp + 80, ramp * 2], axis=-1).astype(np.uint8)).convert(mode)


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(width: int, height: int, rows: bytes, *before: bytes, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG by hand: raw rows (each after its filter byte), and the chunks that come before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *before, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def as_path(data: bytes, folder: Path) -> Path:
    path = folder / "a picture.png"
    path.write_bytes(data)
    return path


FORMS = {
    "path": as_path,
    "path string": lambda data, folder: str(as_path(data, folder)),
    "file URL": lambda data, folder: as_path(data, folder).as_uri(),
    "file URL of localhost": lambda data, folder: "file://localhost" + quote(str(as_path(data, folder))),
    "data URI": lambda data, folder: "data:image/png;base64," + base64.b64encode(data).decode(),
    "data URI with line breaks": lambda data, folder: "data:image/png;base64," + base64.encodebytes(data).decode(),
    "data URI without padding": lambda data, folder: "data:;base64," + base64.b64encode(data).decode().rstrip("="),
    "data URI escaped": lambda data, folder: "data:image/png;base64," + quote(base64.b64encode(data).decode(), safe=""),
    "data URI without base64": lambda data, folder: "DATA:image/png," + quote(data),
    "bytes": lambda data, folder: data,
    "bytearray": lambda data, folder: bytearray(data),
    "BytesIO": lambda data, folder: io.BytesIO(data),
    "PIL": lambda data, folder: Image.fromarray(PIXELS),
    "PIL not decoded yet": lambda data, folder: Image.open(io.BytesIO(data)),
    "array": lambda data, folder: PIXELS,
    "array with strides": lambda data, folder: np.ascontiguousarray(PIXELS[::-1])[::-1],
    "tensor": lambda data, folder: torch.from_numpy(PIXELS).permute(2, 0, 1),
}
