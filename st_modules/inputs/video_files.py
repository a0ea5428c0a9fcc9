"""Frames of a video file, decoded by PyAV (FFmpeg's libraries) within limits of time and memory.

FFmpeg reads from an open file, in one of the container formats and by one of the decoders that are listed here. What a
file says of other files or addresses is not followed. Headers are not believed: frames are counted packet by packet.
"""

from __future__ import annotations

import math
import struct
import time
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO

from PIL import Image

from st_modules._imports import import_extra
from st_modules.errors import VideoError
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.structure.boxes import check_boxes
from st_modules.inputs.structure.lengths import check_length

VIDEO_FORMATS = ("MP4", "QuickTime", "Matroska", "WebM", "AVI", "MPEG-TS", "FLV")
"""The container formats that are read."""
BYTES_PER_PIXEL = 40
"""Of a frame while a video is decoded: the frames that a decoder keeps, and the picture that is made of it."""

_DECODERS = frozenset(
    {"h264", "hevc", "libdav1d", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "h263", "flv", "mjpeg", "png"}
    | {"ffv1", "prores", "rawvideo"}
)
_TURNS = {
    (0, 0, 0, 0): None,  # a matrix that nobody filled in
    (1, 0, 0, 1): None,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
"""What is done to a frame, by the axes of :func:`_read_axes`."""
_NO_PROTOCOL = "none"
_PACKET = 188
"""Bytes of a packet of MPEG-TS, each of which begins with the same one."""


@dataclass(frozen=True)
class Track:
    """The frames of a video file.

    Attributes:
        size: Width and height in pixels, as the frames are shown.
        count: How many there are.
        times: When each is shown, in order, in units of the file; empty where the file does not say.
        starts: Those of them at which decoding can begin.
        rate: Frames a second; ``None`` where the file does not say.
    """

    size: tuple[int, int]
    count: int
    times: tuple[int, ...]
    starts: tuple[int, ...]
    rate: float | None = None


def find_track(stream: BinaryIO, limits: ImageLimits) -> Track:
    """Count the frames of a video file, and decode the first.

    Args:
        stream: The file.
        limits: What it may cost.

    Raises:
        VideoError: It is no video that can be read, or is over a limit.
        MissingExtraError: PyAV is not installed.
    """
    clock = _Clock(limits)
    with _open(stream, limits, clock) as (container, video):
        packets = list(_demux(container, video, clock, limits))
        if not packets:
            raise VideoError("no frame in it; leave it out")
        # The header of an AVI counts frames that are left out because they are as the one before.
        if container.format.name.startswith("mov") and video.frames > len(packets):
            raise VideoError(
                f"it has {video.frames} frames by its header, and ends after {len(packets)}; save it again"
            )
        known = [each for each, _, _ in packets if each is not None]
        seconds = float((max(known) - min(known)) * video.time_base) if known and video.time_base else 0.0
        if seconds > limits.max_video_seconds:
            raise VideoError(
                f"{seconds:.0f} s are over the limit of {limits.max_video_seconds:g} s; cut it, or raise "
                "max_video_seconds"
            )
        shown = [packet for packet in packets if not packet[2]]
        times = sorted(each for each, _, _ in shown if each is not None)
        exact = len(set(times)) == len(shown)
        starts = sorted(each for each, is_start, _ in shown if is_start and each is not None)
        rate = float(video.average_rate or 0)
    with _open(stream, limits, clock) as (container, video):
        first = next(_decode(container, video, clock, limits), None)
        if first is None:
            raise VideoError("no frame in it can be decoded; save it again")
        size = _to_image(first).size
    return Track(
        size, len(shown), tuple(times) if exact else (), tuple(starts) if exact else (), rate if rate > 0 else None
    )


def decode_frames(stream: BinaryIO, track: Track, numbers: Sequence[int], limits: ImageLimits) -> Iterator[Image.Image]:
    """Decode some frames of a video file, turned as they are shown.

    Args:
        stream: The file.
        track: What :func:`find_track` returned of it.
        numbers: Numbers of the frames, from 0, in ascending order.
        limits: What it may cost.

    Raises:
        VideoError: A frame cannot be decoded, or a limit is exceeded.
    """
    clock, done = _Clock(limits), 0
    if track.times:
        for done, frame in enumerate(_decode_at_times(stream, track, numbers, limits, clock), start=1):
            yield _take(frame, numbers[done - 1], track)
    if rest := list(numbers[done:]):
        # In the order in which they come, where their times do not lead to them.
        with _open(stream, limits, clock) as (container, video):
            for number, frame in enumerate(_decode(container, video, clock, limits)):
                if number == rest[0]:
                    yield _take(frame, rest.pop(0), track)
                    if not rest:
                        return
        raise VideoError(f"{track.count} frames are in it, and frame {rest[0]} cannot be decoded; save it again")


def _decode_at_times(
    stream: BinaryIO, track: Track, numbers: Sequence[int], limits: ImageLimits, clock: _Clock
) -> Iterator[Any]:
    """Yield frames by their times, as far as these are where they should be; what is far ahead is sought."""
    with _open(stream, limits, clock) as (container, video):
        frames, last = _decode(container, video, clock, limits), track.times[0] - 1
        for number in numbers:
            wanted = track.times[number]
            place = bisect_right(track.starts, wanted) - 1
            if place > 0 and track.starts[place] > last:
                sought = _decode_from(track.starts[place], container, video, clock, limits)
                if sought is None:
                    return
                frames = sought
            frame = next((frame for frame in frames if frame.pts is None or frame.pts >= wanted), None)
            if frame is None or frame.pts != wanted:
                return
            last = wanted
            yield frame


def _decode_from(start: int, container: Any, video: Any, clock: _Clock, limits: ImageLimits) -> Iterator[Any] | None:
    """Seek a time and return the frames from there on; ``None`` where decoding cannot begin there.

    Some files name starts that are none, and some formats are sought to a place behind one. Without the frames before
    it a frame may become anything, and not every decoder says so.
    """
    container.seek(start, stream=video)
    frames = _decode(container, video, clock, limits)
    try:
        first = next(frames, None)
    except import_extra("av", "video").FFmpegError:
        return None
    return chain([first], frames) if first is not None and first.key_frame else None


def _take(frame: Any, number: int, track: Track) -> Image.Image:
    if frame.is_corrupt:
        raise VideoError(f"frame {number} is damaged; save the video again")
    image = _to_image(frame)
    if image.size != track.size:
        first, other = (f"{width}x{height}" for width, height in (track.size, image.size))
        raise VideoError(f"frame {number} is of {other} pixels, and the first of {first}; save it with one size")
    return image


def _to_image(frame: Any) -> Image.Image:
    """Return a frame as RGB, turned and mirrored as its file says that it is to be shown."""
    image: Image.Image = frame.to_image()
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    axes = _read_axes(bytes(matrix))
    if axes not in _TURNS:
        raise VideoError("to be shown at an angle that is no multiple of 90 degrees; save it upright")
    turn = _TURNS[axes]
    return image if turn is None else image.transpose(turn)


def _read_axes(matrix: bytes) -> tuple[int, int, int, int]:
    """Return where a matrix turns a frame's axes to, the right one and the one down: x and y of each, as signs."""
    right_x, right_y, _, down_x, down_y = struct.unpack_from("<5i", matrix)
    axes = (right_x, right_y, down_x, down_y)
    # To within a degree, as FFmpeg itself.
    least = max(map(abs, axes)) * math.radians(1)
    signs = [(length > least) - (length < -least) for length in axes]
    return signs[0], signs[1], signs[2], signs[3]


def _demux(container: Any, video: Any, clock: _Clock, limits: ImageLimits) -> Iterator[tuple[int | None, bool, bool]]:
    """Yield of each packet its time, whether decoding can begin at it, and whether it is never shown."""
    count = 0
    for packet in container.demux(video):
        clock.check()
        if packet.size:
            count += 1
            if count > limits.max_video_frames:
                raise VideoError(
                    f"its frames are over the limit of {limits.max_video_frames}; cut it, or raise max_video_frames"
                )
            yield packet.pts, packet.is_keyframe, packet.is_discard
    clock.check()


def _decode(container: Any, video: Any, clock: _Clock, limits: ImageLimits) -> Iterator[Any]:
    most = _most_pixels(limits)
    for packet in container.demux(video):
        for frame in packet.decode():
            clock.check()
            if frame.width * frame.height > most:
                raise _too_large(frame.width, frame.height, limits)
            yield frame
        clock.check()


@contextmanager
def _open(stream: BinaryIO, limits: ImageLimits, clock: _Clock) -> Generator[tuple[Any, Any], None, None]:
    """Open a file, and name whatever goes wrong with it."""
    av: Any = import_extra("av", "video")
    name = _find_format(stream)
    if name == "mov":
        check_boxes(stream, limits)
    else:
        check_length(stream, name)
    stream.seek(0)
    try:
        with av.open(
            _TimedFile(stream, clock),
            "r",
            format=name,
            io_open=_refuse_to_open,
            # Titles and the like, which are not read, are in whatever letters their writer had.
            metadata_errors="replace",
            container_options={
                "protocol_whitelist": _NO_PROTOCOL,
                "format_whitelist": name,
                "codec_whitelist": ",".join(sorted(_DECODERS)),
                "max_streams": "64",
            },
        ) as container:
            yield container, _find_stream(container, limits)
    except av.FFmpegError as error:
        clock.check()
        raise VideoError(f"damaged or not readable ({error.strerror or error}); save or download it again") from error


def _find_stream(container: Any, limits: ImageLimits) -> Any:
    # The picture of an album is a stream of video too.
    kinds: Any = import_extra("av.stream", "video")
    videos = [stream for stream in container.streams.video if not stream.disposition & kinds.Disposition.attached_pic]
    if not videos:
        raise VideoError("no video in it; pass a file with pictures that move")
    video = videos[0]
    for stream in container.streams:
        if stream is not video:
            stream.discard = kinds.Discard.all
    context = video.codec_context
    if context is None or context.codec.name not in _DECODERS:
        found = "an unknown codec" if context is None else context.codec.name
        raise VideoError(f"coded by {found}, which is not read; convert it to one of {', '.join(sorted(_DECODERS))}")
    if context.width * context.height > _most_pixels(limits):
        raise _too_large(context.width, context.height, limits)
    context.thread_count = 1
    # FFmpeg counts the pixels with which it fills up blocks; a frame is measured once more when it is there.
    context.options = {"max_pixels": str(2 * _most_pixels(limits) + 2**16)}
    return video


def _most_pixels(limits: ImageLimits) -> int:
    return min(limits.max_pixels, limits.max_decode_bytes // BYTES_PER_PIXEL)


def _too_large(width: int, height: int, limits: ImageLimits) -> VideoError:
    return VideoError(
        f"frames of {width}x{height} pixels are over the limit of {_most_pixels(limits)}; shrink it, or raise "
        "max_pixels and max_decode_bytes"
    )


def _find_format(stream: BinaryIO) -> str:
    """FFmpeg's name of a file's format, by how it begins."""
    stream.seek(0)
    head = stream.read(_PACKET + 1)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:3] == b"FLV":
        return "flv"
    if head[:1] == b"G" and head[_PACKET : _PACKET + 1] in (b"G", b""):
        return "mpegts"
    raise VideoError(
        f"not a video that can be read, whatever its name says; convert it to one of {', '.join(VIDEO_FORMATS)}"
    )


def _refuse_to_open(url: str, *args: Any) -> None:
    raise VideoError("it refers to another file or address, which is not opened; save it as one file")


class _Clock:
    """The time that one pass over a file may take."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limit = limits.max_video_decode_seconds
        self._deadline = time.monotonic() + self._limit

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._deadline

    def check(self) -> None:
        if self.is_over:
            raise VideoError(
                f"not decoded within the limit of {self._limit:g} s; cut or shrink it, or raise "
                "max_video_decode_seconds"
            )


class _TimedFile:
    """A file as FFmpeg reads it, which ends when the time is over: an error raised here would not stop it."""

    def __init__(self, stream: BinaryIO, clock: _Clock) -> None:
        self._stream = stream
        self._clock = clock

    def read(self, size: int) -> bytes:
        return b"" if self._clock.is_over else self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()
