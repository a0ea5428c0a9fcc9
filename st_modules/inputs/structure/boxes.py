"""The tables of an MP4 or QuickTime file, which say how many entries FFmpeg makes room for."""

from __future__ import annotations

import os
import re
from typing import BinaryIO

from st_modules.errors import VideoError
from st_modules.inputs.limits import ImageLimits

# A sample table; the samples of a fragment; boxes that are compressed, which nobody writes any more.
_TABLES = re.compile(rb"stsz|stz2|trun|cmov")
# A film has several samples of sound and others for each frame.
_SAMPLES_PER_FRAME = 4
# Sound that is not compressed has a sample table without entries, of as many samples as it has.
_MOST_SAMPLES = 16_000_000
_LONGEST_BOX = 64 * 1024 * 1024
_MOST_BOXES = 1_000_000


def check_boxes(stream: BinaryIO, limits: ImageLimits) -> None:
    """Make sure that the tables of a file are not of more samples than a video within the limits has.

    Args:
        stream: The file.
        limits: What it may cost.

    Raises:
        VideoError: They are.
    """
    length = stream.seek(0, os.SEEK_END)
    place = samples = 0
    for _ in range(_MOST_BOXES):
        stream.seek(place)
        head = stream.read(16)
        if len(head) < 8:
            return
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        elif size == 0:
            size = length - place
        if head[4:8] != b"mdat":
            if min(size, length - place) > _LONGEST_BOX:
                raise VideoError(f"a box of {size} bytes beside its pictures and its sound; save it again")
            stream.seek(place)
            samples += _count_samples(stream.read(min(size, length - place)), length)
            if samples > _SAMPLES_PER_FRAME * limits.max_video_frames:
                raise VideoError(
                    f"tables of {samples} samples are over the limit of {limits.max_video_frames} frames; cut it, or "
                    "raise max_video_frames"
                )
        place += max(size, 8)
    raise VideoError(f"over {_MOST_BOXES} boxes; save it again")


def _count_samples(box: bytes, length: int) -> int:
    """Return how many samples the tables of a box name, those without entries left out that a file has room for."""
    samples = 0
    for found in _TABLES.finditer(box):
        fields = box[found.end() : found.end() + 12]
        each, count = int.from_bytes(fields[4:8], "big"), int.from_bytes(fields[8:12], "big")
        if found[0] == b"cmov":
            raise VideoError("a compressed header; save it as a present-day MP4")
        if found[0] == b"trun":
            samples += each
        elif found[0] == b"stz2" or not each or count > _MOST_SAMPLES or count * each > length:
            samples += count
    return samples
