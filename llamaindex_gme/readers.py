"""Readers of pictures and PDFs for ``SimpleDirectoryReader``, which without them takes their bytes for text."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path, PurePath
from threading import Lock
from typing import Any, BinaryIO

from llama_index.core.readers.base import BaseReader
from llama_index.core.schema import Document, ImageDocument, MediaResource

from llamaindex_gme.nodes import mark_image
from st_modules import ImageError, ImageLimits, ImageSource, InputError, MissingExtraError, image_suffixes

PAGE_DPI = 144
"""At which pages are rendered: A4 has 2.0 million pixels then."""

MOST_PAGES = 10_000

# PDFium serves one thread at a time, and core reads files in several.
_PDFIUM = Lock()


def multimodal_readers(
    *, page_folder: str | os.PathLike[str] | None = None, limits: ImageLimits | None = None
) -> dict[str, BaseReader]:
    """Return readers of pictures and PDFs, for the ``file_extractor`` of core's ``SimpleDirectoryReader``.

    A picture becomes a document with the picture, a PDF one document a page, with the page's picture and its text.
    Their metadata has the picture's SHA-256, so that a file that has changed is another document. A file that cannot be
    read is skipped or raises, as ``raise_on_error`` says; pictures of formats that are not read (HEIC, SVG) are such
    files.

    Args:
        page_folder: Where the pictures of pages are kept as PNG files. By default they are in the documents as base64,
            and so wherever these are stored.
        limits: What a picture may cost, and which files may be opened.

    Returns:
        A reader for each suffix.

    Example:
        >>> documents = SimpleDirectoryReader("folder", file_extractor=multimodal_readers()).load_data()
    """
    limits = limits or ImageLimits()
    pictures = PictureReader(limits)
    return {**dict.fromkeys(sorted(image_suffixes()), pictures), ".pdf": PageReader(limits, page_folder)}


class PictureReader(BaseReader):
    """Reads pictures; see :func:`multimodal_readers`."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits

    def load_data(self, file: PurePath, extra_info: dict[str, Any] | None = None, fs: Any = None) -> list[Document]:
        """Read a picture.

        Args:
            file: Its path.
            extra_info: The document's metadata.
            fs: The file system of fsspec that the path is of, where it is not the local one. The picture is in the
                document as base64 then.

        Raises:
            ImageError: It is damaged, of another format, or over a limit.
        """
        if fs is None:
            source = ImageSource(Path(file), limits=self._limits)
            resource = MediaResource(path=Path(file))
        else:
            with fs.open(str(file), "rb") as stream:
                encoded = stream.read(self._limits.max_bytes + 1)
            source = ImageSource(encoded, str(file), self._limits)
            resource = MediaResource(data=base64.b64encode(encoded))
        source.load()
        return [_document("", resource, source.digest("sha256").hex(), extra_info)]


class PageReader(BaseReader):
    """Reads the pages of PDFs; see :func:`multimodal_readers`."""

    def __init__(self, limits: ImageLimits, folder: str | os.PathLike[str] | None) -> None:
        self._limits = limits
        self._folder = None if folder is None else Path(folder)

    def load_data(self, file: PurePath, extra_info: dict[str, Any] | None = None, fs: Any = None) -> list[Document]:
        """Read the pages of a PDF.

        Args:
            file: Its path.
            extra_info: Metadata of the documents, which have the number of their page too, as ``page_label``.
            fs: The file system of fsspec that the path is of, where it is not the local one.

        Raises:
            InputError: It is damaged or encrypted, or has too many pages or one that cannot be rendered.
            MissingExtraError: pypdfium2 is not installed.
        """
        with self._open(file, fs) as source, _PDFIUM:
            return list(self._pages(file, source, extra_info or {}))

    def _open(self, file: PurePath, fs: Any) -> BinaryIO:
        if fs is not None:
            return io.BytesIO(fs.cat_file(str(file)))
        try:
            return self._limits.open_file(Path(file), lambda status: None)
        except ImageError as error:
            raise InputError(error.problem, str(file)) from error

    def _pages(self, file: PurePath, source: BinaryIO, metadata: dict[str, Any]) -> Iterator[Document]:
        try:
            import pypdfium2
        except ImportError as error:
            raise MissingExtraError('This needs pypdfium2: pip install "st-modules[pdf]"') from error
        place = str(file)
        try:
            with pypdfium2.PdfDocument(source) as pdf:
                pdf.init_forms()
                if not 0 < len(pdf) <= MOST_PAGES:
                    raise InputError(f"a PDF of {len(pdf)} pages; between 1 and {MOST_PAGES} are read", place)
                for number in range(1, len(pdf) + 1):
                    place = f"{file}, page {number}"
                    page = pdf[number - 1]
                    encoded, text = self._render(page, place), page.get_textpage().get_text_bounded()
                    page.close()
                    resource, identity = self._keep(encoded), sha256(encoded).hexdigest()
                    yield _document(text, resource, identity, {**metadata, "page_label": str(number)})
        except pypdfium2.PdfiumError as error:
            to_do = "save it without its password" if "password" in str(error) else "save or download it again"
            raise InputError(f"damaged or not readable ({error}); {to_do}", place) from error

    def _render(self, page: Any, place: str) -> bytes:
        """A page as PNG, smaller where it would be over the limit of pixels."""
        width, height = page.get_size()
        scale = min(PAGE_DPI / 72, 0.99 * math.sqrt(self._limits.max_pixels / (width * height)))
        if math.ceil(width * scale) * math.ceil(height * scale) > self._limits.max_pixels:
            raise InputError(f"{width:g}x{height:g} points are too elongated to be rendered", place)
        bitmap = page.render(scale=scale)
        encoded = io.BytesIO()
        bitmap.to_pil().save(encoded, "PNG", compress_level=1)
        bitmap.close()
        return encoded.getvalue()

    def _keep(self, encoded: bytes) -> MediaResource:
        if self._folder is None:
            return MediaResource(data=base64.b64encode(encoded))
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{sha256(encoded).hexdigest()}.png"
        if not path.exists():
            path.write_bytes(encoded)
        return MediaResource(path=path)


def _document(text: str, image: MediaResource, identity: str, metadata: dict[str, Any] | None) -> Document:
    document = ImageDocument(
        text_resource=MediaResource(text=text),
        image_resource=image,
        metadata=dict(metadata or {}),
        excluded_embed_metadata_keys=["page_label"] if "page_label" in (metadata or {}) else [],
    )
    mark_image(document, identity)
    return document
