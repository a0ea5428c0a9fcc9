"""PDFs, by page: each page as it looks."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from st_modules._imports import import_extra
from st_modules.errors import InputError
from st_modules.files.records import NamedImage, Problems, Record, keep_image, make_record
from st_modules.inputs.limits import ImageLimits

PAGE_DPI = 144
"""A4 has 2.0 million pixels then, as many as DSE reads at most (2560 tokens of 28x28), and twice as many as GME."""

MOST_PAGES = 10_000


def read_pdf(path: Path, scratch: Path, problems: Problems) -> list[Record]:
    """Render every page.

    Args:
        path: A PDF.
        scratch: A folder for the pages, which are there as PNG files until they are embedded.
        problems: Takes note of pages that cannot be rendered.

    Returns:
        A record a page, form fields and annotations included. A page that would be over ``ImageLimits.max_pixels`` is
        rendered smaller.

    Raises:
        InputError: It is damaged or encrypted, or has no pages or too many.
        MissingExtraError: pypdfium2 is not installed.
    """
    pypdfium2 = import_extra("pypdfium2", extra="pdf")
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        problem = f"not a PDF with pages that can be read ({error})"
        if "password" in str(error):
            problem = "needs a password; save it without one"
        raise InputError(problem, str(path)) from error
    records: list[Record] = []
    with document:
        document.init_forms()
        if not 0 < len(document) <= MOST_PAGES:
            raise InputError(f"a PDF of {len(document)} pages; between 1 and {MOST_PAGES} are read.", str(path))
        for index in range(len(document)):
            place = f"{path}, page {index + 1}"
            with problems.collect_record(place):
                try:
                    page = keep_image(_render(document, index, place), scratch)
                except pypdfium2.PdfiumError as error:
                    raise InputError(f"damaged or not readable ({error})", place) from error
                records.append(make_record(place, image=NamedImage(f"{path}#page={index + 1}", page)))
    return records


def _render(document: Any, index: int, place: str) -> bytes:
    """A page as PNG."""
    page = document[index]
    width, height = page.get_size()
    scale = min(PAGE_DPI / 72, 0.99 * math.sqrt(ImageLimits.max_pixels / (width * height)))
    if math.ceil(width * scale) * math.ceil(height * scale) > ImageLimits.max_pixels:
        raise InputError(f"{width:g}x{height:g} points are too elongated to be rendered.", place)
    bitmap = page.render(scale=scale)
    encoded = io.BytesIO()
    bitmap.to_pil().save(encoded, "PNG", compress_level=1)
    bitmap.close()
    page.close()
    return encoded.getvalue()
