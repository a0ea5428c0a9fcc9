"""Reading an image safely: paths, URLs, data URIs, bytes, PIL images, arrays and tensors.

What is read is what ``PIL.Image.open`` reads, as the models' authors use it: the first frame of an animation, and no
EXIF rotation (Pillow itself turns a TIFF). What Pillow would hand over damaged without a word is refused, or logged
where the authors' code embeds it so.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import logging
import os
import re
import stat
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

from PIL import Image, ImageFile

from st_modules.errors import ImageError, Place, printable
from st_modules.inputs.data_uris import decode_data_uri
from st_modules.inputs.download import download
from st_modules.inputs.formats import FORMATS, is_base64_of_image, looks_like_base64
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.local_files import LONGEST_PATH
from st_modules.inputs.pixel_budget import PIXELS
from st_modules.inputs.structure.check import estimate_cost
from st_modules.inputs.structure.cost import BYTES_PER_PIXEL, Cost, check_pixels

logger = logging.getLogger(__name__)

# The modes of which Image.convert("RGB") keeps the picture, and those where it turns every value over 255 into white.
_MODES_TO_RGB = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"})
_MODES_CUT_AT_255 = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_ENCODED = (bytes, str, Path)
# The formats that every reader of images knows, and the modes that Pillow writes as PNG.
# Formats whose reader lets go of the file once a still picture is decoded.
_LET_GO = frozenset({"JPEG", "PNG"})
_COMMON = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
_MODES_OF_PNG = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B"})
_LONGEST_NAME = 255
# How much of an image in memory is hashed at once.
_HASHED_BYTES = 2**24
# An image in memory may be decoded from its file only when it is read, which two threads must not do at once. An image
# has the lock of its address; few share one.
_LOCKS: list[threading.Lock] = []
_Read = TypeVar("_Read")
_Source = TypeVar("_Source", bound="_Sized")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|file:/", re.IGNORECASE)


class _Sized(Protocol):
    @property
    def memory(self) -> int: ...


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
            self._source = _normalise(self._source, self.limits)

    def __repr__(self) -> str:
        return f"ImageSource({_describe(self._source, self.limits)})"

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
                        name, cost = _examine(stream, self.limits)
                        self._size = _open_as(name, stream, self.limits).size
                else:
                    image, cost = _from_memory(self._source, self.limits)
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
                    image = _decode(stream, self.limits)
            else:
                image = _copy(*_from_memory(self._source, self.limits, whole=True))
            if self._size not in (None, image.size):
                raise ImageError(
                    f"its size changed from {self._size} to {image.size}; do not change it while it is used"
                )
            self._size = image.size
        if image.mode in _MODES_CUT_AT_255 and cast(float, image.convert("I").getextrema()[1]) > 255:
            logger.warning(
                "%s: %s: 16-bit values over 255 become white, as in the code of the models' authors. For the picture "
                "that a viewer shows, scale it to 8 bits first.",
                self.place,
                _describe(self._source, self.limits),
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
            image, cost = _from_memory(self._source, self.limits, whole=True)
            with PIXELS.hold(cost.pixel_bytes + cost.memory), _lock_of(image):
                return _hash_pixels(image, algorithm)

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
                return _to_png(_copy(*_from_memory(self._source, self.limits, whole=True))), _COMMON["PNG"]
            with self._stream() as stream:
                data = stream.read()
            image = _decode(io.BytesIO(data), self.limits)
            kind = _COMMON.get(_open_as(_find_format(io.BytesIO(data)), io.BytesIO(data), self.limits).format or "")
            return (data, kind) if kind else (_to_png(image), _COMMON["PNG"])

    def file_bytes(self) -> bytes:
        """Return a file of the same pixels: the encoded image as it is, or a PNG without metadata of one in memory.

        The structure of an encoded image is checked, and its pixels are not decoded.

        Raises:
            ImageError: As ``size``.
        """
        if isinstance(self._source, _ENCODED):
            with self._name_errors(), self._stream() as stream:
                name, _ = _examine(stream, self.limits, whole=True)
                if _open_as(name, stream, self.limits).mode in _MODES_CUT_AT_255:
                    self.load()  # it says what becomes of these
                stream.seek(0)
                return stream.read()
        image = self.load()
        image.info = {}
        with self._name_errors():
            return _to_png(image, compress_level=1)

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
            return _check_stream(source, max_bytes)
        if isinstance(source, Path):
            return _open_file(source, self.limits)
        scheme = source.partition(":")[0].lower()
        if scheme == "data":
            return _check_stream(decode_data_uri(source, max_bytes), max_bytes)
        if scheme == "file":
            return _open_file(file_url_path(source), self.limits)
        if self._fetched is None:
            self._fetched = download(source, self.limits)
        return _check_stream(self._fetched, max_bytes)

    @contextmanager
    def _name_errors(self) -> Generator[None, None, None]:
        """Turn whatever goes wrong into an ImageError that says where."""
        try:
            yield
        except ImageError as error:
            raise (self._error(error.problem) if error.place is None else error) from error.__cause__
        except Exception as error:  # Pillow's decoders raise nearly every built-in exception on damaged data
            raise self._error(_problem(error)) from error

    def _error(self, problem: str) -> ImageError:
        return ImageError(f"{_describe(self._source, self.limits)}: {problem}", self.place)


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


def _to_png(image: Image.Image, compress_level: int = 6) -> bytes:
    stream = io.BytesIO()
    kept = image if image.mode in _MODES_OF_PNG else image.convert("RGB")
    kept.save(stream, "PNG", compress_level=compress_level)
    return stream.getvalue()


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


def _normalise(source: object, limits: ImageLimits) -> object:
    """The source as one of: bytes, Path, str (a URL or data URI), PIL image, array, tensor."""
    if isinstance(source, io.BytesIO):
        return source.getvalue()
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(cast(bytes, source))
    if isinstance(source, str) and not source:
        raise ImageError("an empty string names no image; leave the image out or pass None")
    if isinstance(source, str) and (source[:5].lower() == "data:" or _URL.match(source)):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(cast("str | os.PathLike[str]", source))
        if _is_no_path(path, limits):
            raise ImageError("base64 or another text, and no path; write base64 as data:image/png;base64,...")
        return Path(path)
    if isinstance(source, Image.Image) or _is_array(source) or _is_tensor(source):
        return source
    raise ImageError("not an image; pass a path, URL, data URI, bytes, PIL image, uint8 array or uint8 tensor")


def is_image_like(value: object) -> bool:
    """Whether a value is of a type that ``ImageSource`` takes, but for strings."""
    kinds = (bytes, bytearray, memoryview, io.BytesIO, os.PathLike, Image.Image, ImageSource)
    return isinstance(value, kinds) or _is_array(value) or _is_tensor(value)


def _is_no_path(text: str, limits: ImageLimits) -> bool:
    """Whether a text is longer than a path can be, or base64."""
    if len(text) > LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in text.split("/")):
        return True
    return looks_like_base64(text) and not (limits.may_open(text) and os.path.exists(text))


def _open_file(path: Path, limits: ImageLimits) -> BinaryIO:
    return limits.open_file(path, lambda status: _check_file(status, limits.max_bytes))


def _check_file(status: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for its writer
        raise ImageError("not a regular file; pass the path of an image file")
    _check_length(status.st_size, max_bytes)


def _check_stream(data: bytes, max_bytes: int) -> BinaryIO:
    _check_length(len(data), max_bytes)
    return io.BytesIO(data)


def _check_length(length: int, max_bytes: int) -> None:
    if not length:
        raise ImageError("zero bytes; it was not written or downloaded completely")
    if length > max_bytes:
        raise ImageError(f"{length} bytes are over the limit of {max_bytes}; shrink the image or raise max_bytes")


def file_url_path(url: str) -> Path:
    """Return the path that a ``file:`` URL says; raises ``ImageError`` where it is one of another host."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ImageError("a file URL of another host; write file:///path")
    return Path(url2pathname(parts.path))


