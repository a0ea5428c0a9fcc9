"""Pictures, and what is loaded of texts and pictures together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from st_modules.errors import ImageError
from st_modules.index.entries import Loaded, digest
from st_modules.index.sources.stored import HAS_PASSWORD, StoredFile, find_file, find_protocol, hide_password
from st_modules.inputs.images import ImageSource
from st_modules.inputs.items import check_text
from st_modules.inputs.limits import ImageLimits

_WEB = ("http", "https")
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf"})
"""Protocols of addresses that any table may have."""


class Picture(Protocol):
    """A picture, by where it is. It can be pickled."""

    @property
    def reference(self) -> str:
        """What the table keeps of it."""
        ...

    @property
    def state(self) -> list[Any]:
        """What tells, without reading it, that it is the same; as JSON."""
        ...

    @property
    def held(self) -> int:
        """How many bytes of it are in memory already."""
        ...

    def read(self, place: str, limits: ImageLimits) -> bytes:
        """Return the encoded picture.

        Raises:
            InputError: It cannot be read, or has changed since it was found.
        """
        ...


@dataclass(frozen=True)
class FilePicture:
    """A picture in a file that was found."""

    file: StoredFile
    held = 0

    @property
    def reference(self) -> str:
        """Where the file is."""
        return self.file.source

    @property
    def state(self) -> list[Any]:
        """Size and time of the file."""
        return [self.file.source, self.file.size, self.file.version]

    def read(self, place: str, limits: ImageLimits) -> bytes:
        """Read the file, if it is the one that was found."""
        return self.file.read(limits.max_bytes)


@dataclass(frozen=True)
class FoundPicture(FilePicture):
    """A picture on this machine that a table names, which may be opened only as far as the limits say."""

    @classmethod
    def find(cls, path: Path, place: str, limits: ImageLimits) -> FoundPicture:
        """Find it.

        Raises:
            ImageError: There is none, or it may not be opened; which of these, is not told in the second case.
        """
        # Opened where a folder bounds what may be, so that nobody learns of files outside.
        if limits.local_files is True:
            try:
                status = os.stat(path)
            except (OSError, ValueError):
                ImageSource(path, place, limits).open().close()
                raise
        else:
            with ImageSource(path, place, limits).open() as stream:
                status = os.fstat(stream.fileno())
        return cls(StoredFile(os.path.abspath(path), status.st_size, str(status.st_mtime_ns)))

    def read(self, place: str, limits: ImageLimits) -> bytes:
        """Read the file, if it may be opened still and is the one that was found."""
        with ImageSource(Path(self.file.source), place, limits).open() as stream:
            content = stream.read(limits.max_bytes + 1)
        self.file.check()
        return content


@dataclass(frozen=True)
class AddressPicture:
    """A picture at an address: on the web, or in a store that is read with the user's own credentials."""

    reference: str
    held = 0

    @property
    def state(self) -> list[Any]:
        """The address: nothing is fetched to find out."""
        return [self.reference]

    @classmethod
    def find(cls, url: str, source: str, place: str, limits: ImageLimits) -> AddressPicture:
        """Make sure that it may be fetched; nothing is yet.

        Args:
            url: The address.
            source: The table that names it, whose own file system is read too.
            place: What messages call the row.
            limits: Where pictures may come from.

        Raises:
            ImageError: It may not.
        """
        if not limits.remote_images:
            raise ImageError("fetching is turned off (remote_images=False); pass the image itself", place)
        protocol = find_protocol(url)
        if protocol not in (*_WEB, *OBJECT_STORES, find_protocol(source)):
            raise ImageError(f"an address of the protocol {protocol}: ..., of which no pictures are read", place)
        if hide_password(url) != url:
            raise ImageError(HAS_PASSWORD, place)
        return cls(url)

    def read(self, place: str, limits: ImageLimits) -> bytes:
        """Fetch it, within the limits."""
        if find_protocol(self.reference) not in _WEB:
            return find_file(self.reference).read(limits.max_bytes)
        with ImageSource(self.reference, place, limits).open() as stream:
            return stream.read()


@dataclass(frozen=True)
class MemberPicture:
    """A picture in an archive that is not compressed.

    Attributes:
        reference: The archive and the picture's name in it.
        file: The archive.
        offset: Where the picture begins.
        size: In bytes.
    """

    reference: str
    file: StoredFile
    offset: int
    size: int
    held = 0

    @property
    def state(self) -> list[Any]:
        """Size and time of the archive, and the place in it."""
        return [self.reference, self.file.size, self.file.version, self.offset]

    def read(self, place: str, limits: ImageLimits) -> bytes:
        """Read this part of the archive."""
        if self.size > limits.max_bytes:
            raise ImageError(f"{self.size} bytes are over the limit of {limits.max_bytes}", self.reference)
        return self.file.read_part(self.offset, self.size)


@dataclass(frozen=True)
class HeldPicture:
    """An encoded picture that was read with what it stands in: a cell, a member of a compressed archive."""

    reference: str
    encoded: bytes

    @property
    def state(self) -> list[Any]:
        """Where it stands, which must not point to another picture when rows have moved; and its content."""
        return [self.reference, digest(self.encoded)]

    @property
    def held(self) -> int:
        """All of it."""
        return len(self.encoded)

    def read(self, place: str, limits: ImageLimits) -> bytes:
        """Return it."""
        return self.encoded


@dataclass(frozen=True)
class ItemContent:
    """A text, pictures, or both.

    Attributes:
        place: What messages call it.
        text: The text.
        pictures: The pictures.
        limits: What these may cost, and where they may come from.
    """

    place: str
    text: str | None
    pictures: tuple[Picture, ...]
    limits: ImageLimits

    def load(self) -> Loaded:
        """Read the pictures.

        Raises:
            InputError: One cannot be read, or has changed since it was found.
        """
        pictures = [each.read(self.place, self.limits) for each in self.pictures]
        return load_item(self.place, self.text, pictures, self.limits)


def load_item(place: str, text: str | None, pictures: Sequence[bytes], limits: ImageLimits) -> Loaded:
    """Put together what is embedded.

    Args:
        place: What messages call it.
        text: The text.
        pictures: The encoded pictures.
        limits: What these may cost.

    Raises:
        InputError: The header of a picture cannot be read, or the text is none.
    """
    if text is not None:
        check_text(text, place)
    images = [ImageSource(each, place, limits) for each in pictures]
    for image in images:
        _ = image.size
    # An empty text beside a picture says nothing, as in an item that is passed to encode.
    used = None if images and not text else text
    item: dict[str, Any] = {} if used is None else {"text": used}
    if images:
        item["image"] = images[0] if len(images) == 1 else images
    return Loaded(item, text, digest(used, *pictures))
