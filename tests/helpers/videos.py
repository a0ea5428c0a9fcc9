"""Video files whose frames are known exactly."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

LOSSLESS = {"matroska": ("ffv1", "bgr0"), "avi": ("ffv1", "bgr0"), "mov": ("png", "rgb24")}


def random_frames(count: int, width: int = 60, height: int = 40, seed: int = 0) -> list[np.ndarray]:
    """Return frames of blocks of colour, each another: arrays of shape (height, width, 3)."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 5 // width
    return [block[rows][:, columns] for block in blocks]


def write_video(
    frames: Sequence[np.ndarray],
    container: str = "matroska",
    codec: str | None = None,
    pixels: str | None = None,
    rotation: int = 0,
    mirrored: bool = False,
    **options: str,
) -> bytes:
    """Return a video file of these frames; without a codec, one that changes no pixel."""
    import av  # which not every Python has

    stream: Any
    lossless = LOSSLESS.get(container, ("", ""))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec or lossless[0], rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels or (lossless[1] if codec is None else "yuv420p")
        stream.options = options
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode(None):
            file.mux(packet)
    return buffer.getvalue()
