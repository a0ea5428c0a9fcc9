"""Files that are one item each: pictures and texts."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

from st_modules.errors import InputError
from st_modules.index.entries import Entry, Loaded, digest
from st_modules.index.sources.items import FilePicture, ItemContent, load_item
from st_modules.index.sources.notes import Notes
from st_modules.index.sources.options import SourceOptions
from st_modules.index.sources.stored import StoredFile

LONGEST_TEXT = 16 * 1024 * 1024
"""In bytes; a model reads the first few thousand words."""


def read_picture(file: StoredFile, options: SourceOptions, notes: Notes) -> Iterator[Entry]:
    """Yield a picture."""
    picture = FilePicture(file)
    content = ItemContent(file.source, None, (picture,), options.limits)
    yield Entry(file.source, file.source, digest("picture", *picture.state), content, image=file.source)


def read_text(file: StoredFile, options: SourceOptions, notes: Notes) -> Iterator[Entry]:
    """Yield a text, all of the file."""
    state = digest("text", file.source, file.size, file.version)
    yield Entry(file.source, file.source, state, TextContent(file, options))


@dataclass(frozen=True)
class TextContent:
    """A text in a file of its own."""

    file: StoredFile
    options: SourceOptions

    def load(self) -> Loaded:
        """Read it.

        Raises:
            InputError: It cannot be read, is empty, too long or not UTF-8, or has changed since it was found.
        """
        place = self.file.source
        content = self.file.read(LONGEST_TEXT).removeprefix(codecs.BOM_UTF8)
        if b"\0" in content:
            raise InputError("not UTF-8 text but binary; leave it out, or save it as UTF-8", place)
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError("not UTF-8 text; save it as UTF-8", place) from error
        if not text.strip():
            raise InputError("nothing is written in it; delete it, or write the text", place)
        return load_item(place, text, [], self.options.limits)
