"""Reading an image safely: paths, URLs, data URIs, bytes, PIL images, arrays and tensors.

What is read is what ``PIL.Image.open`` reads, as the models' authors use it: the first frame of an animation, and no
EXIF rotation (Pillow itself turns a TIFF). What Pillow would hand over damaged without a word is refused, or logged
where the authors' code embeds it so.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from PIL import Image

from st_modules.errors import ImageError, Place
from st_modules.inputs.data_uris import decode_data_uri
from st_modules.inputs.download import download
from st_modules.inputs.image_conversion import MODES_CUT_AT_255, to_png
from st_modules.inputs.image_decoding import decode, examine, find_format, open_header
from st_modules.inputs.image_errors import describe, explain
from st_modules.inputs.image_forms import file_url_path, normalise, open_bytes, open_file
from st_modules.inputs.images_in_memory import copy_image, hash_image, is_array, is_tensor, to_pil
from st_modules.inputs.limits import ImageLimits

logger = logging.getLogger(__name__)

_ENCODED = (bytes, str, Path)
# The formats that every reader of images knows.
_COMMON = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}


class ImageSource:
    """A lazy reference to one image; it can be pickled. Making one reads and fetches nothing.

    Args:
        source: A path (``str`` or ``os.PathLike``; ``~`` is not expanded), an http(s) or file URL, a data URI, the
            encoded image (``bytes``, ``bytearray``, ``memoryview``, ``io.BytesIO``), a ``PIL.Image.Image`` (its current
            frame), a uint8 numpy array of shape (H, W), (H, W, 3) or (H, W, 4), or a uint8 torch tensor of shape
            (C, H, W) with C in 1, 3, 4. The caller's object is never closed, changed or consumed. Or another
            ``ImageSource``, of which the limits stay.
        place: Where it stands among the inputs, or what error messages are to call it.
        limits: What the image may cost, and where it may come from.

    Raises:
        ImageError: ``source`` is of a type that cannot be an image.
    """

    def __init__(self, source: object, place: Place | str = "image", limits: ImageLimits | None = None) -> None:
        self.place = place
        self.limits: ImageLimits = source.limits if isinstance(source, ImageSource) else limits or ImageLimits()
        self._source: Any = source._source if isinstance(source, ImageSource) else source
        self._fetched: bytes | None = None
        self._size: tuple[int, int] | None = None
        self._memory = 0
        with self._name_errors():
            self._source = normalise(self._source, self.limits)

    def __repr__(self) -> str:
        return f"ImageSource({describe(self._source, self.limits)})"

    @property
    def path(self) -> Path | None:
        """Path of the file that was passed as such; ``None`` for what is no path."""
        return self._source if isinstance(self._source, Path) else None

    @property
    def is_remote(self) -> bool:
        """Whether it is on the web."""
        return isinstance(self._source, str) and self._source[:4].lower() == "http"

    def fetch(self) -> int:
        """Fetch an image that is on the web, once, and return how many bytes it has.

        Raises:
            ImageError: It is missing, over a limit, or not allowed to be fetched.
        """
        with self.open() as stream:
            return stream.seek(0, os.SEEK_END)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels from the header. A URL is fetched once and its bytes are kept.

        Raises:
            ImageError: The image is missing, unreadable, over a limit, or not allowed to be fetched.
        """
        if self._size is None:
            with self._name_errors():
                if isinstance(self._source, _ENCODED):
                    with self._stream() as stream:
                        name, cost = examine(stream, self.limits)
                        self._size = open_header(name, stream, self.limits).size
                else:
                    image, cost = to_pil(self._source, self.limits)
                    self._size = image.size
                self._memory = cost.pixel_bytes + cost.memory
        return self._size

    @property
    def memory(self) -> int:
        """How many bytes reading it takes at a time, the decoded pixels included, as its header says.

        Raises:
            ImageError: As ``size``.
        """
        _ = self.size
        return self._memory

    @property
    def held(self) -> int:
        """How many bytes of it are in memory now: none of a file, and those of an address once it has been fetched."""
        if isinstance(self._source, Image.Image):
            return self._source.width * self._source.height * len(self._source.getbands())
        if isinstance(self._source, (bytes, str)):
            return len(self._source) + len(self._fetched or b"")
        return 0 if isinstance(self._source, Path) else int(self._source.nbytes)

    def load(self) -> Image.Image:
        """Return the decoded image in its own mode, one that ``to_rgb`` is able to convert, as a new object.

        Raises:
            ImageError: As ``size``, and for damaged pixel data or a file that changed since ``size`` was asked.
        """
        with self._name_errors():
            if isinstance(self._source, _ENCODED):
                with self._stream() as stream:
                    image = decode(stream, self.limits)
            else:
                image = copy_image(*to_pil(self._source, self.limits, whole=True))
            if self._size not in (None, image.size):
                raise ImageError(
                    f"its size changed from {self._size} to {image.size}; do not change it while it is used"
                )
            self._size = image.size
        if image.mode in MODES_CUT_AT_255 and cast(float, image.convert("I").getextrema()[1]) > 255:
            logger.warning(
                "%s: %s: 16-bit values over 255 become white, as in the code of the models' authors. For the picture "
                "that a viewer shows, scale it to 8 bits first.",
                self.place,
                describe(self._source, self.limits),
            )
        return image

    @property
    def outline(self) -> tuple[Any, ...]:
        """What can be told of the image without reading it whole; equal for images that may have the same content."""
        source = self._source
        with self._name_errors():
            if isinstance(source, Path):
                size = self.size
                with self._stream() as stream:
                    return (*size, os.fstat(stream.fileno()).st_size)
            return (*self.size, len(source)) if isinstance(source, (bytes, str)) else self.size

    def digest(self, algorithm: str = "blake2b") -> bytes:
        """Return a hash of the encoded image, or of the pixels of one in memory.

        Args:
            algorithm: Its name in ``hashlib``.

        Raises:
            ImageError: As ``size``.
        """
        with self._name_errors():
            if isinstance(self._source, _ENCODED):
                with self._stream() as stream:
                    return hashlib.new(algorithm, stream.read()).digest()
            image, cost = to_pil(self._source, self.limits, whole=True)
            return hash_image(image, cost, algorithm)

    def identify(self, algorithm: str = "blake2b") -> bytes:
        """Return what tells this image from others: its ``digest``, or a hash of the address of one on the web.

        Nothing is fetched.

        Args:
            algorithm: Its name in ``hashlib``.

        Raises:
            ImageError: As ``size``.
        """
        if self.is_remote:
            return hashlib.new(algorithm, self._source.encode("utf-8", "surrogatepass")).digest()
        return self.digest(algorithm)

    def encoded(self) -> tuple[bytes, str]:
        """Return the encoded image and its media type, for another program to read.

        A PNG, JPEG, GIF or WebP is returned byte for byte, once it has been decoded without an error; an image of
        another format, or one in memory, becomes a PNG.

        Raises:
            ImageError: As ``load``.
        """
        with self._name_errors():
            if not isinstance(self._source, _ENCODED):
                return to_png(copy_image(*to_pil(self._source, self.limits, whole=True))), _COMMON["PNG"]
            with self._stream() as stream:
                data = stream.read()
            image = decode(io.BytesIO(data), self.limits)
            kind = _COMMON.get(open_header(find_format(io.BytesIO(data)), io.BytesIO(data), self.limits).format or "")
            return (data, kind) if kind else (to_png(image), _COMMON["PNG"])

    def file_bytes(self) -> bytes:
        """Return a file of the same pixels: the encoded image as it is, or a PNG without metadata of one in memory.

        The structure of an encoded image is checked, and its pixels are not decoded.

        Raises:
            ImageError: As ``size``.
        """
        if isinstance(self._source, _ENCODED):
            with self._name_errors(), self._stream() as stream:
                name, _ = examine(stream, self.limits, whole=True)
                if open_header(name, stream, self.limits).mode in MODES_CUT_AT_255:
                    self.load()  # it says what becomes of these
                stream.seek(0)
                return stream.read()
        image = self.load()
        image.info = {}
        with self._name_errors():
            return to_png(image, compress_level=1)

    def open(self) -> BinaryIO:
        """Open the encoded image; a URL is fetched once and its bytes are kept.

        Raises:
            ImageError: It is missing, over a limit, not allowed to be opened or fetched, or in memory and not encoded.
        """
        with self._name_errors():
            if not isinstance(self._source, _ENCODED):
                raise ImageError("an image in memory, which is not encoded")
            return self._stream()

    def _stream(self) -> BinaryIO:
        source, max_bytes = self._source, self.limits.max_bytes
        if isinstance(source, bytes):
            return open_bytes(source, max_bytes)
        if isinstance(source, Path):
            return open_file(source, self.limits)
        scheme = source.partition(":")[0].lower()
        if scheme == "data":
            return open_bytes(decode_data_uri(source, max_bytes), max_bytes)
        if scheme == "file":
            return open_file(file_url_path(source), self.limits)
        if self._fetched is None:
            self._fetched = download(source, self.limits)
        return open_bytes(self._fetched, max_bytes)

    @contextmanager
    def _name_errors(self) -> Generator[None, None, None]:
        """Turn whatever goes wrong into an ImageError that says where."""
        try:
            yield
        except ImageError as error:
            raise (self._error(error.problem) if error.place is None else error) from error.__cause__
        except Exception as error:  # Pillow's decoders raise nearly every built-in exception on damaged data
            raise self._error(explain(error)) from error

    def _error(self, problem: str) -> ImageError:
        return ImageError(f"{describe(self._source, self.limits)}: {problem}", self.place)


def is_image_like(value: object) -> bool:
    """Whether a value is of a type that ``ImageSource`` takes, but for strings."""
    kinds = (bytes, bytearray, memoryview, io.BytesIO, os.PathLike, Image.Image, ImageSource)
    return isinstance(value, kinds) or is_array(value) or is_tensor(value)
