"""LangChain's ``Blob``, which holds a text or an image or names the file of one."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from langchain_core.documents.base import Blob

from st_modules import ImageLimits, InputError, Place


def read_blob(blob: Blob, place: Place) -> dict[str, Any]:
    """Return the text of a blob as ``{"text": ...}``, or its image, which is not opened, as ``{"image": ...}``.

    Its media type decides. Where it has none, a string is a text, and bytes or a path are an image.

    Raises:
        InputError: It is neither a text nor an image, or its text cannot be read.
    """
    kind = (blob.mimetype or "").strip().lower()
    if blob.data is None and blob.path is None:
        raise InputError("a blob with neither data nor a path; leave it out", place)
    if kind.startswith("text/") or (not kind and isinstance(blob.data, str)):
        return {"text": _read_text(blob, place)}
    if kind and not kind.startswith("image/"):
        raise InputError(
            f"a blob of the type {blob.mimetype!r} cannot be embedded; pass its text, or its pages as images", place
        )
    if blob.data is None:
        return {"image": Path(str(blob.path))}
    return {"image": blob.data.encode("utf-8", "replace") if isinstance(blob.data, str) else blob.data}


def _read_text(blob: Blob, place: Place) -> str:
    try:
        data = _read_file(Path(str(blob.path)), place) if blob.data is None else blob.data
        return data if isinstance(data, str) else data.decode(blob.encoding)
    except OSError as error:
        raise InputError(f"{blob.path}: {error.strerror or error}; check the path", place) from error
    except (UnicodeDecodeError, LookupError) as error:
        raise InputError(f"its bytes are not {blob.encoding} ({error}); name the blob's encoding", place) from error
    except ValueError as error:
        raise InputError(f"{blob.path!r} is no path ({error}); correct it", place) from error


def _read_file(path: Path, place: Place) -> bytes:
    limit = ImageLimits().max_bytes
    if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for its writer
        raise InputError(f"{path}: not a regular file; pass the path of a text", place)
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"{path}: more than {limit} bytes; split the text", place)
    return data
