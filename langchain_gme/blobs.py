"""LangChain's ``Blob``, which holds a text or an image or names the file of one."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from reprlib import repr as shorten
from typing import Any

from langchain_core.documents.base import Blob

from st_modules import ImageLimits, InputError, Place


def read_blob(blob: Blob, place: Place, limits: ImageLimits | None = None) -> dict[str, Any]:
    """Return the text of a blob as ``{"text": ...}``, or ``{"image": ...}`` or ``{"video": ...}``, which is not opened.

    Its media type decides. Where it has none, a string is a text, and bytes or a path are an image.

    Args:
        blob: The blob.
        place: Where it stands, for errors.
        limits: Which files may be opened; ``ImageLimits()`` where it is left out.

    Raises:
        InputError: It is neither a text nor an image, or its text cannot be read.
    """
    if is_text_blob(blob, place):
        return {"text": _read_text(blob, place, limits or ImageLimits())}
    medium = "video" if _kind_of(blob).startswith("video/") else "image"
    return {medium: read_image_blob(blob, place, medium)}


def is_text_blob(blob: Blob, place: Place) -> bool:
    """Whether a blob is a text; one that has nothing in it is refused."""
    kind = _kind_of(blob)
    if blob.data is None and blob.path is None:
        raise InputError("a blob with neither data nor a path; leave it out", place)
    return kind.startswith("text/") or (not kind and isinstance(blob.data, str))


def read_image_blob(blob: Blob, place: Place, medium: str = "image") -> Any:
    """Return what ``ImageSource``, or ``VideoSource``, takes for a blob that is no text; it is not opened.

    Raises:
        InputError: It is no image, or no video.
    """
    kind = _kind_of(blob)
    if kind and not kind.startswith(f"{medium}/"):
        raise InputError(
            f"a blob of the type {shorten(blob.mimetype)} cannot be embedded; pass its text, or its pages as images",
            place,
        )
    if blob.data is None:
        return Path(str(blob.path))
    return blob.data.encode("utf-8", "replace") if isinstance(blob.data, str) else blob.data


def _kind_of(blob: Blob) -> str:
    return (blob.mimetype or "").strip().lower()


def _read_text(blob: Blob, place: Place, limits: ImageLimits) -> str:
    try:
        data = _read_file(Path(str(blob.path)), limits) if blob.data is None else blob.data
        return data if isinstance(data, str) else data.decode(blob.encoding)
    except InputError as error:
        raise InputError(f"{blob.path}: {error.problem}", place) from error
    except OSError as error:
        raise InputError(f"{blob.path}: {error.strerror or error}; check the path", place) from error
    except (UnicodeDecodeError, LookupError) as error:
        raise InputError(f"its bytes are not {blob.encoding} ({error}); name the blob's encoding", place) from error
    except ValueError as error:
        raise InputError(f"{shorten(blob.path)} is no path ({error}); correct it", place) from error


def _read_file(path: Path, limits: ImageLimits) -> bytes:
    with limits.open_file(path, _check_regular) as stream:
        data = stream.read(limits.max_bytes + 1)
    if len(data) > limits.max_bytes:
        raise InputError(f"more than {limits.max_bytes} bytes; split the text")
    return data


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for its writer
        raise InputError("not a regular file; pass the path of a text")
