"""Video files: headers that lie, boxes that are damaged, files that name others, frames at random."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import av
import numpy as np
from hypothesis import strategies as st

from fuzz.bounds import Outcome
from fuzz.mutations import mutations
from fuzz.outcomes import embed_or_refuse, golden

_LOSSLESS = {"mov": ("png", "rgb24"), "matroska": ("ffv1", "bgr0"), "avi": ("ffv1", "bgr0")}


def check(data: bytes) -> Outcome:
    """Embed a file as the second of two items."""
    model = golden("vlm2vec-v2")
    return embed_or_refuse(lambda: model.encode([{"text": "a"}, {"video": data}]), 2, ["item 1"])


@cache
def video(container: str, count: int = 12, width: int = 48, height: int = 32) -> bytes:
    """Return a small file of frames of noise."""
    codec, pixels = _LOSSLESS[container]
    buffer, draw = io.BytesIO(), np.random.default_rng(0)
    stream: Any
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for _ in range(count):
            frame = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def _box(kind: bytes, body: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I", 8 + len(body) if size is None else size) + kind + body


def _nested(scale: float) -> bytes:
    body = b""
    for _ in range(max(3, int(1e5 * scale))):
        body = _box(b"moov", body, min(8 + len(body), 2**32 - 1))
    return _box(b"ftyp", b"isom\0\0\0\0isom") + body


def _table(scale: float) -> bytes:
    """A movie whose table of samples has more entries than the file has bytes."""
    table = _box(b"stsz", struct.pack(">III", 0, 0, 2**31 - 1))
    inner = table
    for kind in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        inner = _box(kind, inner)
    return _box(b"ftyp", b"isom\0\0\0\0isom") + inner


def _huge(scale: float) -> bytes:
    """A file whose header says frames of 16 gigapixels."""
    data = video("mov")
    place = data.index(b"png ", data.index(b"stsd"))
    return data[: place + 28] + struct.pack(">HH", 65535, 65535) + data[place + 32 :]


ATTACKS: Mapping[str, Callable[[float], bytes]] = {
    "boxes in boxes": _nested,
    "table of 2 billion samples": _table,
    "header of frames of 65535x65535": _huge,
    "40,000 frames": lambda scale: video("mov", max(4, int(40_000 * scale)), 16, 16),
    "playlist": lambda scale: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n" * max(1, int(1e5 * scale)),
    "list of files": lambda scale: b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    "cut off": lambda scale: video("mov")[:-500],
    "no index": lambda scale: video("avi")[: len(video("avi")) // 2],
    "bytes without end behind a header": lambda scale: video("matroska")[:64] + b"\0" * max(64, int(2e8 * scale)),
    "MPEG-TS of one packet again and again": lambda scale: (
        (b"G" + b"\x1f\xff\x10" + b"\0" * 184) * max(2, int(1e6 * scale))
    ),
}
"""Known attacks by name; each takes its scale, of which 1 is the full size."""


def strategy() -> st.SearchStrategy[bytes]:
    """Return damaged files of each container."""
    return st.sampled_from([*_LOSSLESS]).map(video).flatmap(mutations)
