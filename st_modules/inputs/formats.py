"""Which images are read: what they are called, and what their files begin with."""

from __future__ import annotations

import base64
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from st_modules.errors import ImageError
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.local_files import LONGEST_PATH

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "AVIF")
"""Pillow's names of the raster formats that it decodes itself: nothing that starts a program (EPS) or wraps others."""

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".avifs"}
)
"""What the names of files in these formats end with."""

# Pictures of other formats: a file of such a name is one that cannot be read, and no text.
_OTHER_SUFFIXES = frozenset(
    {".heic", ".heif", ".svg", ".jxl", ".ico", ".icns", ".psd", ".tga", ".jp2", ".j2k", ".eps", ".pcx", ".dds", ".xbm"}
    | {".pfm", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"}
)

# "BM" and "P6" alone are how a text may begin, and the length of a DIB's header is a number like others: its planes,
# which are one, and its bits a pixel tell more.
_SIGNATURES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM....\0\0\0\0|II[*+]\0|MM\0[*+]"
    rb"|[(48@l|]\0{3}.{8}\x01\0[\x01\x04\x08\x10\x18\x20]\0|....ftyp(?:avi[fs]|m[is]f1)"
    rb"|P[1-6]\s+(?:#[^\n]*\n\s*)*\d+\s+\d+\s",
    re.DOTALL,
)
_HEAD = 4096
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{24,}={0,2}\s*")
# Long, with letters of both cases and digits, and without a dot: the name of hardly any file.
_LONG_BASE64 = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9+][A-Za-z0-9+/\s]{62,}={0,2}\s*", re.DOTALL)


def image_suffixes() -> frozenset[str]:
    """Return what the names of pictures end with, in lower case, of formats that cannot be read too."""
    return IMAGE_SUFFIXES | _OTHER_SUFFIXES


def begins_like_image(head: bytes) -> bool:
    """Whether a file begins as one of these formats does."""
    return _SIGNATURES.match(head) is not None


def is_base64_of_image(text: str) -> bool:
    """Whether a text is the base64 of an image, without the ``data:`` that says so; only its beginning is looked at."""
    head = text[:128]
    if not _BASE64.fullmatch(head):
        return False
    compact = "".join(head.split()).rstrip("=")
    return begins_like_image(base64.b64decode(compact[: len(compact) // 4 * 4]))


def looks_like_base64(text: str) -> bool:
    """Whether a text is base64, of an image or of anything else; only its beginning is looked at."""
    return is_base64_of_image(text) or _LONG_BASE64.fullmatch(text[:128]) is not None


def has_image_suffix(path: str) -> bool:
    """Whether a path ends as those of images do, of formats that cannot be read too."""
    return os.path.splitext(path)[1].lower() in image_suffixes()


def is_regular_file(path: str) -> bool:
    """Whether a path is one of a regular file; one that cannot be a path is not. Nothing is opened."""
    if not path or len(path) > LONGEST_PATH or "\n" in path or "\0" in path:
        return False
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def is_image_file(path: str, limits: ImageLimits) -> bool:
    """Whether a regular file is called as images are, or begins as one does."""
    if has_image_suffix(path):
        return True
    try:
        with _open(path, limits) as stream:
            # Files of /proc say that they have no bytes, and some make a reader wait.
            return os.fstat(stream.fileno()).st_size > 0 and begins_like_image(stream.read(_HEAD))
    except (OSError, ImageError):
        return False


def _open(path: str, limits: ImageLimits) -> BinaryIO:
    if limits.local_files is True:
        return open(path, "rb")
    return limits.open_file(Path(path), lambda status: None)