def read_within_budget(read: Callable[[_Source], _Read], source: _Source) -> _Read:
    """Run what reads an image and makes something smaller of it, once the process's budget has room for the pixels.

    Args:
        read: Reads it.
        source: The image, or whatever else says how much memory reading it takes.

    Returns:
        What ``read`` returned.

    Raises:
        InputError: It cannot be read.
    """
    with PIXELS.hold(source.memory):
        return read(source)


def _decode(stream: BinaryIO, limits: ImageLimits) -> Image.Image:
    name, cost = _examine(stream, limits, whole=True)
    if name == "PNG":
        _open_as(name, stream, limits).verify()  # every checksum; decoding skips the pixels' and shows damaged ones
    image = _open_as(name, stream, limits)
    if name not in _LET_GO:
        return _copy(image, cost)
    with PIXELS.hold(cost.pixel_bytes + cost.memory):
        image.load()
    return image.copy() if image.fp else image


def _copy(image: Image.Image, cost: Cost) -> Image.Image:
    with PIXELS.hold(cost.pixel_bytes + cost.memory), _lock_of(image):
        return image.copy()


def _lock_of(image: Image.Image) -> threading.Lock:
    """What is held while the file of an image is read; whoever holds it does not wait for the budget."""
    return _LOCKS[id(image) % len(_LOCKS)]


