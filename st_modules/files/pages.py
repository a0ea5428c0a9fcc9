"""PDFs, by page: each page as it looks."""

from __future__ import annotations

import io
import math
import os
import re
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from st_modules._imports import import_extra
from st_modules.errors import InputError
from st_modules.files.records import NamedImage, Problems, Record, keep_image, make_record
from st_modules.inputs.limits import ImageLimits

PAGE_DPI = 144
"""A4 has 2.0 million pixels then, as many as DSE reads at most (2560 tokens of 28x28), and twice as many as GME."""

MOST_PAGES = 10_000
MOST_CHARACTERS = 1_000_000
"""Of a page's text."""

# A word that is divided at the end of a line, and what else of PDFium's text is not to be printed.
_DIVIDED = re.compile("[\x02\ufffe]\\s*")
_UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\ufffe\uffff\ud800-\udfff]")


class _Turn:
    """One thread at a time; a new lock in a process that is forked off, since the old one may be held just then."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


PDFIUM = _Turn()
"""What is held while PDFium runs, or lets go of something: it serves one thread at a time, whatever the document."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=PDFIUM.renew)


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
    records: list[Record] = []
    with PDFIUM, closing(open_pdf(path, str(path))) as document:
        for index in range(len(document)):
            place = f"{path}, page {index + 1}"
            with problems.collect_record(place):
                image = render_page(document, index, place, PAGE_DPI, ImageLimits.max_pixels)
                page = keep_image(encode_page(image), scratch)
                records.append(make_record(place, image=NamedImage(f"{path}#page={index + 1}", page)))
    return records


def open_pdf(source: Path | bytes | BinaryIO, name: str) -> Any:
    """Open a PDF; ``PDFIUM`` is held meanwhile, and whenever something is done with it.

    Args:
        source: The file, or its content. One that is open already stays so, and is needed as long as the document.
        name: What error messages call it.

    Returns:
        The document of pypdfium2, to be closed.

    Raises:
        InputError: It is damaged or encrypted, or has no pages or too many.
        MissingExtraError: pypdfium2 is not installed.
    """
    pypdfium2 = import_extra("pypdfium2", extra="pdf")
    try:
        document = pypdfium2.PdfDocument(source)
    except pypdfium2.PdfiumError as error:
        problem = f"not a PDF with pages that can be read ({error})"
        if "password" in str(error):
            problem = "needs a password; save it without one"
        raise InputError(problem, name) from error
    if not 0 < len(document) <= MOST_PAGES:
        count = len(document)
        document.close()
        raise InputError(f"a PDF of {count} pages; between 1 and {MOST_PAGES} are read.", name)
    document.init_forms()
    return document


def render_page(document: Any, index: int, place: str, dpi: int, max_pixels: int) -> Image.Image:
    """Return a page as it looks, form fields and annotations included.

    Args:
        document: As ``open_pdf`` returns it.
        index: The page, from 0.
        place: What error messages call it.
        dpi: How large it is rendered.
        max_pixels: Most pixels that it has; a page that would be over is rendered smaller.

    Raises:
        InputError: It is damaged, or so elongated that it cannot be rendered.
    """
    with _open_page(document, index, place) as page:
        width, height = page.get_size()
        scale = min(dpi / 72, 0.99 * math.sqrt(max_pixels / (width * height)))
        if math.ceil(width * scale) * math.ceil(height * scale) > max_pixels:
            raise InputError(f"{width:g}x{height:g} points are too elongated to be rendered.", place)
        with closing(page.render(scale=scale)) as bitmap:
            image: Image.Image = bitmap.to_pil().copy()
            return image


def read_page_text(document: Any, index: int, place: str) -> str:
    """Return what is written on a page as characters, not drawn; it may be nothing.

    Args:
        document: As ``open_pdf`` returns it.
        index: The page, from 0.
        place: What error messages call it.

    Raises:
        InputError: It is damaged, or has more than ``MOST_CHARACTERS``.
    """
    with _open_page(document, index, place) as page, closing(page.get_textpage()) as text:
        count = text.count_chars()
        if count > MOST_CHARACTERS:
            raise InputError(f"{count} characters; at most {MOST_CHARACTERS} are read of a page.", place)
        written: str = text.get_text_range(errors="ignore") if count > 0 else ""
    lines = _UNPRINTABLE.sub("", _DIVIDED.sub("", written.replace("\r\n", "\n"))).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip()


def encode_page(image: Image.Image) -> bytes:
    """Return a rendered page as PNG."""
    encoded = io.BytesIO()
    image.save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()


@contextmanager
def _open_page(document: Any, index: int, place: str) -> Generator[Any, None, None]:
    pypdfium2 = import_extra("pypdfium2", extra="pdf")
    try:
        with closing(document[index]) as page:
            yield page
    except pypdfium2.PdfiumError as error:
        raise InputError(f"damaged or not readable ({error})", place) from error
