"""The picture of a hit, as the index keeps it or read again from where the item came from; and made small."""

from __future__ import annotations

import io
import json
import os
import stat
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from st_modules.errors import ImageError, InputError
from st_modules.files.pages import PAGE_DPI, PDFIUM, open_pdf, render_page
from st_modules.index.hits import Hit
from st_modules.inputs.image_conversion import to_rgb
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits


def open_picture(hit: Hit, limits: ImageLimits, page_pixels: int) -> Image.Image | None:
    """Read the picture of a hit.

    Args:
        hit: The hit.
        limits: What the picture may cost, and where it may come from.
        page_pixels: How many pixels a page of a PDF has at most.

    Returns:
        The picture; ``None`` where the item has none.

    Raises:
        InputError: It cannot be read.
    """
    if hit.page is not None:
        return _render_page(hit.source, hit.page, page_pixels, limits)
    if hit.image is None:
        return None
    path = _find_first(hit.image)
    try:
        return ImageSource(path, hit.id, limits).load()
    except InputError as error:
        if "#" not in path:
            raise
        raise ImageError(
            "a picture in a table or an archive, which is not read again; index it with thumbnails", hit.id
        ) from error


def open_kept_picture(hit: Hit, limits: ImageLimits, page_pixels: int) -> Image.Image | None:
    """Read the picture of a hit as :func:`open_picture` does, or its thumbnail where it cannot be read again."""
    try:
        return open_picture(hit, limits, page_pixels)
    except (InputError, OSError):
        if hit.thumbnail is None:
            raise
        return ImageSource(hit.thumbnail, hit.id, limits).load()


def _find_first(image: str) -> str:
    """Return where the first picture of an item is, of which there may be a list, as JSON."""
    try:
        paths = json.loads(image)
    except ValueError:
        return image
    return paths[0] if isinstance(paths, list) and paths and isinstance(paths[0], str) else image


def write_picture(hit: Hit, limits: ImageLimits, side: int) -> bytes | None:
    """Return the picture of a hit as a small JPEG: its thumbnail, or else the picture read again.

    Args:
        hit: The hit.
        limits: As of :func:`open_picture`.
        side: How many pixels it is wide and high at most.

    Returns:
        The encoded picture; ``None`` where the item has none.

    Raises:
        InputError: It cannot be read.
    """
    if hit.thumbnail is not None:
        return encode_small(ImageSource(hit.thumbnail, hit.id, limits).load(), side)
    picture = open_picture(hit, limits, side * side)
    return None if picture is None else encode_small(picture, side)


def encode_small(picture: Image.Image, side: int) -> bytes:
    """Encode a picture as a JPEG that is at most so many pixels wide and high."""
    small = to_rgb(picture)
    small.thumbnail((side, side))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _render_page(source: str, number: int, most_pixels: int, limits: ImageLimits) -> Image.Image:
    place = f"{source}, page {number}"
    with _open_pdf_file(source, place, limits) as stream, PDFIUM, closing(open_pdf(stream, source)) as document:
        if not 0 < number <= len(document):
            raise InputError(f"a PDF of {len(document)} pages", place)
        return render_page(document, number - 1, place, PAGE_DPI, most_pixels)


def _open_pdf_file(source: str, place: str, limits: ImageLimits) -> BinaryIO:
    # A PDF on this machine, of which one page is read, may be larger than a picture.
    if "://" in source:
        return ImageSource(source, place, limits).open()
    try:
        return limits.open_file(Path(source), _check_kind)
    except OSError as error:
        raise ImageError(f"{source}: {error.strerror or error}", place) from error


def _check_kind(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for its writer
        raise ImageError("not a regular file")
