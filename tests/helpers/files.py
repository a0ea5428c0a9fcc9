"""Files that the command line reads, and reading them as it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import pypdfium2
from PIL import Image

from st_modules.files.records import Reading

Read: TypeAlias = Callable[..., Reading]
"""Reads a path, by the columns that keywords name."""


def write_pdf(path: Path, colours: Sequence[str], size: tuple[float, float] = (30, 20)) -> Path:
    """Pages that are all of one colour."""
    with pypdfium2.PdfDocument.new() as document:
        for colour in colours:
            page = document.new_page(*size)
            picture = pypdfium2.PdfImage.new(document)
            picture.set_bitmap(pypdfium2.PdfBitmap.from_pil(Image.new("RGB", (4, 4), colour)))
            picture.set_matrix(pypdfium2.PdfMatrix().scale(*size))
            page.insert_obj(picture)
            page.gen_content()
        document.save(path)
    return path
