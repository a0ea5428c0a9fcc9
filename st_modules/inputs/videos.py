"""Reading a video safely: a clip as the list of its frames."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

from PIL import Image

from st_modules.errors import InputError, Place
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits


class VideoSource:
    """A lazy reference to one video; it can be pickled. Making one reads and fetches nothing.

    Args:
        source: The frames in order, each whatever ``ImageSource`` takes. Or another ``VideoSource``, of which the
            limits stay.
        place: Where it stands among the inputs, or what error messages are to call it.
        limits: What each frame may cost, and where it may come from.

    Raises:
        InputError: ``source`` is of a type that cannot be a video, or has no frame.
    """

    def __init__(self, source: object, place: Place | str = "video", limits: ImageLimits | None = None) -> None:
        self.place = place
        self.limits: ImageLimits = source.limits if isinstance(source, VideoSource) else limits or ImageLimits()
        self._frames: tuple[ImageSource, ...] = (
            source._frames if isinstance(source, VideoSource) else self._take_frames(source)
        )

    def __repr__(self) -> str:
        return f"VideoSource({len(self._frames)} frames)"

    @property
    def frame_count(self) -> int:
        """How many frames there are."""
        return len(self._frames)

    @property
    def memory(self) -> int:
        """How many bytes reading it takes at a time, one frame after the other."""
        return max(frame.memory for frame in self._frames)

    def check_size(self, numbers: Sequence[int]) -> tuple[int, int]:
        """Return the width and height that some frames have in common, from their headers.

        Args:
            numbers: Numbers of the frames, from 0.

        Raises:
            InputError: A frame cannot be read, or is of another size than the first of them.
        """
        size = self._frames[numbers[0]].size
        for number in numbers:
            found = self._frames[number].size
            if found != size:
                first, other = (f"{width}x{height}" for width, height in (size, found))
                raise InputError(
                    f"frame {number} is of {other} pixels, and frame {numbers[0]} of {first}; resize the frames of a "
                    "video to one size",
                    self.place,
                )
        return size

    def read(self, numbers: Sequence[int]) -> Iterator[Image.Image]:
        """Yield some frames, each in its own mode.

        Args:
            numbers: Numbers of the frames, from 0, in order.

        Raises:
            InputError: A frame cannot be read.
        """
        for number in numbers:
            yield self._frames[number].load()

    @property
    def outline(self) -> tuple[Any, ...]:
        """What can be told of the video without reading it whole; equal for videos that may have the same content."""
        return tuple(frame.outline for frame in self._frames)

    def digest(self, algorithm: str = "blake2b") -> bytes:
        """Return a hash of the frames, each as ``ImageSource.digest`` has it.

        Args:
            algorithm: Its name in ``hashlib``.

        Raises:
            InputError: A frame cannot be read.
        """
        return self._hash([frame.digest(algorithm) for frame in self._frames], algorithm)

    def identify(self, algorithm: str = "blake2b") -> bytes:
        """Return what tells this video from others: a hash of its frames, each as ``ImageSource.identify`` has it.

        Args:
            algorithm: Its name in ``hashlib``.

        Raises:
            InputError: A frame cannot be read.
        """
        return self._hash([frame.identify(algorithm) for frame in self._frames], algorithm)

    @staticmethod
    def _hash(digests: Sequence[bytes], algorithm: str) -> bytes:
        # A clip of one frame is no picture.
        return hashlib.new(algorithm, b"frames" + b"".join(digests)).digest()

    def _take_frames(self, source: object) -> tuple[ImageSource, ...]:
        if not isinstance(source, (list, tuple)):
            raise InputError(f"of type {type(source).__name__}, and no video; pass the list of its frames", self.place)
        if not source:
            raise InputError("a video without frames; leave it out", self.place)
        frames = cast("Sequence[object]", source)
        return tuple(ImageSource(frame, self._place_of(number), self.limits) for number, frame in enumerate(frames))

    def _place_of(self, number: int) -> Place | str:
        part = f"frame {number}"
        return self.place.within(part) if isinstance(self.place, Place) else f"{self.place}, {part}"
