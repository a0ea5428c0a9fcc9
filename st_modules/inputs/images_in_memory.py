"""Images that the caller holds in memory: PIL images, arrays and tensors. They are read, and left as they are."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from typing import Any

from PIL import Image

from st_modules.errors import ImageError
from st_modules.inputs.formats import FORMATS
from st_modules.inputs.image_decoding import check_header
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.pixel_budget import PIXELS
from st_modules.inputs.structure.check import estimate_cost
from st_modules.inputs.structure.cost import Cost

# How much of an image is hashed at once.
_HASHED_BYTES = 2**24
# An image in memory may be decoded from its file only when it is read, which two threads must not do at once. An image
# has the lock of its address; few share one.
_LOCKS: list[threading.Lock] = []


def is_array(value: object) -> bool:
    """Whether a value is a numpy array."""
    numpy = sys.modules.get("numpy")  # not imported: then nobody holds an array
    return numpy is not None and isinstance(value, numpy.ndarray)


def is_tensor(value: object) -> bool:
    """Whether a value is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_pil(source: Any, limits: ImageLimits, *, whole: bool = False) -> tuple[Image.Image, Cost]:
    """Return what is in memory as a PIL image, and what reading it costs.

    Args:
        source: A PIL image, which is returned itself, or a uint8 array or tensor.
        limits: What it may cost.
        whole: Whether it is going to be decoded, if it is not yet.

    Raises:
        ImageError: It is over a limit, or has a type, shape or mode that no image has.
    """
    image = source if isinstance(source, Image.Image) else _from_array(source)
    check_header(image, limits)
    with _lock_of(image):
        stream = getattr(image, "fp", None)
        if image.format in {*FORMATS, "MPO"} and stream and not stream.closed:  # it may not have been decoded yet
            place = stream.tell()
            try:
                return image, estimate_cost(stream, image.format, limits, whole=whole)
            finally:
                stream.seek(place)
    cost = Cost(limits)
    cost.add_pixels(*image.size)
    return image, cost


def copy_image(image: Image.Image, cost: Cost) -> Image.Image:
    """Return a decoded copy of an image, once the process's budget has room for it."""
    with PIXELS.hold(cost.pixel_bytes + cost.memory), _lock_of(image):
        return image.copy()


def hash_image(image: Image.Image, cost: Cost, algorithm: str) -> bytes:
    """Return a hash of mode, size, palette and pixels, of which no second copy is made.

    Args:
        image: The image.
        cost: What reading it costs.
        algorithm: Its name in ``hashlib``.
    """
    with PIXELS.hold(cost.pixel_bytes + cost.memory), _lock_of(image):
        found = hashlib.new(algorithm, repr((image.mode, image.size, image.getpalette())).encode())
        width, height = image.size
        rows = max(_HASHED_BYTES // (4 * width), 1)
        for top in range(0, height, rows):
            found.update(image.crop((0, top, width, min(top + rows, height))).tobytes())
        return found.digest()


def _from_array(source: Any) -> Image.Image:
    """A PIL image of a uint8 array (H, W[, 3|4]) or of a uint8 tensor (1|3|4, H, W)."""
    channels_first = is_tensor(source)
    if not channels_first and source.dtype.kind in "SUOT":
        raise ImageError("an array of strings or objects, not of pixels; pass the list of them: array.tolist()")
    if str(source.dtype).removeprefix("torch.") != "uint8":
        raise ImageError(f"values of type {source.dtype}; scale them to 0..255 and convert to uint8")
    shape = tuple(source.shape)
    several = "; several images are passed as list(images)" if len(shape) == 4 else ""
    if channels_first and (len(shape) != 3 or shape[0] not in (1, 3, 4)):
        raise ImageError(f"a tensor of shape {shape}; permute it to (C, H, W) with C in 1, 3, 4{several}")
    if not channels_first and not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        raise ImageError(f"an array of shape {shape}; transpose it to (H, W, 3), (H, W, 4) or (H, W){several}")
    if 0 in shape:
        raise ImageError(f"no pixels in shape {shape}; leave the image out")
    array = source.detach().permute(1, 2, 0).cpu().numpy() if channels_first else source
    return Image.fromarray(array[..., 0] if channels_first and shape[0] == 1 else array)


def _lock_of(image: Image.Image) -> threading.Lock:
    """What is held while the file of an image is read; whoever holds it does not wait for the budget."""
    return _LOCKS[id(image) % len(_LOCKS)]


def _make_locks() -> None:
    """Make new locks: those of a process may be held when another is forked off it."""
    _LOCKS[:] = [threading.Lock() for _ in range(61)]


_make_locks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_make_locks)
