"""To which size CLIP's preparation scales an image before its middle is cut out."""

from __future__ import annotations

from st_modules.errors import ImageError
from st_modules.inputs.images import ImageSource
from st_modules.inputs.structure.cost import BYTES_PER_PIXEL


def scaled_size(image: ImageSource, side: int) -> tuple[int, int]:
    """Return the size of an image whose shorter side is scaled to ``side``.

    Args:
        image: The image.
        side: Length in pixels.

    Returns:
        Width and height in pixels; the longer side is rounded down, as CLIP's preparation does it.

    Raises:
        ImageError: The image cannot be read, or is so elongated that scaling it would exceed ``max_pixels`` or a
            quarter of ``max_decode_bytes``.
    """
    width, height = image.size
    short, long = min(width, height), max(width, height)
    longer = int(side * long / short)
    # A quarter of the memory, since several threads scale at a time and their budget is one of pixels as they are.
    most = min(image.limits.max_pixels, image.limits.max_decode_bytes // (4 * BYTES_PER_PIXEL))
    if side * longer > most:
        raise ImageError(
            f"{width}x{height} pixels are too elongated: scaled to a shorter side of {side} pixels they are over the "
            f"limit of {most}. Crop or resize it.",
            image.place,
        )
    return (side, longer) if width <= height else (longer, side)
