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
        self.memory = 0
        """Bytes beyond those of the decoded pixels."""

    def add_pixels(self, width: int, height: int) -> None:
        """Add what every image of a size takes.

        Raises:
            ImageError: The image is over a limit.
        """
        check_pixels(width, height, self._limits)
        # The pixels are copied once, so that the image lets go of its file.
        self.add_memory(width * height * BYTES_PER_PIXEL, f"{width}x{height} pixels")
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
        """Add memory, in bytes, that something takes beside the decoded pixels.

        Args:
            size: How many bytes.
            what: Its name in an error, in the plural.

        Raises:
            ImageError: All together is over ``max_decode_bytes``.
        """
        self.memory += size
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