def _make_locks() -> None:
    """Make new locks: those of a process may be held when another is forked off it."""
    _LOCKS[:] = [threading.Lock() for _ in range(61)]


_make_locks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_make_locks)


def _hash_pixels(image: Image.Image, algorithm: str) -> bytes:
    """A hash of mode, size, palette and pixels, of which no second copy is made."""
    found = hashlib.new(algorithm, repr((image.mode, image.size, image.getpalette())).encode())
    width, height = image.size
    rows = max(_HASHED_BYTES // (4 * width), 1)
    for top in range(0, height, rows):
        found.update(image.crop((0, top, width, min(top + rows, height))).tobytes())
    return found.digest()


def _examine(stream: BinaryIO, limits: ImageLimits, *, whole: bool = False) -> tuple[str, Cost]:
    """Find a file's format, and what decoding it costs; ``whole`` is whether it is going to be decoded."""
    name = _find_format(stream)
    return name, estimate_cost(stream, name, limits, whole=whole)


def _open_as(name: str, stream: BinaryIO, limits: ImageLimits) -> ImageFile.ImageFile:
    """Read a header as Image.open does, but without Pillow's own limit, which warns where ours decides."""
    factory, _ = Image.OPEN[name]
    stream.seek(0)
    image = factory(stream, "")
    _check_pixels(image, limits)
    return image


def _find_format(stream: BinaryIO) -> str:
    """Pillow's name of a file's format."""
    Image.init()
    stream.seek(0)
    prefix = stream.read(64)
    for name in FORMATS:
        _, accept = Image.OPEN.get(name, (None, None))
        if accept and accept(prefix.ljust(4, b"\0")) is True:  # DIB's reads four bytes that must be there
            return name
    if is_base64_of_image(prefix.decode("latin-1")):
        raise ImageError("base64 text, and not the image itself; decode it, or write it as data:image/png;base64,...")
    if prefix.lstrip().startswith(b"<"):
        raise ImageError("HTML, XML or SVG text, not a raster image; check that the address is the image's own")
    hint = ". It begins as a text does: pass a text, or a data URI, as str" if _is_text(prefix) else ""
    raise ImageError(
        f"not an image that can be read, whatever its name says; convert it to one of {', '.join(FORMATS)}{hint}"
    )


def _is_text(beginning: bytes) -> bool:
    """Whether bytes are text; the last character may be cut off."""
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(beginning)
    return "\ufffd" not in text and all(character.isprintable() or character.isspace() for character in text)


def _from_memory(source: Any, limits: ImageLimits, *, whole: bool = False) -> tuple[Image.Image, Cost]:
    image = source if isinstance(source, Image.Image) else _from_array(source)
    _check_pixels(image, limits)
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


def _check_pixels(image: Image.Image, limits: ImageLimits) -> None:
    width, height = image.size
    if not width or not height:
        raise ImageError(f"{width}x{height} pixels; leave the image out")
    check_pixels(width, height, limits)
    if image.mode not in _MODES_TO_RGB | _MODES_CUT_AT_255:
        raise ImageError(
            f"mode {image.mode!r} does not convert to RGB faithfully; scale its values to 0..255 as 8-bit RGB first"
        )


def _from_array(source: Any) -> Image.Image:
    """A PIL image of a uint8 array (H, W[, 3|4]) or of a uint8 tensor (1|3|4, H, W)."""
    channels_first = _is_tensor(source)
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


def _is_array(value: object) -> bool:
    numpy = sys.modules.get("numpy")  # not imported: then nobody holds an array
    return numpy is not None and isinstance(value, numpy.ndarray)


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _describe(source: object, limits: ImageLimits) -> str:
    """A source in few words, without its data and without a password."""
    if isinstance(source, (bytes, bytearray)):
        return f"{len(source)} bytes"
    if isinstance(source, str) and source[:5].lower() == "data:":
        return f"data URI {printable(_shorten(source, 40))}"
    if isinstance(source, (str, Path)) and not _URL.match(str(source)) and _is_no_path(str(source), limits):
        return f"string of {len(str(source))} characters"
    if isinstance(source, (str, Path)):
        return printable(_shorten(re.sub(r"(?<=//)[^/]*@", "***@", str(source)), 200))
    return f"object of type {type(source).__name__}"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"


def _problem(error: Exception) -> str:
    """What a built-in exception means for the user."""
    if isinstance(error, FileNotFoundError):
        return "no such file; check the path (~ is not expanded)"
    if isinstance(error, PermissionError):
        return "no permission to read it; change the file's permissions"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it; shrink the image"
    if isinstance(error, Image.DecompressionBombError):
        return "over Pillow's own limit of pixels; shrink the image"
    detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"damaged or not readable ({_shorten(detail, 200)}); save or download it again"
