"""A data set that holds its pictures, as a folder of files: what triplets name, and what mining reads."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from st_modules.errors import ImageError, InputError
from st_modules.inputs.image_conversion import to_rgb
from st_modules.inputs.images import ImageSource

_FILES_IN_A_FOLDER = 10_000
_MODES_OF_PNG = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B"})


def save_pictures(
    rows: Iterable[Mapping[str, Any]], folder: str | Path, *, image: str = "image", caption: str | None = None
) -> int:
    """Write the pictures of a data set to a folder, with a ``metadata.jsonl`` that has their captions.

    Args:
        rows: A data set of ``datasets``, streamed or not, or any mappings. A picture is a ``PIL.Image.Image``, which is
            stored as PNG (in RGB where PNG lacks its mode, such as CMYK), or a mapping with its encoded ``bytes`` or,
            where they are ``None``, its ``path`` (what ``datasets.Image(decode=False)`` gives), which are stored as
            they are.
        folder: A folder that is empty, or that is made.
        image: The column with the picture.
        caption: The column with the caption, if there is one.

    Returns:
        How many pictures were written.

    Raises:
        InputError: The folder has something in it, or a row is not of this form; the message has the row's number.
        ImageError: The bytes of a row are no image, or its picture has values that 8 bits do not hold.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: not an empty folder; pass another one.")
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as stream:
        for number, row in enumerate(rows):
            fields = {"file_name": _save(row, image, folder, number), **_caption(row, caption, number)}
            stream.write(json.dumps(fields, ensure_ascii=False) + "\n")
            written += 1
    return written


def _save(row: Mapping[str, Any], column: str, folder: Path, number: int) -> str:
    picture = row.get(column)
    if isinstance(picture, Image.Image):
        data, suffix = _encode_png(picture, number), "png"
    elif isinstance(picture, Mapping):
        data = _read_stored(picture, number)
        suffix = _suffix(data, number)
    else:
        raise InputError(f"row {number}: {column!r} is no picture, but of type {type(picture).__name__}.")
    path = folder / f"{number // _FILES_IN_A_FOLDER:04}" / f"{number:08}.{suffix}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path.relative_to(folder).as_posix()


def _encode_png(picture: Image.Image, number: int) -> bytes:
    image = ImageSource(picture, f"row {number}").load()
    stream = io.BytesIO()
    (image if image.mode in _MODES_OF_PNG else to_rgb(image)).save(stream, "PNG")
    return stream.getvalue()


def _read_stored(picture: Mapping[Any, Any], number: int) -> bytes:
    data, path = picture.get("bytes"), picture.get("path")
    if isinstance(data, bytes):
        return data
    if isinstance(path, str) and Path(path).is_file():
        return Path(path).read_bytes()
    raise InputError(f"row {number}: a picture without bytes, and its path {path!r} is no file.")


def _suffix(data: bytes, number: int) -> str:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return (picture.format or "").lower()
    except OSError as error:
        raise ImageError(f"row {number}: its bytes are no image; leave the row out.") from error


def _caption(row: Mapping[str, Any], column: str | None, number: int) -> dict[str, str]:
    if column is None or row.get(column) is None:
        return {}
    if not isinstance(row[column], str):
        raise InputError(f"row {number}: {column!r} must be a string, not of type {type(row[column]).__name__}.")
    try:
        row[column].encode()
    except UnicodeEncodeError as error:
        raise InputError(f"row {number}: {column!r} has a lone surrogate, which is no character.") from error
    return {"caption": row[column]}
