"""A small PDF with a drawing and its caption on each page, and reading a PDF back as page images with their text."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image

from st_modules.demo.drawings import draw
from st_modules.demo.scenes import Scene
from st_modules.demo.wording import caption

SCENES = (
    Scene("circle", "red", "large", 1, "center", "white"),
    Scene("star", "green", "small", 3, "top", "white"),
    Scene("heart", "purple", "large", 2, "center", "white"),
    Scene("cross", "black", "small", 1, "left", "white"),
    Scene("moon", "orange", "large", 1, "right", "white"),
)


@dataclass(frozen=True)
class Page:
    """A page of a PDF: its number, counted from 1, how it looks, and its text."""

    number: int
    image: Image.Image
    text: str


def write_pdf(path: Path) -> None:
    """Write a PDF of five pages."""
    document = pypdfium2.PdfDocument.new()
    for scene in SCENES:
        drawing = draw(scene)
        width, height = drawing.size
        page = document.new_page(width, height + 16)
        picture = pypdfium2.PdfImage.new(document)
        picture.set_bitmap(pypdfium2.PdfBitmap.from_pil(drawing))
        picture.set_matrix(pypdfium2.PdfMatrix().scale(width, height).translate(0, 16))
        page.insert_obj(picture)
        _write_line(document, page, caption(scene))
        page.gen_content()
    document.save(path)
    document.close()


def read_pdf(path: Path) -> list[Page]:
    """Render every page of a PDF, and read its text.

    These pages are as small as the drawings on them. For a page of paper take scale=2, which is 144 dpi.
    """
    with pypdfium2.PdfDocument(path) as document:
        return [
            Page(number, page.render(scale=1).to_pil(), page.get_textpage().get_text_range().strip())
            for number, page in enumerate(document, 1)
        ]


def _write_line(document: pypdfium2.PdfDocument, page: pypdfium2.PdfPage, text: str) -> None:
    """Write one small line at the foot of a page."""
    line = pdfium.FPDFPageObj_NewTextObj(document, b"Helvetica", 4.0)
    encoded = (text + "\0").encode("utf-16-le")
    buffer = ctypes.cast(ctypes.create_string_buffer(encoded), ctypes.POINTER(ctypes.c_ushort))
    pdfium.FPDFText_SetText(line, buffer)
    pdfium.FPDFPageObj_Transform(line, 1, 0, 0, 1, 4, 5)
    pdfium.FPDFPage_InsertObject(page, line)
