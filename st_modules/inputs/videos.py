"""Reading a video safely: a list of frames, or a file of one of a few formats.

Frames of a file are what FFmpeg decodes and turns as the file says that they are shown.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from PIL import Image

from st_modules.errors import ImageError, Place, VideoError
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.video_files import BYTES_PER_PIXEL, Track, decode_frames, find_track

_FILES = (str, os.PathLike, bytes, bytearray, memoryview, io.BytesIO)


class VideoSource:
    """A lazy reference to one video; it can be pickled. Making one reads and fetches nothing.

    Args:
        source: The frames in order, each whatever ``ImageSource`` takes: a list or tuple, a uint8 numpy array of shape
            (frames, H, W, 3) or a uint8 torch tensor of shape (frames, C, H, W). Or a file: a path (``str`` or
            ``os.PathLike``), an http(s) or file URL, a data URI, or the encoded video (``bytes``, ``bytearray``,
            ``memoryview``, ``io.BytesIO``); files need the extra ``video``. Or another ``VideoSource``, of which the
            limits stay.
        place: Where it stands among the inputs, or what error messages are to call it.
        limits: What the video may cost, and where it may come from.

    Raises:
        InputError: ``source`` is of a type that cannot be a video, or has no frame.
    """

    def __init__(self, source: object, place: Place | str = "video", limits: ImageLimits | None = None) -> None:
        self.place = place
        self._file: ImageSource | None = None
        self._frames: tuple[ImageSource, ...] = ()
        self._track: Track | None = None
        if isinstance(source, VideoSource):
            self.limits: ImageLimits = source.limits
            self._file, self._frames, self._track = source._file, source._frames, source._track
            return
        self.limits = limits or ImageLimits()
        if isinstance(source, _FILES):
            # What a file may be and where from is the same as for an image, but for its length.
            limits = dataclasses.replace(self.limits, max_bytes=self.limits.max_video_bytes)
            with self._name_errors():
                self._file = ImageSource(cast(object, source), place, limits)
        else:
            self._frames = self._take_frames(source)

    def __repr__(self) -> str:
        return (
            f"VideoSource({len(self._frames)} frames)"
            if self._file is None
            else repr(self._file).replace("ImageSource", "VideoSource", 1)
        )

    @property
    def is_file(self) -> bool:
        """Whether it is a file, and no list of frames."""
        return self._file is not None

    @property
    def sources(self) -> tuple[ImageSource, ...]:
        """What it is read from: its frames, or its file alone."""
        return self._frames if self._file is None else (self._file,)

    @property
    def frame_count(self) -> int:
        """How many frames there are. Those of a file are counted once; a URL is fetched once and its bytes are kept.

        Raises:
            VideoError: The video is missing, unreadable, over a limit, or not allowed to be fetched.
            MissingExtraError: It is a file, and the extra ``video`` is not installed.
        """
        return len(self._frames) if self._file is None else self._find_track().count

    @property
    def rate(self) -> float | None:
        """How many frames a file shows in a second; ``None`` of a list of frames, which has no times.

        Raises:
            VideoError: As ``frame_count``, or the file does not say.
        """
        if self._file is None:
            return None
        rate = self._find_track().rate
        if rate is None:
            raise self._error("it does not say how many frames it shows in a second; save it again, or pass its frames")
        return rate

    @property
    def memory(self) -> int:
        """How many bytes reading it takes at a time, one frame after the other.

        Raises:
            InputError: As ``frame_count``, or a frame cannot be read.
        """
        if self._file is None:
            return max(frame.memory for frame in self._frames)
        width, height = self._find_track().size
        return width * height * BYTES_PER_PIXEL

    def check_size(self, numbers: Sequence[int]) -> tuple[int, int]:
        """Return the width and height that some frames have in common, from their headers.

        Args:
            numbers: Numbers of the frames, from 0.

        Raises:
            InputError: A frame cannot be read, or is of another size than the first of them. One of a file is asked
                for its size only when it is read.
        """
        if self._file is not None:
            return self._find_track().size
        size = self._frames[numbers[0]].size
        for number in numbers:
            found = self._frames[number].size
            if found != size:
                first, other = (f"{width}x{height}" for width, height in (size, found))
                raise VideoError(
                    f"frame {number} is of {other} pixels, and frame {numbers[0]} of {first}; resize the frames of a "
                    "video to one size",
                    self.place,
                )
        return size

    def read(self, numbers: Sequence[int]) -> Iterator[Image.Image]:
        """Yield some frames, each in its own mode.

        Args:
            numbers: Numbers of the frames, from 0, in ascending order.

        Raises:
            InputError: A frame cannot be read.
        """
        if self._file is None:
            for number in numbers:
                yield self._frames[number].load()
            return
        track = self._find_track()
        with self._name_errors(), self._file.open() as stream:
            yield from decode_frames(stream, track, numbers, self.limits)

    def file_bytes(self) -> bytes:
        """Return the file of a video that is one.

        Raises:
            VideoError: It is a list of frames, or the file is missing, over a limit, or not allowed to be fetched.
        """
        if self._file is None:
            raise self._error("a list of frames, which is no file")
        with self._name_errors(), self._file.open() as stream:
            return stream.read()

    @property
    def outline(self) -> tuple[Any, ...]:
        """What can be told of the video without reading it whole; equal for videos that may have the same content."""
        if self._file is None:
            return tuple(frame.outline for frame in self._frames)
        track = self._find_track()
        with self._name_errors(), self._file.open() as stream:
            return (*track.size, track.count, stream.seek(0, os.SEEK_END))

    def digest(self, algorithm: str = "blake2b") -> bytes:
        """Return a hash of the file, or of the frames, each as ``ImageSource.digest`` has it.

        Args:
            algorithm: Its name in ``hashlib``.

        Raises:
            InputError: It cannot be read.
        """
        if self._file is None:
            return self._hash([frame.digest(algorithm) for frame in self._frames], algorithm)
        with self._name_errors():
            return self._hash([self._file.digest(algorithm)], algorithm)

    def identify(self, algorithm: str = "blake2b") -> bytes:
        """Return what tells this video from others: a hash of its file or its address, or of its frames.

        Nothing is fetched.

        Args:
            algorithm: Its name in ``hashlib``.

        Raises:
            InputError: It cannot be read.
        """
        if self._file is None:
            return self._hash([frame.identify(algorithm) for frame in self._frames], algorithm)
        with self._name_errors():
            return self._hash([self._file.identify(algorithm)], algorithm)

    def _find_track(self) -> Track:
        if self._track is None and self._file is not None:
            with self._name_errors(), self._file.open() as stream:
                self._track = find_track(stream, self.limits)
        return cast(Track, self._track)

    def _hash(self, digests: Sequence[bytes], algorithm: str) -> bytes:
        # A clip of one frame is no picture, and a file is not its frames.
        kind = b"frames" if self._file is None else b"file"
        return hashlib.new(algorithm, kind + b"".join(digests)).digest()

    def _take_frames(self, source: object) -> tuple[ImageSource, ...]:
        if not isinstance(source, (list, tuple)) and not _is_block(source):
            raise VideoError(
                f"of type {type(source).__name__}, and no video; pass the list of its frames, or a path, URL, data URI "
                "or bytes of its file",
                self.place,
            )
        frames = cast("Sequence[object]", source)
        count = len(frames)
        if not count:
            raise VideoError("a video without frames; leave it out", self.place)
        if count > self.limits.max_video_frames:
            raise VideoError(
                f"{count} frames are over the limit of {self.limits.max_video_frames}; pass fewer, or raise "
                "max_video_frames",
                self.place,
            )
        return tuple(ImageSource(frame, self._place_of(number), self.limits) for number, frame in enumerate(frames))

    def _place_of(self, number: int) -> Place | str:
        part = f"frame {number}"
        return self.place.within(part) if isinstance(self.place, Place) else f"{self.place}, {part}"

    @contextmanager
    def _name_errors(self) -> Generator[None, None, None]:
        """Turn whatever goes wrong with a file into a VideoError that says where."""
        try:
            yield
        except VideoError as error:
            raise (self._error(error.problem) if error.place is None else error) from error.__cause__
        except ImageError as error:
            raise self._error(_of_video(error.problem)) from error.__cause__
        except (OSError, MemoryError) as error:
            raise self._error(f"it cannot be read ({error})") from error

    def _error(self, problem: str) -> VideoError:
        source = None if self._file is None else repr(self._file).removeprefix("ImageSource(").removesuffix(")")
        named = source is None or problem.startswith(f"{source}: ")
        return VideoError(problem if named else f"{source}: {problem}", self.place)


def _is_block(value: object) -> bool:
    """Whether a value is an array or a tensor of several pictures."""
    for module, kind in (("numpy", "ndarray"), ("torch", "Tensor")):
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(value, getattr(loaded, kind)):
            return cast(Any, value).ndim == 4
    return False


_WORDS = {
    "shrink the image or raise max_bytes": "shrink the video or raise max_video_bytes",
    "raise max_bytes": "raise max_video_bytes",
    "names no image; leave the image out": "names no video; leave it out",
    "pass the path of an image file": "pass the path of a video file",
    "pass the image itself": "pass the video itself",
    "write base64 as data:image/png": "write base64 as data:video/mp4",
    "write data:image/png": "write data:video/mp4",
}


def _of_video(problem: str) -> str:
    """Return what is said of an image's file, said of a video's."""
    for of_image, of_video in _WORDS.items():
        problem = problem.replace(of_image, of_video)
    return problem
