"""What decoding an image takes, added up while the structure of its file is read."""

from __future__ import annotations

from st_modules.errors import ImageError
from st_modules.inputs.limits import ImageLimits

BYTES_PER_PIXEL = 4
"""Of a decoded image in most of Pillow's modes; no mode that is read has more."""

# Unpacking a decoded pixel into Pillow's image, copying it and letting the copy go.
_SECONDS_PER_PIXEL = 5e-9


class Cost:
    """The time and memory that decoding one image takes, as far as its structure has been read.

    The rates in this package are those of the worst files of each format on one core of a small server, rounded up.

    Args:
        limits: What it may be.
    """

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self.seconds = 0.0
        self.pixel_bytes = 0
        """Bytes of the decoded pixels."""
        self._kept = 0
        self._decoder = 0

    @property
    def memory(self) -> int:
        """Bytes beyond those of the decoded pixels.

        The pixels are copied once, so that the image lets go of its file; by then the decoder has gone.
        """
        return self._kept + max(self._decoder, self.pixel_bytes)

    def add_pixels(self, width: int, height: int) -> None:
        """Add what every image of a size takes.

        Raises:
            ImageError: The image is over a limit.
        """
        check_pixels(width, height, self._limits)
        self.pixel_bytes += width * height * BYTES_PER_PIXEL
        self._check_memory(f"{width}x{height} pixels")
        self.add_seconds(width * height * _SECONDS_PER_PIXEL, f"{width}x{height} pixels")

    def add_seconds(self, seconds: float, what: str) -> None:
        """Add the time that something takes.

        Args:
            seconds: How long it takes.
            what: Its name in an error, in the plural.

        Raises:
            ImageError: All together is over ``max_decode_seconds``.
        """
        self.seconds += seconds
        limit = self._limits.max_decode_seconds
        if self.seconds > limit:
            raise ImageError(
                f"its {what} would take longer to decode than the limit of {limit:g} s; save it in a simpler form "
                f"(8 bits, one scan, without metadata), shrink it, or raise max_decode_seconds"
            )

    def add_memory(self, size: int, what: str) -> None:
        """Add memory, in bytes, that something takes as long as the image has its file.

        Args:
            size: How many bytes.
            what: Its name in an error, in the plural.

        Raises:
            ImageError: All together is over ``max_decode_bytes``.
        """
        self._kept += size
        self._check_memory(what)

    def add_decoder_memory(self, size: int, what: str) -> None:
        """Add memory that something takes until the pixels are decoded; see :meth:`add_memory`."""
        self._decoder += size
        self._check_memory(what)

    def _check_memory(self, what: str) -> None:
        limit = self._limits.max_decode_bytes
        if self.memory > limit:
            raise ImageError(
                f"decoding its {what} would take over {limit} bytes beside the pixels; save it in a simpler form "
                f"(a baseline JPEG, a PNG, without metadata), shrink it, or raise max_decode_bytes"
            )


def check_pixels(width: int, height: int, limits: ImageLimits) -> None:
    """Check a size in pixels against ``max_pixels``.

    Raises:
        ImageError: It is over the limit.
    """
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{width}x{height} pixels are over the limit of {limits.max_pixels}; shrink the image or raise max_pixels"
        )
