"""The picture of a hit, read again from where the item came from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from st_modules._imports import import_extra
from st_modules.errors import ImageError, in_one_line
from st_modules.index.hits import Hit
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits


def open_picture(hit: Hit, limits: ImageLimits, page_side: int) -> Image.Image | None:
    """Read the picture of a hit.

    Args:
        hit: The hit.
        limits: What the picture may cost, and where it may come from.
        page_side: Length in pixels of the longer side of a page of a PDF.

    Returns:
        The picture; ``None`` where the item has none.

    Raises:
        ImageError: It cannot be read.
    """
    if hit.page is not None:
        return _render_page(hit.source, hit.page, page_side, limits)
    return None if hit.image is None else ImageSource(hit.image, hit.id, limits).load()


def _render_page(source: str, number: int, side: int, limits: ImageLimits) -> Image.Image:
    pypdfium2: Any = import_extra("pypdfium2", extra="index")
    place = f"{source}, page {number}"
    with _open_pdf(source, place, limits) as stream:
        try:
            with pypdfium2.PdfDocument(stream) as document:
                document.init_forms()
                if not 0 < number <= len(document):
                    raise ImageError(f"{source}: a PDF of {len(document)} pages", place)
                page = document[number - 1]
                width, height = page.get_size()
                bitmap = page.render(scale=_scale(width, height, side))
                return bitmap.to_pil().copy()
        except pypdfium2.PdfiumError as error:
            raise ImageError(f"{source}: not a PDF that can be read ({in_one_line(error)})", place) from error


def _open_pdf(source: str, place: str, limits: ImageLimits) -> BinaryIO:
    # A PDF on this machine, of which one page is read, may be larger than a picture.
    if "://" in source:
        return ImageSource(source, place, limits).open()
    try:
        return limits.open_file(Path(source), lambda status: None)
    except OSError as error:
        raise ImageError(f"{source}: {error.strerror or error}", place) from error


def _scale(width: float, height: float, side: int) -> float:
    scale = side / max(width, height)
    # A page of next to no width has a pixel of it.
    return scale if math.isfinite(scale) and scale > 0 else 1.0
