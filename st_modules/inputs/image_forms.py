"""The forms in which an image may be passed: telling them apart, and opening those that are encoded."""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

from PIL import Image

from st_modules.errors import ImageError
from st_modules.inputs.formats import looks_like_base64
from st_modules.inputs.images_in_memory import is_array, is_tensor
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.local_files import LONGEST_PATH

_LONGEST_NAME = 255
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|file:/", re.IGNORECASE)


def normalise(source: object, limits: ImageLimits) -> object:
    """Return the source as one of: bytes, Path, str (a URL or data URI), PIL image, array, tensor.

    Raises:
        ImageError: It is of a type, or a string of a kind, that cannot be an image.
    """
    if isinstance(source, io.BytesIO):
        return source.getvalue()
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(cast(bytes, source))
    if isinstance(source, str) and not source:
        raise ImageError("an empty string names no image; leave the image out or pass None")
    if isinstance(source, str) and (source[:5].lower() == "data:" or is_url(source)):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(cast("str | os.PathLike[str]", source))
        if is_no_path(path, limits):
            raise ImageError("base64 or another text, and no path; write base64 as data:image/png;base64,...")
        return Path(path)
    if isinstance(source, Image.Image) or is_array(source) or is_tensor(source):
        return source
    raise ImageError("not an image; pass a path, URL, data URI, bytes, PIL image, uint8 array or uint8 tensor")


def is_url(text: str) -> bool:
    """Whether a text begins as a URL does, a data URI apart."""
    return _URL.match(text) is not None


def is_no_path(text: str, limits: ImageLimits) -> bool:
    """Whether a text is longer than a path can be, or base64."""
    if len(text) > LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in text.split("/")):
        return True
    return looks_like_base64(text) and not (limits.may_open(text) and os.path.exists(text))


def file_url_path(url: str) -> Path:
    """Return the path that a ``file:`` URL says; raises ``ImageError`` where it is one of another host."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ImageError("a file URL of another host; write file:///path")
    return Path(url2pathname(parts.path))


def open_file(path: Path, limits: ImageLimits) -> BinaryIO:
    """Open a file; raises ``ImageError`` where it may not be opened, is none, is empty, or is over the limit."""
    return limits.open_file(path, lambda status: _check_file(status, limits.max_bytes))


def open_bytes(data: bytes, max_bytes: int) -> BinaryIO:
    """Return a stream of bytes; raises ``ImageError`` where there are none, or more than ``max_bytes``."""
    _check_length(len(data), max_bytes)
    return io.BytesIO(data)


def _check_file(status: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for its writer
        raise ImageError("not a regular file; pass the path of an image file")
    _check_length(status.st_size, max_bytes)


def _check_length(length: int, max_bytes: int) -> None:
    if not length:
        raise ImageError("zero bytes; it was not written or downloaded completely")
    if length > max_bytes:
        raise ImageError(f"{length} bytes are over the limit of {max_bytes}; shrink the image or raise max_bytes")
