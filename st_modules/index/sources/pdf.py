"""PDFs: one item a page, as it looks and with what is written on it."""

from __future__ import annotations

import atexit
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st_modules.files import pages
from st_modules.index.entries import Entry, Loaded, digest
from st_modules.index.sources.notes import Notes
from st_modules.index.sources.options import SourceOptions
from st_modules.index.sources.stored import StoredFile, is_remote
from st_modules.inputs.images import ImageSource

LARGEST_REMOTE = 256 * 1024 * 1024
"""In bytes: a PDF that is not on this machine is read into memory."""

# The documents that pages were last loaded of: opening one for each of its pages would read it as often. Touched only
# while ``pages.PDFIUM`` is held.
_OPEN: OrderedDict[StoredFile, Any] = OrderedDict()
_MOST_OPEN = 2
_LEFT: list[OrderedDict[StoredFile, Any]] = []


def read_pdf(file: StoredFile, options: SourceOptions, notes: Notes) -> Iterator[Entry]:
    """Yield the pages, which are not read yet.

    Raises:
        InputError: The file is damaged or encrypted, or has no pages or too many.
        MissingExtraError: pypdfium2 is not installed.
    """
    with file.open() as stream, pages.PDFIUM, closing(pages.open_pdf(stream, file.source)) as document:
        count = len(document)
    for number in range(1, count + 1):
        place = f"{file.source}#page={number}"
        state = digest("pdf", file.source, file.size, file.version, number, options.dpi)
        yield Entry(file.source, place, state, PageContent(file, number, options), image=place, page=number)


@dataclass(frozen=True)
class PageContent:
    """A page of a PDF.

    Attributes:
        file: The PDF.
        page: The page, from 1.
        options: How it is rendered.
    """

    file: StoredFile
    page: int
    options: SourceOptions

    def load(self) -> Loaded:
        """Render it, and read its text.

        Raises:
            InputError: It is damaged, or the file has changed since it was found.
            MissingExtraError: pypdfium2 is not installed.
        """
        place, limits = f"{self.file.source}#page={self.page}", self.options.limits
        self.file.check()
        with pages.PDFIUM:
            document = _find_document(self.file)
            text = pages.read_page_text(document, self.page - 1, place)
            image = pages.render_page(document, self.page - 1, place, self.options.dpi, limits.max_pixels)
        self.file.check()
        # By its pixels: what PNG makes of them differs from release to release of the compressor.
        content = digest(text, ImageSource(image, place, limits).digest())
        item: dict[str, Any] = {"image": ImageSource(pages.encode_page(image), place)}
        return Loaded({"text": text, **item} if text else item, text or None, content)


def _find_document(file: StoredFile) -> Any:
    document = _OPEN.pop(file, None)
    if document is None:
        # After pypdfium2's own, which runs later then and finds nothing that is open.
        atexit.unregister(_close_documents)
        atexit.register(_close_documents)
        source = file.read(LARGEST_REMOTE) if is_remote(file.source) else Path(file.source)
        document = pages.open_pdf(source, file.source)
        while len(_OPEN) >= _MOST_OPEN:
            _OPEN.popitem(last=False)[1].close()
    _OPEN[file] = document
    return document


def _close_documents() -> None:
    while _OPEN:
        _OPEN.popitem()[1].close()


def _leave_documents() -> None:
    """Use none of the documents of the process that this one was forked off: they share the place in their files."""
    _LEFT.append(_OPEN.copy())  # closing them would call PDFium, which may be in the midst of something
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_documents)
