"""What is read of a collection, piece by piece: cheap to hold and to send elsewhere, and read when it is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

_DIGEST_BYTES = 16
_write_json = json.JSONEncoder(sort_keys=True, ensure_ascii=True).encode


@dataclass(frozen=True)
class Loaded:
    """What an entry is, once it has been read.

    Attributes:
        item: What ``encode`` is given: ``text``, ``image`` or both.
        text: Its text, which for a page of a PDF is known only now.
        content: Digest of what is embedded, by which equal content is known again.
    """

    item: Mapping[str, Any]
    text: str | None
    content: str


class Content(Protocol):
    """What an entry embeds, by where it is. It can be pickled; making one reads nothing."""

    def load(self) -> Loaded:
        """Read it.

        Raises:
            InputError: It cannot be read, or is no longer what it was when the entry was made.
        """
        ...


@dataclass(frozen=True)
class Entry:
    """One thing to embed.

    Attributes:
        source: The file that it was read from: an absolute path, or a URL.
        place: What messages call it: ``shop.jsonl:3``, ``report.pdf#page=3``.
        state: Digest of what tells without reading its content that it is the same as before: its place in the source,
            size and time of the files, its fields.
        content: What is embedded.
        id: The id that its source gives it; ``None`` where there is none.
        text: Its text, where that is known before it is loaded.
        image: Where its picture is, as the table keeps it; ``None`` without one.
        page: Page of a PDF, from 1.
        metadata: The other fields of its row, as JSON has them.
        held: About how many bytes of it are in memory: of a row, and of a picture in its cell. Who keeps many entries
            counts them.
    """

    source: str
    place: str
    state: str
    content: Content
    id: str | None = None
    text: str | None = None
    image: str | None = None
    page: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    held: int = 0


@dataclass(frozen=True)
class Unreadable:
    """A part of a source that cannot be read.

    Attributes:
        source: As for an entry; the source itself where all of it cannot be read.
        place: As for an entry.
        reason: What is wrong with it.
        id: As for an entry.
        page: As for an entry.
    """

    source: str
    place: str
    reason: str
    id: str | None = None
    page: int | None = None


@dataclass(frozen=True)
class Finished:
    """All parts of a source have been read, and came before this.

    Attributes:
        source: As for an entry.
    """

    source: str


def digest(*parts: Any) -> str:
    """Return 32 hexadecimal digits that name some values of JSON, and bytes, by their content."""
    hashed = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        encoded = part if isinstance(part, bytes) else _write_json(part).encode()
        # The length keeps two parts apart from one that is both of them, the kind bytes from their JSON.
        hashed.update(f"{'b' if isinstance(part, bytes) else 'j'}{len(encoded)}:".encode())
        hashed.update(encoded)
    return hashed.hexdigest()
