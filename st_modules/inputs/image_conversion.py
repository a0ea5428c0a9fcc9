"""A decoded image as RGB or as a PNG: which modes keep the picture, and what becomes of alpha."""

from __future__ import annotations

import io

from PIL import Image

MODES_TO_RGB = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"})
"""The modes of which ``Image.convert("RGB")`` keeps the picture."""

MODES_CUT_AT_255 = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
"""Those where it turns every value over 255 into white."""

# The modes that Pillow writes as PNG.
_MODES_OF_PNG = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B"})


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an RGB image as ``Image.convert`` makes it: alpha is dropped, not composited on a colour.

    It is the image itself where that is RGB already.

    ``info["transparency"]`` is dropped too, because image processors composite an RGB image that carries one.
    """
    if "transparency" in image.info:
        image = image.copy()
        del image.info["transparency"]
    return image if image.mode == "RGB" else image.convert("RGB")


def flatten_on_white(image: Image.Image) -> Image.Image:
    """Return a new RGB image as ``qwen-vl-utils`` makes it: on white where it is RGBA, else as ``to_rgb`` does."""
    if image.mode != "RGBA":
        return to_rgb(image)
    flat = Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.getchannel("A"))
    return flat


def to_png(image: Image.Image, compress_level: int = 6) -> bytes:
    """Return an image as a PNG: in its own mode where that can be, else as RGB."""
    stream = io.BytesIO()
    kept = image if image.mode in _MODES_OF_PNG else image.convert("RGB")
    kept.save(stream, "PNG", compress_level=compress_level)
    return stream.getvalue()
